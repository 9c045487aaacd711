//! The memory of a slab, and exclusive claims on its rows.
//!
//! Flow: [`Slab::new`] -> [`Slab::claim`] -> bytes are written through the [`RowMemory`] -> dropping it frees
//! the row -> [`Slab::into_tree`], once no row is claimed. All unsafe code of rows is here. It relies on two
//! facts: a row has at most one claim at a time, and different rows do not overlap. Copies only from row to
//! row.

use std::fmt;
use std::io::IoSliceMut;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use teleport_wire::{BatchLayout, Buffer, Order, Tree};

use super::sync::{AtomicBool, Ordering, Uses};
use crate::memory::pool::{MemoryError, Pool};
use crate::memory::user_held::Lent;
use crate::sys::{HUGE_PAGE_BYTES, SMALL_PAGE_BYTES};

/// Memory for calls of one signature. Each call is a row of every array.
///
/// Large memory is only reserved: rows that are never written cost nothing.
///
/// ```
/// use std::sync::Arc;
/// use teleport_transport::wire::{Limits, Message, Order, ResultMetadata, Signature, BatchLayout, tree};
/// use teleport_transport::{Pages, Pool, Slab};
///
/// let message = Message::result(&tree!({"id": 7}), &Limits::default())?;
/// let metadata = ResultMetadata::decode(message.metadata())?;
/// let signature = Arc::new(Signature::decode(metadata.signature, &Limits::default())?);
/// let stacked = Arc::new(BatchLayout::new(signature, 32).ok_or("too large")?);
///
/// let slab = Slab::new(stacked, Pool::global(), Pages::Usual)?;
/// for id in 0..3u8 {
///     let mut row = slab.claim(id.into()).ok_or("it is claimed")?;
///     row.write(0, &[id, 0, 0, 0, 0, 0, 0, 0]);
/// }
/// let batch = slab.into_tree(&Order::sorted(), 3, None).map_err(|_| "a row is claimed")?;
/// assert_eq!(batch, tree!({"id": vec![0i64, 1, 2]}));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Slab {
    /// Invariant: belongs to this slab alone, and only slabs claim rows.
    shared: Arc<SlabInner>,
}

/// The page size of a slab's memory. The first write to a page takes memory for the whole page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages from 2 MiB of memory on: the fastest.
    Usual,
    /// Small pages, for slabs that must cost little until they are filled. Slower.
    Small,
}

impl Pages {
    /// Returns the memory that the first row of a slab takes: a page for each of its arrays.
    pub fn first_bytes(self, stacked: &BatchLayout) -> u64 {
        let page_bytes = match self {
            Pages::Usual => HUGE_PAGE_BYTES,
            Pages::Small => SMALL_PAGE_BYTES,
        };
        let bytes = stacked.memory_bytes();
        let is_paged = bytes >= HUGE_PAGE_BYTES;
        if is_paged { bytes.min(stacked.leaves().saturating_mul(page_bytes)) as u64 } else { 0 }
    }
}

/// Exclusive access to the bytes of one row, in all arrays of its slab. Dropping it frees the row.
#[derive(Debug)]
pub struct RowMemory {
    shared: Arc<SlabInner>,
    /// Invariant: claimed only by this value.
    row: usize,
}

struct SlabInner {
    stacked: Arc<BatchLayout>,
    /// True for claimed rows. Set and read with `Acquire`, which pairs with the `Release` of the freeing
    /// thread, so the next claim sees all writes to the row.
    claimed: Box<[AtomicBool]>,
    uses: Uses,
    /// The start of `memory`. Invariant: valid for reads and writes of `stacked.memory_bytes()` initialized
    /// bytes until `memory` is taken, which happens only when no row is claimed and none will be.
    start: NonNull<u8>,
    /// `None` once taken. Invariant: has one owner, and while it is here, bytes are accessed only through
    /// `start`.
    memory: Mutex<Option<Buffer>>,
}

// SAFETY: `start` points into `memory`, which is `Send`. `claimed` gives each row's bytes to one thread at a
// time.
unsafe impl Send for SlabInner {}
// SAFETY: as above; through a shared reference, only the holder of a claim accesses bytes.
unsafe impl Sync for SlabInner {}

