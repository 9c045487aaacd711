//! The seats of one slab, and the calls that have them.
//!
//! A slab becomes one batch, or is released when its last call has left. Bound: its capacity.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::batch::plan::ids::{GroupId, Key};

#[derive(Debug)]
pub(crate) struct Slab {
    pub(crate) group: GroupId,
    /// A slow slab holds calls that were moved before. It gets no new calls, and never becomes a batch: its
    /// calls are copied to a batch once they are complete.
    pub(crate) is_slow: bool,
    /// The number of running moves to or from this slab. It does not become a batch until they are done.
    pub(crate) pending_moves: usize,
    /// The number of calls that are being received.
    receiving: usize,
    /// The time at which the last call was complete.
    last_arrival: Option<Instant>,
    capacity: usize,
    /// The call on each seat, up to the highest seat that was ever taken.
    seats: Vec<Option<Key>>,
    /// Free seats among `seats`.
    free: Vec<usize>,
    /// The seats of ready calls, by the time at which they became ready.
    ready: BTreeMap<(Instant, Key), usize>,
}

impl Slab {
    pub(crate) fn new(group: GroupId, capacity: usize, is_slow: bool) -> Slab {
        Slab {
            group,
            is_slow,
            pending_moves: 0,
            receiving: 0,
            last_arrival: None,
            capacity,
            seats: Vec::new(),
            free: Vec::new(),
            ready: BTreeMap::new(),
        }
    }

    fn taken(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    pub(crate) fn is_unused(&self) -> bool {
        self.taken() == 0 && self.pending_moves == 0
    }

    /// Returns true if a seat is free.
    pub(crate) fn has_room(&self) -> bool {
        self.taken() < self.capacity
    }

    /// Takes a free seat. Prefers one that was returned, so that batches have few holes.
    pub(crate) fn sit(&mut self, key: Key, is_receiving: bool) -> usize {
        let index = self.free.pop().unwrap_or(self.seats.len());
        debug_assert!(index < self.capacity, "seat {index} of {}", self.capacity);
        if index == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[index] = Some(key);
        self.receiving += usize::from(is_receiving);
        index
    }

    pub(crate) fn leave(&mut self, index: usize, was_receiving: bool) {
        if self.seats[index].take().is_some() {
            self.free.push(index);
            self.receiving -= usize::from(was_receiving);
        }
    }

    /// Notes a complete call.
    pub(crate) fn arrived(&mut self, now: Instant) {
        self.receiving -= 1;
        self.last_arrival = Some(now);
    }

    /// Notes that a call that was being received will not be complete.
    pub(crate) fn gave_up(&mut self) {
        self.receiving -= 1;
    }

    /// Returns when the last call was complete, if other calls are being received.
    pub(crate) fn receiving_since(&self) -> Option<Instant> {
        self.last_arrival.filter(|_| self.receiving > 0)
    }

    pub(crate) fn set_ready(&mut self, since: Instant, key: Key, index: usize) {
        self.ready.insert((since, key), index);
    }

    pub(crate) fn unset_ready(&mut self, since: Instant, key: Key) {
        self.ready.remove(&(since, key));
    }

    /// Returns how many calls are ready.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Returns the time since which the first ready call has waited.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.ready.first_key_value().map(|((since, _), _)| *since)
    }

    /// Returns the ready calls, longest wait first.
    pub(crate) fn ready_keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.ready.keys().map(|(_, key)| *key)
    }

    /// Returns all calls that have a seat, in the order of seats.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.seats.iter().flatten().copied()
    }
}
