//! The seats of one slab, and which calls have them.
//!
//! A slab becomes one batch, or is let go when nobody sits there any more. Knows no memory and no clock. Bound: its capacity.

use std::collections::BTreeMap;
use std::time::Instant;

use super::state::{BucketId, Key};

/// Names a slab of a method, for as long as the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlabId(pub(crate) u64);

/// Where a row lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) slab: SlabId,
    pub(crate) index: usize,
}

#[derive(Debug)]
pub(super) struct Slab {
    pub(super) bucket: BucketId,
    /// Whether it holds calls that were moved once already: no new ones come here, and no batch is made of it. Those that are
    /// whole are copied to where one is.
    pub(super) is_slow: bool,
    /// Moves to here or from here that are not done. Until they are, no batch is made of it.
    pub(super) unsettled: usize,
    /// Calls that are being received.
    filling: usize,
    /// When the last call here was whole.
    last_arrival: Option<Instant>,
    capacity: usize,
    /// Who has which seat. Seats behind the last were never taken.
    seats: Vec<Option<Key>>,
    /// Seats among them that nobody has.
    freed: Vec<usize>,
    /// When each call that may run was there whole, the earliest first.
    ready: BTreeMap<(Instant, Key), usize>,
}

impl Slab {
    pub(super) fn new(bucket: BucketId, capacity: usize, is_slow: bool) -> Slab {
        Slab {
            bucket,
            is_slow,
            unsettled: 0,
            filling: 0,
            last_arrival: None,
            capacity,
            seats: Vec::new(),
            freed: Vec::new(),
            ready: BTreeMap::new(),
        }
    }

    fn taken(&self) -> usize {
        self.seats.len() - self.freed.len()
    }

    /// Whether nobody needs it.
    pub(super) fn is_unused(&self) -> bool {
        self.taken() == 0 && self.unsettled == 0
    }

    /// Whether a new row may come here.
    pub(super) fn has_room(&self) -> bool {
        self.taken() < self.capacity
    }

    /// A free seat, which must be there: one that was given back first, so that a batch has few holes.
    pub(super) fn sit(&mut self, key: Key, is_filling: bool) -> usize {
        let index = self.freed.pop().unwrap_or(self.seats.len());
        debug_assert!(index < self.capacity, "seat {index} of {}", self.capacity);
        if index == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[index] = Some(key);
        self.filling += usize::from(is_filling);
        index
    }

    pub(super) fn leave(&mut self, index: usize, was_filling: bool) {
        if self.seats[index].take().is_some() {
            self.freed.push(index);
            self.filling -= usize::from(was_filling);
        }
    }

    /// A call is there whole.
    pub(super) fn arrived(&mut self, now: Instant) {
        self.filling -= 1;
        self.last_arrival = Some(now);
    }

    /// A call that was being received will not come.
    pub(super) fn gave_up(&mut self) {
        self.filling -= 1;
    }

    /// Whether any is being received, and since when no other has come.
    pub(super) fn filling_since(&self) -> Option<Instant> {
        self.last_arrival.filter(|_| self.filling > 0)
    }

    pub(super) fn set_ready(&mut self, since: Instant, key: Key, index: usize) {
        self.ready.insert((since, key), index);
    }

    /// A call that was ready is taken, or goes.
    pub(super) fn unset_ready(&mut self, since: Instant, key: Key) {
        self.ready.remove(&(since, key));
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Since when its first ready call waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.ready.first_key_value().map(|((since, _), _)| *since)
    }

    /// Its ready calls, the one that waits longest first.
    pub(super) fn ready_keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.ready.keys().map(|(_, key)| *key)
    }

    /// All that have a seat, in the order of seats.
    pub(super) fn seats(&self) -> impl Iterator<Item = (usize, Key)> + '_ {
        let taken = |(index, seat): (usize, &Option<Key>)| seat.map(|key| (index, key));
        self.seats.iter().enumerate().filter_map(taken)
    }
}
