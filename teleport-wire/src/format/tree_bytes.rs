//! Trees as one vector of bytes, for files, shared memory and the arguments of processes.
//!
//! ```text
//! length of the metadata (u32) | metadata of a result | payload
//! ```
//!
//! The payload is copied once in each direction. Decoding trusts the bytes no more than those of a peer.

use crate::format::message::Message;
use crate::format::metadata::ResultMetadata;
use crate::format::{decode_error::DecodeError, encode_error::EncodeError, limits::Limits};
use crate::format::{order::Order, reader::Reader, signature::Signature};
use crate::model::{buffer::Buffer, tree::Tree};

/// The length is not limited, since the caller holds all bytes already.
fn limits() -> Limits {
    Limits { max_message_bytes: u64::MAX, ..Limits::default() }
}

/// Encodes the tree into one vector.
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
        // The limit of metadata is far below 4 GiB.
        let length = message.metadata().len() as u32;
        let mut bytes = Vec::with_capacity(4 + message.metadata().len() + message.payload_bytes() as usize);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(message.metadata());
        message.payload().for_each(|part| bytes.extend_from_slice(part));
        Ok(bytes)
    }
}

/// Decodes a tree from one vector.
impl TryFrom<Vec<u8>> for Tree {
    type Error = DecodeError;

    fn try_from(bytes: Vec<u8>) -> Result<Tree, DecodeError> {
        let mut reader = Reader::new(&bytes);
        let length = reader.u32("metadata bytes")? as usize;
        let metadata = ResultMetadata::decode(reader.take(length, "metadata")?)?;
        let signature = Signature::decode(metadata.signature, &limits())?;
        let order = Order::decode(metadata.order, &signature)?;
        // The payload is taken before memory for it is allocated.
        let payload_bytes = usize::try_from(signature.payload_bytes()).unwrap_or(usize::MAX);
        let payload = reader.take(payload_bytes, "payload")?;
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
    fn trees_round_trip() {
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
