//! What a message's tree looks like without its contents: structure, keys, dtypes, shapes and lengths.
//!
//! Flow: metadata bytes -> [`Signature::decode`], which checks every limit -> memory of
//! [`memory_bytes`](Signature::memory_bytes), into which the payload is received by [`runs`](Signature::runs)
//! -> [`Signature::build`] makes the tree on that memory. Writing is in `encode`; many messages in one memory in `stacked`.
//!
//! Equal trees have equal bytes, since a dict's keys are sorted and nothing can be written in two ways: so the
//! bytes can be compared, hashed and cached instead of the tree. Nothing here copies payload.

mod build;
mod decode;

use std::hash::{Hash, Hasher};
use std::ops::Range;

use crate::format::limits::LEAF_ALIGNMENT;
use crate::model::{buffer::Buffer, dtype::DType, shape::Shape, tree::Tree, tree::key::Key};

/// The first byte of each node.
pub(crate) mod tag {
    pub(crate) const NULL: u8 = 0;
    pub(crate) const ARRAY: u8 = 1;
    pub(crate) const STRING: u8 = 2;
    pub(crate) const BYTES: u8 = 3;
    pub(crate) const LIST: u8 = 4;
    pub(crate) const DICT: u8 = 5;
}

/// The structure of a message, decoded and checked once, shared by all messages with the same bytes.
///
/// Compared and hashed by its bytes.
///
/// ```
/// use teleport_wire::{Array, Limits, Message, ResultMetadata, Signature, tree};
///
/// let tree = tree!({"image": Array::zeros::<u8>([2, 3]), "id": 7});
/// let message = Message::result(&tree, &Limits::default())?;
/// let metadata = ResultMetadata::decode(&message.metadata)?;
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
    /// Of all dicts, in preorder of the dicts; sorted within each.
    keys: Vec<Key>,
    leaves: Vec<Leaf>,
    /// `memory` of each leaf, as `Buffer::split` wants them.
    ranges: Vec<Range<usize>>,
    runs: Vec<Run>,
    payload_bytes: u64,
    memory_bytes: usize,
    /// Entries of the dicts with two or more: as many indices has an order that is not empty.
    ordered_entries: usize,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Null,
    /// The next of `leaves`.
    Leaf,
    /// With so many children.
    List(u32),
    /// With so many children, whose keys are the next of `keys`.
    Dict(u32),
}

/// An array, string or bytes of a message.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// What it is.
    pub kind: LeafKind,
    /// Where in the payload it starts.
    pub payload_start: u64,
    /// Where in the receiver's memory it lies. Starts at a multiple of [`LEAF_ALIGNMENT`], unless it is empty.
    pub memory: Range<usize>,
}

/// What kind of leaf it is.
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

/// A stretch of payload that lies in one piece in the receiver's memory too. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where in the payload it starts. Runs cover the payload without gaps, in order.
    pub payload_start: u64,
    /// Where in the receiver's memory it starts.
    pub memory_start: usize,
    /// Its length in bytes.
    pub bytes: usize,
}

impl Signature {
    /// The bytes that this was decoded from.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of payload that follow on the wire.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Bytes of memory that hold the payload, with each leaf at a multiple of [`LEAF_ALIGNMENT`]. Zero exactly
    /// if there is no payload.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Bytes of memory that this, and a tree built from it, take beside the payload, at most: what a receiver holds for
    /// names, shapes and nodes alone. Grows with the metadata and the number of nodes.
    pub fn structure_bytes(&self) -> u64 {
        let lists = self.nodes.capacity() * size_of::<Node>()
            + self.keys.capacity() * size_of::<Key>()
            + self.leaves.capacity() * size_of::<Leaf>()
            + self.ranges.capacity() * size_of::<Range<usize>>()
            + self.runs.capacity() * size_of::<Run>();
        // Beside the bytes themselves: names as counted text, and sizes of arrays of many dimensions twice.
        let text = self.bytes.len() * 3 + self.keys.len() * 2 * size_of::<usize>();
        let tree = self.nodes.len() * size_of::<Tree>()
            + self.keys.len() * MAP_ENTRY_BYTES
            + self.leaves.len() * 2 * size_of::<Buffer>();
        (size_of::<Signature>() + lists + text + tree) as u64
    }

    /// Where the payload goes, from its first byte to its last.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The arrays, strings and bytes, in the order of the payload.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub(crate) fn ordered_entries(&self) -> usize {
        self.ordered_entries
    }

    /// The number of entries of each dict with two or more, in preorder.
    pub(crate) fn ordered_dicts(&self) -> impl Iterator<Item = u32> + '_ {
        self.nodes.iter().filter_map(|node| match node {
            Node::Dict(count) if *count >= 2 => Some(*count),
            _ => None,
        })
    }
}

/// What an entry of a dict's map takes beside the child: the key, its hash, and the places of its index, of which up to half
/// are empty and the fewest are four.
const MAP_ENTRY_BYTES: usize = size_of::<Key>() + size_of::<[usize; 8]>();

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

/// Where leaves lie in the payload and in memory, one after the other; the same for writer and reader.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) payload_bytes: u64,
    pub(crate) memory_bytes: u64,
}

impl Layout {
    /// Places a leaf of `bytes`, and gives where it starts in payload and memory. `None` past 2^64.
    pub(crate) fn place(&mut self, bytes: u64) -> Option<(u64, u64)> {
        if bytes == 0 {
            return Some((self.payload_bytes, self.memory_bytes));
        }
        let start = self.memory_bytes.checked_next_multiple_of(LEAF_ALIGNMENT)?;
        let payload_start = self.payload_bytes;
        self.memory_bytes = start.checked_add(bytes)?;
        // The payload is never longer than the memory, so this cannot overflow where that did not.
        self.payload_bytes += bytes;
        Some((payload_start, start))
    }
}

/// What an array counts for against `max_message_bytes`: its bytes with sizes of 0, and a width of 0, taken
/// as 1. `None` past 2^64.
pub(crate) fn padded_bytes(dtype: DType, shape: &[usize]) -> Option<u64> {
    let sizes = shape.iter().map(|size| (*size as u64).max(1));
    sizes.into_iter().try_fold(dtype.item_bytes().max(1), u64::checked_mul)
}