impl Slab {
    /// Allocates memory for the rows of `stacked`. Its content is unspecified.
    ///
    /// # Errors
    /// Returns [`MemoryError`] if the system refuses.
    pub fn new(stacked: Arc<BatchLayout>, pool: &Pool, pages: Pages) -> Result<Slab, MemoryError> {
        let mut memory = match pages {
            Pages::Usual => pool.alloc(stacked.memory_bytes())?,
            Pages::Small => pool.alloc_sparse(stacked.memory_bytes())?,
        };
        let start = NonNull::from(memory.get_mut().expect("a pool's memory has one owner")).cast();
        let claimed = (0..stacked.capacity()).map(|_| AtomicBool::new(false)).collect();
        let uses = Uses::new(stacked.capacity());
        let memory = Mutex::new(Some(memory));
        Ok(Slab { shared: Arc::new(SlabInner { stacked, claimed, uses, start, memory }) })
    }

    /// Returns the layout of the rows.
    pub fn stacked(&self) -> &Arc<BatchLayout> {
        &self.shared.stacked
    }

    /// Claims `row`. Returns `None` if it is claimed already or does not exist.
    pub fn claim(&self, row: usize) -> Option<RowMemory> {
        let is_claimed = self.shared.claimed.get(row)?.swap(true, Ordering::Acquire);
        (!is_claimed).then(|| RowMemory { shared: self.shared.clone(), row })
    }

    /// Fills rows with zeros, for padding.
    ///
    /// # Panics
    /// Panics if one of them is claimed or does not exist.
    pub fn zero(&mut self, rows: Range<usize>) {
        for row in rows {
            let mut memory = self.claim(row).expect("rows that are zeroed exist and are not claimed");
            memory.zero();
        }
    }

    /// Returns the first `rows` rows as one tree of arrays on the slab's memory, each with one owner. `lent`
    /// counts their bytes while an array is alive. Returns the slab as the error if a row is claimed.
    ///
    /// # Panics
    /// Panics if `rows` exceeds the capacity, or if `order` belongs to another signature.
    pub fn into_tree(self, order: &Order, rows: usize, lent: Option<&Lent>) -> Result<Tree, Slab> {
        let shared = &*self.shared;
        let taken = if shared.is_claimed() { None } else { shared.memory.lock().take() };
        let Some(memory) = taken else { return Err(self) };
        (0..rows).for_each(|row| shared.uses.write(row));
        let memory = match lent {
            Some(lent) => lent.lend(memory, rows as u64 * shared.stacked.row_bytes()),
            None => memory,
        };
        Ok(shared.stacked.build(order, memory, rows))
    }
}

impl SlabInner {
    /// Returns true if a row is claimed. If not, this thread sees all writes to the rows.
    fn is_claimed(&self) -> bool {
        self.claimed.iter().any(|claimed| claimed.load(Ordering::Acquire))
    }
}

impl RowMemory {
    /// Returns the index of the row.
    pub fn row(&self) -> usize {
        self.row
    }

    /// Returns the layout of the rows of its slab.
    pub fn stacked(&self) -> &Arc<BatchLayout> {
        &self.shared.stacked
    }

