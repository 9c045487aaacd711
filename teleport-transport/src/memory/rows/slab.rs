//! The memory of a slab, and the rights to its rows.
//!
//! Flow: [`Slab::new`] -> [`Slab::claim`], once for each row at a time -> bytes are written through the [`RowMemory`] ->
//! dropped, which makes the row free again -> [`Slab::into_tree`], once none is out. Holds the unsafe code of rows: all of it
//! rests on that a row is claimed once, and that places of different rows do not overlap. Copies only from row to row.

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

/// Memory for calls of one signature, each of which is a row of every array.
///
/// Where it is large it is reserved, and rows that are never written cost no memory.
///
/// ```
/// use std::sync::Arc;
/// use teleport_transport::wire::{Limits, Message, Order, ResultMetadata, Signature, BatchLayout, tree};
/// use teleport_transport::{Pages, Pool, Slab};
///
/// let message = Message::result(&tree!({"id": 7}), &Limits::default())?;
/// let metadata = ResultMetadata::decode(&message.metadata)?;
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
    /// Invariant: no other slab has it, and slabs alone claim rows.
    shared: Arc<Shared>,
}

/// How large the pages are that a slab's memory is made of. Once a byte of one is written, all of it takes memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// From 2 MiB of memory on, huge ones: the fastest.
    Usual,
    /// Small ones: for slabs that must cost little until they are filled. Slower.
    Small,
}

impl Pages {
    /// What the first row of a slab takes of the system's memory, if there is a page for each of its arrays.
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

/// The right to one row's bytes, in all arrays of its slab. The row is free again when it is dropped.
#[derive(Debug)]
pub struct RowMemory {
    shared: Arc<Shared>,
    /// Invariant: claimed by this alone.
    row: usize,
}

struct Shared {
    stacked: Arc<BatchLayout>,
    /// Whether a row is claimed. Set and read with `Acquire`, which pairs with the `Release` of who gave it back: all
    /// that was written to the row is there for the next.
    claimed: Box<[AtomicBool]>,
    uses: Uses,
    /// Where `memory` starts. Invariant: valid for reads and writes of `stacked.memory_bytes()` initialized bytes until that is
    /// taken, which is when no row is claimed, and none will be.
    start: NonNull<u8>,
    /// None once it was taken. Invariant: it has one owner, and while it is here, bytes are used through `start` alone.
    memory: Mutex<Option<Buffer>>,
}

// SAFETY: `start` points into `memory`, which may go to any thread; who may use which bytes when is said by `claimed`.
unsafe impl Send for Shared {}
// SAFETY: as above; through a shared reference bytes are used by the holder of a claim alone.
unsafe impl Sync for Shared {}

impl Slab {
    /// Memory for as many rows as `stacked` has room for. What is in it is unspecified.
    ///
    /// # Errors
    /// [`MemoryError`] when the system refuses.
    pub fn new(stacked: Arc<BatchLayout>, pool: &Pool, pages: Pages) -> Result<Slab, MemoryError> {
        let mut memory = match pages {
            Pages::Usual => pool.alloc(stacked.memory_bytes())?,
            Pages::Small => pool.alloc_sparse(stacked.memory_bytes())?,
        };
        let start = NonNull::from(memory.get_mut().expect("a pool's memory has one owner")).cast();
        let claimed = (0..stacked.capacity()).map(|_| AtomicBool::new(false)).collect();
        let uses = Uses::new(stacked.capacity());
        let memory = Mutex::new(Some(memory));
        Ok(Slab { shared: Arc::new(Shared { stacked, claimed, uses, start, memory }) })
    }

    /// Where rows lie.
    pub fn stacked(&self) -> &Arc<BatchLayout> {
        &self.shared.stacked
    }

    /// The right to the bytes of `row`; none if somebody has it, or there is no such row.
    pub fn claim(&self, row: usize) -> Option<RowMemory> {
        let is_claimed = self.shared.claimed.get(row)?.swap(true, Ordering::Acquire);
        (!is_claimed).then(|| RowMemory { shared: self.shared.clone(), row })
    }

    /// Zeroes rows, as for padding.
    ///
    /// # Panics
    /// If one of them is claimed, or there is no such row.
    pub fn zero(&mut self, rows: Range<usize>) {
        for row in rows {
            let mut memory = self.claim(row).expect("rows that are zeroed are there, and not claimed");
            memory.zero();
        }
    }

    /// The first `rows` rows as one tree of arrays, each with one owner, on the slab's memory. They are in the hands of
    /// users then, and `lent` counts their bytes for as long as an array is alive. The slab comes back if a row is claimed.
    ///
    /// # Panics
    /// If `rows` exceeds the capacity, or `order` is one of another signature.
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

impl Shared {
    /// Whether a row is claimed. If not, all that was written to the rows is there.
    fn is_claimed(&self) -> bool {
        self.claimed.iter().any(|claimed| claimed.load(Ordering::Acquire))
    }
}

impl RowMemory {
    /// Which row of its slab it is.
    pub fn row(&self) -> usize {
        self.row
    }

