//! The seats of one slab, and which calls have them.
//!
//! A slab becomes one batch, or is let go when nobody sits there any more. Knows no memory and no clock. Bound: its capacity.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::batch::plan::ids::{GroupId, Key};

#[derive(Debug)]
pub(crate) struct Slab {
    pub(crate) group: GroupId,
    /// Whether it holds calls that were moved once already: no new ones come here, and no batch is made of it. Those that are
    /// whole are copied to where one is.
    pub(crate) is_slow: bool,
    /// Moves to here or from here that are not done. Until they are, no batch is made of it.
    pub(crate) unsettled: usize,
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
    pub(crate) fn new(group: GroupId, capacity: usize, is_slow: bool) -> Slab {
        Slab {
            group,
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
    pub(crate) fn is_unused(&self) -> bool {
        self.taken() == 0 && self.unsettled == 0
    }

    /// Whether a new row may come here.
    pub(crate) fn has_room(&self) -> bool {
        self.taken() < self.capacity
    }

    /// A free seat, which must be there: one that was given back first, so that a batch has few holes.
    pub(crate) fn sit(&mut self, key: Key, is_filling: bool) -> usize {
        let index = self.freed.pop().unwrap_or(self.seats.len());
        debug_assert!(index < self.capacity, "seat {index} of {}", self.capacity);
        if index == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[index] = Some(key);
        self.filling += usize::from(is_filling);
        index
    }

    pub(crate) fn leave(&mut self, index: usize, was_filling: bool) {
        if self.seats[index].take().is_some() {
            self.freed.push(index);
            self.filling -= usize::from(was_filling);
        }
    }

    /// A call is there whole.
    pub(crate) fn arrived(&mut self, now: Instant) {
        self.filling -= 1;
        self.last_arrival = Some(now);
    }

    /// A call that was being received will not come.
    pub(crate) fn gave_up(&mut self) {
        self.filling -= 1;
    }

    /// Whether any is being received, and since when no other has come.
    pub(crate) fn filling_since(&self) -> Option<Instant> {
        self.last_arrival.filter(|_| self.filling > 0)
    }

    pub(crate) fn set_ready(&mut self, since: Instant, key: Key, index: usize) {
        self.ready.insert((since, key), index);
    }

    /// A call that was ready is taken, or goes.
    pub(crate) fn unset_ready(&mut self, since: Instant, key: Key) {
        self.ready.remove(&(since, key));
    }

    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Since when its first ready call waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.ready.first_key_value().map(|((since, _), _)| *since)
    }

    /// Its ready calls, the one that waits longest first.
    pub(crate) fn ready_keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.ready.keys().map(|(_, key)| *key)
    }

    /// All that have a seat, in the order of seats.
    pub(crate) fn seats(&self) -> impl Iterator<Item = (usize, Key)> + '_ {
        let taken = |(index, seat): (usize, &Option<Key>)| seat.map(|key| (index, key));
        self.seats.iter().enumerate().filter_map(taken)
    }
}
