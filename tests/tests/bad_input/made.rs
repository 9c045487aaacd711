//! Valid and invalid frames and messages, made by hand.

use teleport::wire::{
    CallHead, ErrorKind, Goodbye, Header, Id128, Kind, Limits, Message, Ran, RemoteError, Resume,
    encode_frame, encode_ids,
};
use teleport::{Array, Tree, tree};
use teleport_tests::Raw;

/// An id of no message.
pub(crate) const NOBODY: u64 = 77;

pub(crate) fn frame(kind: Kind, id: u64, body: &[u8]) -> Vec<u8> {
    encode_frame(kind, id, body)
}

/// Returns a call of `echo` with this tree, as the library makes it.
pub(crate) fn echo(tree: &Tree) -> Message {
    Message::call(&CallHead::new("echo"), tree, &Limits::default()).unwrap()
}

pub(crate) fn bytes(len: usize) -> Message {
    echo(&Tree::from(Array::from(vec![7u8; len])))
}

/// Returns the body of a call of `echo` with this signature, made by hand.
pub(crate) fn call_body(signature: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(4u16.to_le_bytes()); // method bytes
    body.extend(0u16.to_le_bytes()); // flags
    body.extend((signature.len() as u32).to_le_bytes());
    body.extend([0; 16]); // order bytes, reserved, deadline
    body.extend(b"echo");
    body.extend(signature);
    body
}

/// Returns the frame of a call with the body of [`call_body`].
pub(crate) fn call(signature: &[u8]) -> Vec<u8> {
    frame(Kind::Call, 1, &call_body(signature))
}

/// Returns the signature of an array of bytes.
pub(crate) fn array_signature(shape: &[u64]) -> Vec<u8> {
    let mut signature = vec![1, 6, shape.len() as u8];
    signature.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
    signature
}

/// Returns the bytes of the header after `change`, with a correct checksum.
pub(crate) fn changed(header: Header, change: impl FnOnce(&mut [u8; 32])) -> Vec<u8> {
    let mut bytes = header.encode();
    change(&mut bytes);
    let crc = teleport::wire::checksum(0, &bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes.to_vec()
}

/// Returns a valid frame of this kind.
pub(crate) fn good_frame(kind: Kind) -> Vec<u8> {
    let message = echo(&tree!("text"));
    match kind {
        Kind::Hello => frame(kind, 0, &Raw::hello().encode()),
        Kind::Call => frame(kind, 1, message.metadata()),
        Kind::Result => frame(kind, 1, Message::result(&tree!(1), &Limits::default()).unwrap().metadata()),
        Kind::Error => frame(kind, 1, &RemoteError::new(ErrorKind::Failed, Ran::Yes, "no").encode()),
        Kind::Data => [&Header::data(1, 4, None).encode()[..], b"text"].concat(),
        Kind::Grant | Kind::Ack => frame(kind, 0, &encode_ids(&[1])),
        Kind::Resume => frame(kind, 0, &Resume { server: Id128([1; 16]), calls: Vec::new() }.encode()),
        Kind::ResumeAnswer => frame(kind, 0, &[]),
        Kind::Block => frame(kind, 1, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Kind::Goodbye => Goodbye { kind: None, reason: String::new() }.encode_frame(),
        Kind::Abort | Kind::Credit | Kind::Cancel | Kind::Ping | Kind::Pong | Kind::Release => {
            Header::empty(kind, 1).encode().to_vec()
        }
    }
}

/// Returns a call that needs a grant with its payload, to be sent at once so that no grant arrives in
/// between.
pub(crate) fn ungranted() -> Vec<u8> {
    let message = bytes(100);
    [&message.header(1, false)[..], message.metadata(), &Header::data(1, 100, None).encode()].concat()
}
