//! The structure of a message's tree without its contents: keys, dtypes, shapes and lengths.
//!
//! Flow: metadata -> [`Signature::decode`] -> memory of [`memory_bytes`](Signature::memory_bytes), into which
//! the payload is received by [`runs`](Signature::runs) -> [`Signature::build`] makes the tree on it.
//!
//! Equal structures have equal bytes, since a dict's keys are sorted and nothing can be written in two ways.
//! So the bytes can be compared, hashed and cached instead of the structure.

mod build;
mod decode;

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::format::decode_error::DecodeError;
use crate::format::limits::{LEAF_ALIGNMENT, Limits};
use crate::model::tree::{Tree, key::Key, keys::Keys};
use crate::model::{buffer::Buffer, buffer::list::List, dtype::DType, shape::Shape};

/// The first byte of each node.
pub(crate) mod tag {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const ARRAY: u8 = 1;
    pub(crate) const STRING: u8 = 2;
    pub(crate) const BYTES: u8 = 3;
    pub(crate) const LIST: u8 = 4;
    pub(crate) const DICT: u8 = 5;
}

/// The structure of a message, decoded and checked once, and shared by all messages with the same bytes.
///
/// Equality and hash are those of the bytes.
///
/// ```
/// use teleport_wire::{Array, Limits, Message, ResultMetadata, Signature, tree};
///
/// let tree = tree!({"image": Array::zeros::<u8>([2, 3]), "id": 7});
/// let message = Message::result(&tree, &Limits::default())?;
/// let metadata = ResultMetadata::decode(message.metadata())?;
/// let signature = Signature::decode(metadata.signature, &Limits::default())?;
/// assert_eq!(signature.payload_bytes(), 8 + 6);
/// assert_eq!(signature.memory_bytes(), 64 + 6); // `id` is sorted first; `image` starts at 64
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Signature {
    bytes: Box<[u8]>,
    /// In preorder: a list or dict is followed by its children.
    nodes: Vec<Node>,
    /// The sorted keys of each dict that has entries, in preorder.
    keys: Vec<Arc<Keys>>,
    leaves: Vec<Leaf>,
    /// The `memory` of each leaf, for `Buffer::split`.
    ranges: Vec<Range<usize>>,
    runs: Vec<Run>,
    payload_bytes: u64,
    memory_bytes: usize,
    /// The entries of all dicts with two or more: the number of indices in an order that is not empty.
    ordered_entries: usize,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Null,
    /// The next of `leaves`.
    Leaf,
    /// The number of children.
    List(u32),
    /// The number of children. If there are any, their keys are the next of `keys`.
    Dict(u32),
}

/// An array, string or bytes of a message.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The kind of leaf, with dtype and shape of an array.
    pub kind: LeafKind,
    /// The offset in the payload.
    pub payload_start: u64,
    /// The range in the receiver's memory. It starts at a multiple of [`LEAF_ALIGNMENT`], unless it is empty.
    pub memory: Range<usize>,
}

/// The kind of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafKind {
    /// An array.
    Array {
        /// The type of its items.
        dtype: DType,
        /// The sizes of its axes.
        shape: Shape,
    },
    /// UTF-8 text, which is checked once it has arrived.
    String,
    /// Bytes without a type.
    Bytes,
}

/// A part of the payload that is contiguous in the receiver's memory too. It is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The offset in the payload. Runs cover the payload without gaps, in order.
    pub payload_start: u64,
    /// The offset in the receiver's memory.
    pub memory_start: usize,
    /// The length in bytes.
    pub bytes: usize,
}

impl Signature {
    /// Decodes a signature and checks it against `limits`.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the bytes break the format or a limit.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Signature, DecodeError> {
        decode::decode(bytes, limits)
    }

    /// Returns the bytes that this was decoded from.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the size of the payload in bytes.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Returns the size of the memory that holds the payload, with each leaf at a multiple of
    /// [`LEAF_ALIGNMENT`]. It is zero exactly if there is no payload.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Returns an upper bound of the memory that this signature, and a tree built from it, take besides the
    /// payload: for names, shapes and nodes.
    pub fn structure_bytes(&self) -> u64 {
        /// The keys of a dict with their reference counts, here and in the order of a sender.
        const DICT_BYTES: usize = 2 * (size_of::<Arc<Keys>>() + size_of::<Keys>() + size_of::<[usize; 2]>());
        /// A key and its places in the index, of which at most three in four are free: here, and in the order
        /// of a sender, which also has its index.
        const KEY_BYTES: usize = 2 * (size_of::<Key>() + size_of::<[u32; 4]>()) + size_of::<u32>();
        let keys: usize = self.keys.iter().map(|keys| keys.names().len()).sum();
        let lists = self.nodes.capacity() * size_of::<Node>()
            + self.keys.capacity() * DICT_BYTES
            + keys * KEY_BYTES
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.ranges.capacity() * size_of::<Range<usize>>()
            + self.runs.capacity() * size_of::<Run>();
        // The bytes, the names as counted text, and the sizes of arrays of many dimensions twice.
        let text = self.bytes.len() * 3 + keys * 2 * size_of::<usize>();
        // What the memory of a dict's trees takes besides them.
        let trees = |keys: &Arc<Keys>| List::<Tree>::taken_bytes(keys.names().len());
        let dicts: usize = self.keys.iter().map(trees).sum::<usize>() - keys * size_of::<Tree>();
        let tree = self.nodes.len() * size_of::<Tree>() + dicts + self.leaves.len() * 2 * size_of::<Buffer>();
        (size_of::<Signature>() + lists + text + tree) as u64
    }

    /// Returns where the payload goes, from its first byte to its last.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Returns the arrays, strings and bytes, in the order of the payload.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub(crate) fn ordered_entries(&self) -> usize {
        self.ordered_entries
    }

    /// Returns the sorted keys of each dict that has entries, in preorder.
    pub(crate) fn keys(&self) -> &[Arc<Keys>] {
        &self.keys
    }
}

impl PartialEq for Signature {
    fn eq(&self, other: &Signature) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Signature {}

impl Hash for Signature {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

/// The sizes of payload and memory of the leaves so far. Sender and receiver place leaves by the same rule.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    pub(crate) payload_bytes: u64,
    pub(crate) memory_bytes: u64,
}

impl Placement {
    /// Places a leaf, and returns its offsets in payload and memory. Returns `None` if they exceed 64 bits.
    pub(crate) fn place(&mut self, bytes: u64) -> Option<(u64, u64)> {
        if bytes == 0 {
            return Some((self.payload_bytes, self.memory_bytes));
        }
        let start = self.memory_bytes.checked_next_multiple_of(LEAF_ALIGNMENT)?;
        let payload_start = self.payload_bytes;
        self.memory_bytes = start.checked_add(bytes)?;
        // The payload is never longer than the memory, so this cannot overflow.
        self.payload_bytes += bytes;
        Some((payload_start, start))
    }
}

/// Returns the size of an array for `max_message_bytes`: its bytes, with sizes and widths of 0 taken as 1.
/// Returns `None` if it exceeds 64 bits.
pub(crate) fn padded_bytes(dtype: DType, shape: &[usize]) -> Option<u64> {
    let mut sizes = shape.iter().map(|size| (*size as u64).max(1));
    sizes.try_fold(dtype.item_bytes().max(1), u64::checked_mul)
}
