//! Many messages of one signature in one memory, each leaf's rows one after the other.
//!
//! Flow: [`Signature::check_stackable`] -> [`BatchLayout::new`], a layout for so many rows -> payload is received to
//! [`place`](BatchLayout::place) -> [`BatchLayout::build`] makes a tree of arrays with one more axis on that memory. So a batch of
//! calls needs no copy to become one array.
//!
//! Each leaf has a region of its own, which starts at a multiple of [`LEAF_ALIGNMENT`]; rows within it follow each other
//! without gaps, as in any array. Holds no memory itself and copies nothing. Bound: what the regions take fits an `isize`.

use std::ops::Range;
use std::sync::Arc;

use crate::format::signature::{Leaf, LeafKind, Signature};
use crate::format::{limits::LEAF_ALIGNMENT, order::Order};
use crate::model::{buffer::Buffer, tree::Tree};

/// Where rows of one signature lie in a memory that has room for some of them.
///
/// ```
/// use std::sync::Arc;
/// use teleport_wire::{Array, Buffer, Limits, Message, Order, ResultMetadata, Signature, BatchLayout, tree};
///
/// let message = Message::result(&tree!({"image": Array::zeros::<u8>([3]), "id": 7}), &Limits::default())?;
/// let metadata = ResultMetadata::decode(&message.metadata)?;
/// let signature = Arc::new(Signature::decode(metadata.signature, &Limits::default())?);
///
/// let stacked = BatchLayout::new(signature, 32).ok_or("too large")?;
/// assert_eq!(stacked.place(0, 2), 16..24); // `id` is sorted first: 32 rows of 8 bytes
/// assert_eq!(stacked.place(1, 2), 256 + 6..256 + 9);
/// let batch = stacked.build(&Order::sorted(), Buffer::zeroed(stacked.memory_bytes()), 5);
/// assert_eq!(batch.field::<Array>("image")?.shape(), [5, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchLayout {
    /// Invariant: all its leaves are arrays.
    signature: Arc<Signature>,
    capacity: usize,
    /// Where the region of each leaf starts. Invariant: regions ascend, do not overlap, and end within `memory_bytes`.
    starts: Box<[usize]>,
    /// Invariant: fits an `isize`.
    memory_bytes: usize,
}

impl BatchLayout {
    /// The layout of up to `capacity` rows; none if no memory could hold them, or if they
    /// [cannot be stacked](Signature::check_stackable).
    pub fn new(signature: Arc<Signature>, capacity: usize) -> Option<BatchLayout> {
        let mut end = 0usize;
        let mut starts = Vec::with_capacity(signature.leaves().len());
        for leaf in signature.leaves() {
            let LeafKind::Array { dtype, shape } = &leaf.kind else { return None };
            // Also refuses an absurd shape of an array without bytes.
            let bytes = dtype.array_bytes(&shape.with_first(capacity))?;
            let start = end.checked_next_multiple_of(LEAF_ALIGNMENT as usize)?;
            starts.push(start);
            end = start.checked_add(bytes).filter(|end| isize::try_from(*end).is_ok())?;
        }
        Some(BatchLayout { signature, capacity, starts: starts.into(), memory_bytes: end })
    }

    /// What each row is.
    pub fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// How many rows there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the memory that holds all rows.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Bytes of one row in all leaves: those of its message's payload.
    pub fn row_bytes(&self) -> u64 {
        self.signature.payload_bytes()
    }

    /// How many arrays each row has.
    pub fn leaves(&self) -> usize {
        self.starts.len()
    }

    /// Where in the memory the bytes of `leaf` lie in `row`: leaves are counted in the order of the payload. No two places
    /// overlap.
    ///
    /// # Panics
    /// If there is no such leaf or row.
    pub fn place(&self, leaf: usize, row: usize) -> Range<usize> {
        assert!(row < self.capacity, "row {row} of {}", self.capacity);
        let bytes = self.signature.leaves()[leaf].memory.len();
        // Neither overflows: the region's end fits.
        let start = self.starts[leaf] + row * bytes;
        start..start + bytes
    }

    /// The tree of the first `rows` rows in `memory`: arrays of shape `[rows, …]`, scalars of shape `[rows]`, on parts of
    /// that memory. If it has one owner, each array has one owner too, and can be written in place.
    ///
    /// # Panics
    /// If `memory` is not [`memory_bytes`](BatchLayout::memory_bytes) long, `rows` exceeds the capacity, or `order` is one of
    /// another signature.
    pub fn build(&self, order: &Order, memory: Buffer, rows: usize) -> Tree {
        assert!(rows <= self.capacity, "{rows} rows of {}", self.capacity);
        assert_eq!(memory.len(), self.memory_bytes, "bytes of the memory");
        let range = |(start, leaf): (&usize, &Leaf)| *start..start + rows * leaf.memory.len();
        let ranges: Vec<Range<usize>> = self.starts.iter().zip(self.signature.leaves()).map(range).collect();
        let tree = self.signature.build_at(&ranges, order, memory, Some(rows));
        tree.expect("only strings can be refused, and there are none")
    }
}