    /// Where rows of its slab lie.
    pub fn stacked(&self) -> &Arc<BatchLayout> {
        &self.shared.stacked
    }

    /// Writes `bytes` as the payload of the row's message from byte `at` on.
    ///
    /// # Panics
    /// If the payload is shorter than that.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.write_from(0, at, bytes);
    }

    /// Copies the first `bytes` bytes of the payload, in the order of a message, from another row of the same signature.
    ///
    /// # Panics
    /// If the payload is shorter than that, or the signatures differ.
    pub fn copy_from(&mut self, from: &RowMemory, bytes: u64) {
        let (signature, other) = (self.stacked().signature(), from.stacked().signature());
        assert!(Arc::ptr_eq(signature, other) || signature == other, "rows of one signature only");
        self.shared.uses.write(self.row);
        from.shared.uses.read(from.row);
        for (leaf, range) in self.stretches(0, 0..bytes) {
            let (to, from) = (self.part(leaf, range.clone()), from.part(leaf, range));
            // SAFETY: both are in memory that lives, initialized, and as long as `range`. This row is borrowed uniquely and
            // the other one not at all by who could write it. They do not overlap, as both are claimed: they are different
            // rows, or of different slabs.
            unsafe { to.cast::<u8>().copy_from_nonoverlapping(from.cast(), to.len()) };
        }
    }

    /// Fills `slices` with the places of the payload bytes from `at` on, up to `bytes` of them, and says how many slices and
    /// bytes that are. `leaf` is not behind the one that byte `at` lies in.
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
        for ((leaf, range), slice) in self.stretches(leaf, at..end).zip(slices) {
            let mut part = self.part(leaf, range);
            // SAFETY: the memory is initialized and lives as long as this claim, which is borrowed uniquely for as long as
            // the slice lives. Parts of different leaves do not overlap, and each leaf comes once.
            *slice = IoSliceMut::new(unsafe { part.as_mut() });
            filled += 1;
            offered += part.len();
        }
        (filled, offered)
    }

    /// As [`write`](RowMemory::write), where it is known that `leaf` is not behind the one that byte `at` lies in.
    pub(super) fn write_from(&mut self, leaf: usize, at: u64, mut bytes: &[u8]) {
        self.shared.uses.write(self.row);
        for (leaf, range) in self.stretches(leaf, at..at + bytes.len() as u64) {
            let to = self.part(leaf, range);
            let (now, later) = bytes.split_at(to.len());
            // SAFETY: `to` is as long as `now`, and is memory that lives and that this claim is for, which is borrowed
            // uniquely. So it does not overlap what somebody else has borrowed.
            unsafe { to.cast::<u8>().copy_from_nonoverlapping(NonNull::from(now).cast(), now.len()) };
            bytes = later;
        }
    }

    /// The CRC32C of a stretch of the payload.
    pub(super) fn checksum(&self, payload: Range<u64>) -> u32 {
        self.shared.uses.read(self.row);
        self.stretches(0, payload).fold(0, |crc, (leaf, range)| {
            let part = self.part(leaf, range);
            // SAFETY: the memory is initialized and lives as long as this claim, without which nobody writes there.
            teleport_wire::checksum(crc, unsafe { part.as_ref() })
        })
    }

    fn zero(&mut self) {
        self.shared.uses.write(self.row);
        for (leaf, range) in self.stretches(0, 0..self.stacked().row_bytes()) {
            let part = self.part(leaf, range);
            // SAFETY: the memory lives, and this claim on it is borrowed uniquely.
            unsafe { part.cast::<u8>().write_bytes(0, part.len()) };
        }
    }

    /// A part of one leaf's bytes, which this claim is for.
    fn part(&self, leaf: usize, range: Range<usize>) -> NonNull<[u8]> {
        let place = self.shared.stacked.place(leaf, self.row);
        assert!(range.start <= range.end && range.end <= place.len(), "{range:?} of {} bytes", place.len());
        // SAFETY: places lie within `memory_bytes`, for which `start` is valid.
        let start = unsafe { self.shared.start.add(place.start + range.start) };
        NonNull::slice_from_raw_parts(start, range.len())
    }

    /// Where a stretch of the payload lies: leaves, from `leaf` on, and the part of each. None is empty.
    fn stretches(&self, leaf: usize, payload: Range<u64>) -> impl Iterator<Item = (usize, Range<usize>)> {
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

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claimed = self.claimed.iter().filter(|claimed| claimed.load(Ordering::Relaxed)).count();
        f.debug_struct("Slab").field("rows", &self.claimed.len()).field("claimed", &claimed).finish()
    }
}
