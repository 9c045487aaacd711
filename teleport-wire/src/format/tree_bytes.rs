//! Trees as one piece of bytes, for what is no connection: a file, shared memory, the argument of a process.
//!
//! ```text
//! length of the metadata (u32) | metadata of a result | payload
//! ```
//!
//! By way of the conversions of the standard library, so that whoever moves bytes needs to know nothing of trees. Payload is
//! copied once, there and back. It is read as carefully as what a peer sends.

use crate::format::message::{Message, ResultMetadata};
use crate::format::{
    decode_error::DecodeError, encode_error::EncodeError, limits::Limits, order::Order, reader::Reader,
    signature::Signature,
};
use crate::model::{buffer::Buffer, tree::Tree};

/// No peer decides how long it is: who has the bytes has their memory.
fn limits() -> Limits {
    Limits { max_message_bytes: u64::MAX, ..Limits::default() }
}

/// The tree in one piece.
///
/// ```
/// use teleport_wire::{Tree, tree};
///
/// let tree = tree!({"weights": [0.5, 2.0], "step": 7});
/// let bytes: Vec<u8> = tree.clone().try_into()?;
/// assert_eq!(Tree::try_from(bytes)?, tree);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl TryFrom<Tree> for Vec<u8> {
    type Error = EncodeError;

    fn try_from(tree: Tree) -> Result<Vec<u8>, EncodeError> {
        let message = Message::result(&tree, &limits())?;
        // The metadata is within a limit far below 4 GiB.
        let length = message.metadata.len() as u32;
        let payload: usize = message.payload.iter().map(|buffer| buffer.len()).sum();
        let mut bytes = Vec::with_capacity(4 + message.metadata.len() + payload);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&message.metadata);
        message.payload.iter().for_each(|buffer| bytes.extend_from_slice(buffer));
        Ok(bytes)
    }
}

impl TryFrom<Vec<u8>> for Tree {
    type Error = DecodeError;

    fn try_from(bytes: Vec<u8>) -> Result<Tree, DecodeError> {
        let mut reader = Reader::new(&bytes);
        let length = reader.u32("metadata bytes")? as usize;
        let metadata = ResultMetadata::decode(reader.take(length, "metadata")?)?;
        let signature = Signature::decode(metadata.signature, &limits())?;
        let order = Order::decode(metadata.order, &signature)?;
        // Before memory is taken for it: that it is there.
        let payload =
            reader.take(usize::try_from(signature.payload_bytes()).unwrap_or(usize::MAX), "payload")?;
        reader.finish("tree")?;
        let mut memory = Buffer::zeroed(signature.memory_bytes());
        let place = memory.make_mut();
        for run in signature.runs() {
            let start = run.payload_start as usize;
            place[run.memory_start..][..run.bytes].copy_from_slice(&payload[start..][..run.bytes]);
        }
        signature.build(&order, memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, tree};

    #[test]
    fn trees_come_back_as_they_went() {
        let long = Array::from_vec((0..1000u16).collect::<Vec<_>>(), [10, 100]).unwrap();
        let trees = [
            Tree::Null,
            tree!(7),
            tree!({"b": [1, 2.5, "text"], "a": {"x": null}, "c": []}),
            tree!({"long": long.clone(), "byte": 1u8, "row": long.row(3)}),
        ];
        for tree in trees {
            let bytes: Vec<u8> = tree.clone().try_into().unwrap();
            assert_eq!(Tree::try_from(bytes.clone()).unwrap(), tree);
            for length in 0..bytes.len() {
                assert!(Tree::try_from(bytes[..length].to_vec()).is_err(), "{length} of {}", bytes.len());
            }
            assert!(Tree::try_from([bytes, vec![0]].concat()).is_err());
        }
    }
}