    /// Writes `bytes` to the payload of the row's message, from byte `at` on.
    ///
    /// # Panics
    /// Panics if the payload is shorter.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.write_from(0, at, bytes);
    }

    /// Copies the first `bytes` bytes of the payload from another row of the same signature.
    ///
    /// # Panics
    /// Panics if the payload is shorter, or if the signatures differ.
    pub fn copy_from(&mut self, from: &RowMemory, bytes: u64) {
        let (signature, other) = (self.stacked().signature(), from.stacked().signature());
        assert!(Arc::ptr_eq(signature, other) || signature == other, "the rows have one signature");
        self.shared.uses.write(self.row);
        from.shared.uses.read(from.row);
        for (leaf, range) in self.leaf_ranges(0, 0..bytes) {
            let (to, from) = (self.part(leaf, range.clone()), from.part(leaf, range));
            // SAFETY: both are live, initialized memory as long as `range`. This row is borrowed uniquely,
            // and the other is borrowed here, so nobody writes it. They do not overlap: both are claimed, so
            // they are different rows or belong to different slabs.
            unsafe { to.cast::<u8>().copy_from_nonoverlapping(from.cast(), to.len()) };
        }
    }

    /// Fills `slices` with the memory of the payload bytes from `at` on, up to `bytes` of them. Returns how
    /// many slices and bytes that are. `leaf` must not be after the leaf of byte `at`.
    pub(super) fn slices<'a>(
        &'a mut self,
        leaf: usize,
        at: u64,
        bytes: usize,
        slices: &mut [IoSliceMut<'a>],
    ) -> (usize, usize) {
        let (mut filled, mut offered) = (0, 0);
        self.shared.uses.write(self.row);
        let end = self.stacked().row_bytes().min(at + bytes as u64);
        for ((leaf, range), slice) in self.leaf_ranges(leaf, at..end).zip(slices) {
            let mut part = self.part(leaf, range);
            // SAFETY: the memory is initialized and lives as long as this claim, which is borrowed uniquely
            // for as long as the slice lives. Parts of different leaves do not overlap, and each leaf occurs
            // once.
            *slice = IoSliceMut::new(unsafe { part.as_mut() });
            filled += 1;
            offered += part.len();
        }
        (filled, offered)
    }

    /// Writes like [`write`](RowMemory::write). Searches from `leaf` on, which must not be after the leaf of
    /// byte `at`.
    pub(super) fn write_from(&mut self, leaf: usize, at: u64, mut bytes: &[u8]) {
        self.shared.uses.write(self.row);
        for (leaf, range) in self.leaf_ranges(leaf, at..at + bytes.len() as u64) {
            let to = self.part(leaf, range);
            let (now, later) = bytes.split_at(to.len());
            // SAFETY: `to` is as long as `now` and is live memory of this claim, which is borrowed uniquely.
            // So it does not overlap `bytes`.
            unsafe { to.cast::<u8>().copy_from_nonoverlapping(NonNull::from(now).cast(), now.len()) };
            bytes = later;
        }
    }

    /// Returns the CRC32C of a range of the payload.
    pub(super) fn checksum(&self, payload: Range<u64>) -> u32 {
        self.shared.uses.read(self.row);
        self.leaf_ranges(0, payload).fold(0, |crc, (leaf, range)| {
            let part = self.part(leaf, range);
            // SAFETY: the memory is initialized and lives as long as this claim. Nobody writes there without
            // the claim.
            teleport_wire::checksum(crc, unsafe { part.as_ref() })
        })
    }

    fn zero(&mut self) {
        self.shared.uses.write(self.row);
        for (leaf, range) in self.leaf_ranges(0, 0..self.stacked().row_bytes()) {
            let part = self.part(leaf, range);
            // SAFETY: the memory lives, and this claim on it is borrowed uniquely.
            unsafe { part.cast::<u8>().write_bytes(0, part.len()) };
        }
    }

    /// Returns a range of one leaf's bytes in this row.
    fn part(&self, leaf: usize, range: Range<usize>) -> NonNull<[u8]> {
        let place = self.shared.stacked.place(leaf, self.row);
        assert!(range.start <= range.end && range.end <= place.len(), "{range:?} of {} bytes", place.len());
        // SAFETY: places are within `memory_bytes`, for which `start` is valid.
        let start = unsafe { self.shared.start.add(place.start + range.start) };
        NonNull::slice_from_raw_parts(start, range.len())
    }

    /// Splits a range of the payload into leaves, from `leaf` on, and the non-empty range of each.
    fn leaf_ranges(&self, leaf: usize, payload: Range<u64>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let leaves = self.shared.stacked.signature().leaves();
        assert!(payload.end <= self.shared.stacked.row_bytes(), "{payload:?} of a row's payload");
        let inside = move |(index, leaf): (usize, &teleport_wire::Leaf)| {
            let start = payload.start.saturating_sub(leaf.payload_start) as usize;
            let end = leaf.memory.len().min((payload.end - leaf.payload_start) as usize);
            (start < end).then_some((index, start..end))
        };
        let behind = payload.end;
        let leaves = leaves.iter().enumerate().skip(leaf);
        leaves.take_while(move |(_, leaf)| leaf.payload_start < behind).filter_map(inside)
    }
}

impl Drop for RowMemory {
    fn drop(&mut self) {
        self.shared.claimed[self.row].store(false, Ordering::Release);
    }
}

impl fmt::Debug for SlabInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claimed = self.claimed.iter().filter(|claimed| claimed.load(Ordering::Relaxed)).count();
        f.debug_struct("Slab").field("rows", &self.claimed.len()).field("claimed", &claimed).finish()
    }
}
