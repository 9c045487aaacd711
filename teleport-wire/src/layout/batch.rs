//! The memory layout of a batch: many messages of one signature, as arrays with one more axis.
//!
//! Flow: [`BatchLayout::new`] -> payload is received to [`place`](BatchLayout::place) ->
//! [`BatchLayout::build`] makes a tree on that memory, without a copy.
//!
//! Each leaf has a region, which starts at a multiple of [`LEAF_ALIGNMENT`]. Its rows follow each other
//! without gaps, as in any array.

use std::ops::Range;
use std::sync::Arc;

use crate::format::signature::{LeafKind, Signature};
use crate::format::{limits::LEAF_ALIGNMENT, order::Order};
use crate::model::{buffer::Buffer, tree::Tree};

/// The places of the rows of one signature in memory.
///
/// ```
/// use std::sync::Arc;
/// use teleport_wire::{Array, BatchLayout, Buffer, Limits, Message, Order, ResultMetadata, Signature, tree};
///
/// let message = Message::result(&tree!({"image": Array::zeros::<u8>([3]), "id": 7}), &Limits::default())?;
/// let metadata = ResultMetadata::decode(message.metadata())?;
/// let signature = Arc::new(Signature::decode(metadata.signature, &Limits::default())?);
///
/// let layout = BatchLayout::new(signature, 32).ok_or("too large")?;
/// assert_eq!(layout.place(0, 2), 16..24); // `id` is sorted first: 32 rows of 8 bytes
/// assert_eq!(layout.place(1, 2), 256 + 6..256 + 9);
/// let batch = layout.build(&Order::sorted(), Buffer::zeroed(layout.memory_bytes()), 5);
/// assert_eq!(batch.field::<Array>("image")?.shape(), [5, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchLayout {
    /// Invariant: all its leaves are arrays.
    signature: Arc<Signature>,
    capacity: usize,
    /// The start of each leaf's region. Invariant: regions ascend, do not overlap, and end within
    /// `memory_bytes`.
    starts: Box<[usize]>,
    /// Invariant: fits an `isize`.
    memory_bytes: usize,
}

impl BatchLayout {
    /// Creates the layout of up to `capacity` rows. Returns `None` if no memory could hold them, or if they
    /// [cannot be stacked](Signature::check_stackable).
    pub fn new(signature: Arc<Signature>, capacity: usize) -> Option<BatchLayout> {
        let mut end = 0usize;
        let mut starts = Vec::with_capacity(signature.leaves().len());
        for leaf in signature.leaves() {
            let LeafKind::Array { dtype, shape } = &leaf.kind else { return None };
            // This also refuses an array without bytes whose other sizes are too large.
            let bytes = dtype.array_bytes(&shape.with_first(capacity))?;
            let start = end.checked_next_multiple_of(LEAF_ALIGNMENT as usize)?;
            starts.push(start);
            end = start.checked_add(bytes).filter(|end| isize::try_from(*end).is_ok())?;
        }
        Some(BatchLayout { signature, capacity, starts: starts.into(), memory_bytes: end })
    }

    /// Returns the signature of each row.
    pub fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// Returns the number of rows that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the size of the memory for all rows.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Returns the size of one row in all leaves, which is that of its message's payload.
    pub fn row_bytes(&self) -> u64 {
        self.signature.payload_bytes()
    }

    /// Returns the number of arrays in each row.
    pub fn leaves(&self) -> usize {
        self.starts.len()
    }

    /// Returns the place in memory of the bytes of `leaf` in `row`. Leaves are counted in the order of the
    /// payload. No two places overlap.
    ///
    /// # Panics
    /// Panics if there is no such leaf or row.
    pub fn place(&self, leaf: usize, row: usize) -> Range<usize> {
        assert!(row < self.capacity, "row {row} of {}", self.capacity);
        let bytes = self.signature.leaves()[leaf].memory.len();
        // This does not overflow, since the end of the region fits.
        let start = self.starts[leaf] + row * bytes;
        start..start + bytes
    }

    /// Builds the tree of the first `rows` rows on parts of `memory`: arrays of shape `[rows, …]`, and
    /// scalars of shape `[rows]`. If `memory` has one owner, each array has one owner too, and is writable in
    /// place.
    ///
    /// # Panics
    /// Panics if `memory` is not [`memory_bytes`](BatchLayout::memory_bytes) long, if `rows` exceeds the
    /// capacity, or if `order` belongs to another signature.
    pub fn build(&self, order: &Order, memory: Buffer, rows: usize) -> Tree {
        assert!(rows <= self.capacity, "{rows} rows of {}", self.capacity);
        assert_eq!(memory.len(), self.memory_bytes, "bytes of the memory");
        let regions = self.starts.iter().zip(self.signature.leaves());
        let ranges: Vec<Range<usize>> =
            regions.map(|(start, leaf)| *start..start + rows * leaf.memory.len()).collect();
        let tree = self.signature.build_at(&ranges, order, memory, Some(rows));
        tree.expect("only strings can be refused, and there are none")
    }
}
