//! Where the payload of one call goes, which may change while it comes.
//!
//! Flow: the connection [locks](Row::lock) it for one read, and takes note under the lock of what came; whoever arranges
//! rows moves it between two reads, or takes its memory away. Payload that finds no memory is dropped, and the row is lost
//! from then on. The lock is held for one system call that does not block, or to copy what has come. Bound: its signature's.

use std::io::IoSliceMut;
use std::ops::Range;

use super::RowMemory;
use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// What holds the row of a slab for one call.
#[derive(Debug)]
pub struct Row {
    state: Mutex<State>,
    /// Payload bytes that lie in the memory, from the first on. Written with `state` locked, and `Relaxed`: who reads it
    /// without the lock learns how much has come, and nothing of the bytes.
    filled_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    memory: Option<RowMemory>,
    /// The leaf that the next byte lies in, or one before it that is full.
    leaf: usize,
    /// Part of the payload is gone: no memory makes the row whole any more.
    is_lost: bool,
}

impl Row {
    /// A row that has no payload yet. Without memory it drops what comes, unless it is [moved](Row::move_to) to some before.
    pub fn new(memory: Option<RowMemory>) -> Row {
        Row { state: Mutex::new(State { memory, leaf: 0, is_lost: false }), filled_bytes: AtomicU64::new(0) }
    }

    /// Payload bytes that have come and were not dropped. Never waits.
    pub fn filled_bytes(&self) -> u64 {
        self.filled_bytes.load(Ordering::Relaxed)
    }

    /// Takes the next bytes of the payload: a copy.
    ///
    /// # Panics
    /// If there are more than the payload has.
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

    /// Copies what has come to `memory`, has the rest received there, and says how many bytes were copied. Waits for a read
    /// that is under way. A row that was vacated, or dropped payload, stays without memory: that is dropped then.
    ///
    /// # Panics
    /// If the memory is of another signature.
    pub fn move_to(&self, memory: RowMemory) -> u64 {
        // What comes back is dropped here, with the lock given back.
        self.lock().move_to(memory).map_or(0, |(copied_bytes, _before)| copied_bytes)
    }

    /// As [`move_to`](Row::move_to), but waits for nothing: `memory` comes back if a read is under way, or the row is not to
    /// have any.
    ///
    /// # Panics
    /// As [`move_to`](Row::move_to).
    pub fn try_move_to(&self, memory: RowMemory) -> Result<u64, RowMemory> {
        let Some(state) = self.state.try_lock() else { return Err(memory) };
        RowGuard { row: self, state }.move_to(memory).map(|(copied_bytes, _before)| copied_bytes)
    }

    /// Takes the memory away, for good: what still comes of the payload is dropped. Waits for a read that is under way.
    pub fn vacate(&self) -> Option<RowMemory> {
        let mut state = self.state.lock();
        state.is_lost = true;
        state.memory.take()
    }

    /// Keeps it where it is.
    pub(crate) fn lock(&self) -> RowGuard<'_> {
        RowGuard { row: self, state: self.state.lock() }
    }
}

/// A row that stays where it is.
pub(crate) struct RowGuard<'a> {
    row: &'a Row,
    state: MutexGuard<'a, State>,
}

impl RowGuard<'_> {
    /// Fills `slices` with the places of the next bytes, up to `bytes` of them, and says how many slices and bytes that are.
    /// None without memory.
    pub(crate) fn slices<'a>(&'a mut self, bytes: usize, slices: &mut [IoSliceMut<'a>]) -> (usize, usize) {
        let State { memory, leaf, .. } = &mut *self.state;
        let Some(memory) = memory else { return (0, 0) };
        memory.slices(*leaf, self.row.filled_bytes(), bytes, slices)
    }

    /// Takes note of bytes that were written to the slices.
    pub(crate) fn placed(&mut self, bytes: usize) {
        let State { memory, leaf, .. } = &mut *self.state;
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

    /// The CRC32C of a stretch of the payload that has come; none if it is not there.
    pub(crate) fn checksum(&self, payload: Range<u64>) -> Option<u32> {
        let memory = self.state.memory.as_ref()?;
        (!self.state.is_lost && payload.end <= self.row.filled_bytes()).then(|| memory.checksum(payload))
    }

    /// Copies what has come, and gives how much that was, with the memory from before. The new memory comes back if the row
    /// is not to have any. Whatever comes back is to be dropped without the lock, as it may be the last of a slab.
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
