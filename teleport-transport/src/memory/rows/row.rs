//! The place of one call's payload, which may move while the payload arrives.
//!
//! Flow: the connection [locks](Row::lock) the row, reads, and records how much arrived. Between two reads
//! the batcher may move the row or take its memory away. Payload without memory is dropped, and the row is
//! lost from then on. The lock is held for one non-blocking system call, or to copy what has arrived. Bound:
//! the payload of the signature.

use std::fmt;
use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use super::{RowMemory, Rows};

/// Holds a row of a slab for one call.
pub struct Row {
    state: Mutex<RowState>,
    /// Payload bytes in the memory, counted from the first. Written with `state` locked. `Relaxed`, since a
    /// reader without the lock learns only the number and does not touch the bytes.
    filled_bytes: AtomicU64,
    /// The layer that owns the slab, and the key by which it knows this row. Its ticket notifies that layer.
    owner: Option<(Arc<dyn Rows>, u64)>,
}

#[derive(Debug)]
struct RowState {
    memory: Option<RowMemory>,
    /// The leaf that holds the next byte, or a full leaf before it.
    leaf: usize,
    /// Payload was dropped: the row can never become complete.
    is_lost: bool,
}

impl Row {
    /// Creates a row without payload. Without memory it drops what arrives, unless it is
    /// [moved](Row::move_to) first.
    pub fn new(memory: Option<RowMemory>) -> Row {
        Row::owned(memory, None)
    }

    /// Creates a row with a ticket.
    pub(super) fn owned(memory: Option<RowMemory>, owner: Option<(Arc<dyn Rows>, u64)>) -> Row {
        let state = RowState { memory, leaf: 0, is_lost: false };
        Row { state: Mutex::new(state), filled_bytes: AtomicU64::new(0), owner }
    }

    /// Returns the layer that owns the slab, and the key of this row.
    pub(super) fn owner(&self) -> Option<&(Arc<dyn Rows>, u64)> {
        self.owner.as_ref()
    }

    /// Returns the payload bytes that have arrived and were not dropped. Never blocks.
    pub fn filled_bytes(&self) -> u64 {
        self.filled_bytes.load(Ordering::Relaxed)
    }

    /// Copies the next bytes of the payload into the row.
    ///
    /// # Panics
    /// Panics if the payload is shorter.
    pub fn push(&self, bytes: &[u8]) {
        let mut row = self.lock();
        let (state, filled_bytes) = (&mut *row.state, self.filled_bytes());
        match &mut state.memory {
            Some(memory) => {
                memory.write_from(state.leaf, filled_bytes, bytes);
                row.placed(bytes.len());
            }
            None => state.is_lost |= !bytes.is_empty(),
        }
    }

    /// Moves the row to `memory`: copies the payload that has arrived and receives the rest there. Returns
    /// how many bytes were copied. Blocks while a read is under way. If the row was vacated or has dropped
    /// payload, `memory` is dropped.
    ///
    /// # Panics
    /// Panics if the memory belongs to another signature.
    pub fn move_to(&self, memory: RowMemory) -> u64 {
        // The returned memory is dropped here, after the lock is released.
        self.lock().move_to(memory).map_or(0, |(copied_bytes, _before)| copied_bytes)
    }

    /// Moves the row like [`move_to`](Row::move_to), but never blocks. Returns `memory` as the error if a
    /// read is under way, or if the row was vacated or has dropped payload.
    ///
    /// # Panics
    /// Panics if the memory belongs to another signature.
    pub fn try_move_to(&self, memory: RowMemory) -> Result<u64, RowMemory> {
        let Some(state) = self.state.try_lock() else { return Err(memory) };
        RowGuard { row: self, state }.move_to(memory).map(|(copied_bytes, _before)| copied_bytes)
    }

    /// Takes the memory away for good. The rest of the payload is dropped. Blocks while a read is under way.
    pub fn vacate(&self) -> Option<RowMemory> {
        let mut state = self.state.lock();
        state.is_lost = true;
        state.memory.take()
    }

    /// Locks the row, so that it does not move.
    pub(crate) fn lock(&self) -> RowGuard<'_> {
        RowGuard { row: self, state: self.state.lock() }
    }
}

/// A locked row, which does not move.
pub(crate) struct RowGuard<'a> {
    row: &'a Row,
    state: MutexGuard<'a, RowState>,
}

impl RowGuard<'_> {
    /// Fills `slices` with the memory of the next bytes, up to `bytes` of them. Returns how many slices and
    /// bytes that are: zero without memory.
    pub(crate) fn slices<'a>(&'a mut self, bytes: usize, slices: &mut [IoSliceMut<'a>]) -> (usize, usize) {
        let RowState { memory, leaf, .. } = &mut *self.state;
        let Some(memory) = memory else { return (0, 0) };
        memory.slices(*leaf, self.row.filled_bytes(), bytes, slices)
    }

    /// Records that `bytes` bytes were written to the slices.
    pub(crate) fn placed(&mut self, bytes: usize) {
        let RowState { memory, leaf, .. } = &mut *self.state;
        let Some(memory) = memory else { return };
        let filled_bytes = self.row.filled_bytes() + bytes as u64;
        let leaves = memory.stacked().signature().leaves();
        let is_full =
            |leaf: &teleport_wire::Leaf| leaf.payload_start + leaf.memory.len() as u64 <= filled_bytes;
        while leaves.get(*leaf).is_some_and(is_full) {
            *leaf += 1;
        }
        self.row.filled_bytes.store(filled_bytes, Ordering::Relaxed);
    }

    /// Returns the CRC32C of a range of the payload, or `None` if it is not in the row's memory.
    pub(crate) fn checksum(&self, payload: Range<u64>) -> Option<u32> {
        let memory = self.state.memory.as_ref()?;
        (!self.state.is_lost && payload.end <= self.row.filled_bytes()).then(|| memory.checksum(payload))
    }

    /// Copies the payload to `memory`. Returns how many bytes that were, and the old memory; or `memory` as
    /// the error if the row is lost. Drop either without the lock: it may be the last row of a slab.
    fn move_to(mut self, mut memory: RowMemory) -> Result<(u64, Option<RowMemory>), RowMemory> {
        if self.state.is_lost {
            return Err(memory);
        }
        let filled_bytes = self.row.filled_bytes();
        if let Some(before) = &self.state.memory {
            memory.copy_from(before, filled_bytes);
        }
        Ok((filled_bytes, self.state.memory.replace(memory)))
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("filled_bytes", &self.filled_bytes()).finish_non_exhaustive()
    }
}
