//! The calls of one method that have not started: the seat and the progress of each.
//!
//! Flow: `place` (before a call's first byte is received) -> `arrive` (it is complete) -> `select` (a worker
//! is free and a batch is due) -> the caller moves the rows that `select` names -> `moved` -> the function
//! runs -> `finished`. `remove` removes a call that was withdrawn or will never be complete.
//!
//! If a call is being received when its slab becomes a batch, it is moved to another slab for new calls. If
//! it is still incomplete when that slab becomes a batch, it is moved to a slow slab, and from there to its
//! batch once it is complete. So each call is copied at most three times, however slow it is. No other rows
//! are copied, except those that fill holes. Bound: one entry for each call.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::Instant;

use teleport_transport::wire::QuickHash;

use crate::batch::plan::groups::{Groups, Unused};
use crate::batch::plan::ids::{GroupId, Key, Seat};
use crate::batch::plan::policy::BatchPolicy;
use crate::batch::plan::seats::Slab;

/// The progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Receiving,
    /// It is complete, but must not run before `release` is called with this key.
    Throttled(usize),
    /// It has been ready to run since this time.
    Ready(Instant),
    /// It was removed while it was being moved.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Row<T> {
    pub(crate) seat: Seat,
    pub(crate) phase: Phase,
    /// True if its slab became a batch without it.
    pub(crate) was_moved: bool,
    /// True while the caller of `select` moves it to its seat.
    pub(crate) is_moving: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) value: T,
}

/// All calls of one method that have not started.
#[derive(Debug)]
pub(crate) struct Scheduler<T> {
    pub(crate) policy: BatchPolicy,
    pub(crate) rows: HashMap<Key, Row<T>, QuickHash>,
    pub(crate) groups: Groups,
    /// Throttled calls, by the key that releases them.
    throttled: BTreeSet<(usize, Key)>,
    /// Batches that were selected and have not finished.
    pub(crate) in_progress: usize,
    last_key: Key,
}

/// The seat of a new call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) key: Key,
    pub(crate) seat: Seat,
    pub(crate) is_new_slab: bool,
}

impl<T: Default> Scheduler<T> {
    pub(crate) fn new(policy: BatchPolicy) -> Scheduler<T> {
        Scheduler {
            groups: Groups::new(&policy),
            policy,
            rows: HashMap::default(),
            throttled: BTreeSet::new(),
            in_progress: 0,
            last_key: 0,
        }
    }

    // ---- Queries ----

    /// Returns how many calls have not started.
    pub(crate) fn waiting(&self) -> usize {
        self.rows.len()
    }

    /// Returns how many of these are complete.
    pub(crate) fn complete(&self) -> usize {
        self.groups.all().map(|group| group.ready).sum::<usize>() + self.throttled.len()
    }

    pub(crate) fn value_mut(&mut self, key: Key) -> Option<&mut T> {
        self.rows.get_mut(&key).filter(|row| row.phase != Phase::Gone).map(|row| &mut row.value)
    }

    /// Returns when the next batch is due, or `None` while the maximum number of batches runs.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let (due, _) = self.groups.first_due()?;
        (self.in_progress < self.policy.max_in_progress).then_some(due)
    }

    /// Returns the slabs and groups that were removed since the last call of this.
    pub(crate) fn take_unused(&mut self) -> Unused {
        self.groups.take_unused()
    }

    // ---- Calls that arrive and leave ----

    /// Takes a seat for a new call.
    pub(crate) fn place(&mut self, group: GroupId, value: T) -> Placed {
        self.last_key += 1;
        let key = self.last_key;
        let (seat, is_new_slab) = self.groups.sit(group, false, key, true);
        let phase = Phase::Receiving;
        let row = Row { seat, phase, was_moved: false, is_moving: false, deadline: None, value };
        self.rows.insert(key, row);
        // A due batch may wait for the call.
        if self.groups.group_mut(group).ready > 0 {
            self.groups.update_due(group);
        }
        Placed { key, seat, is_new_slab }
    }

    /// Marks a call as complete: it may run from now on. Returns false if it was removed.
    pub(crate) fn arrive(&mut self, key: Key, deadline: Option<Instant>, now: Instant) -> bool {
        let Some(row) = self.rows.get_mut(&key).filter(|row| row.phase == Phase::Receiving) else {
            return false;
        };
        row.deadline = deadline;
        row.phase = Phase::Ready(now);
        self.groups.arrived(key, row.seat, deadline, now);
        true
    }

    /// Releases the calls that are throttled by `by`. Returns false if there are none.
    pub(crate) fn release(&mut self, by: usize, now: Instant) -> bool {
        let throttled = self.throttled.range((by, Key::MIN)..=(by, Key::MAX));
        let keys: Vec<Key> = throttled.map(|(_, key)| *key).collect();
        for key in &keys {
            self.throttled.remove(&(by, *key));
            self.set_ready(*key, now);
        }
        !keys.is_empty()
    }

    /// Keeps a ready call from running until `release`.
    pub(crate) fn throttle(&mut self, key: Key, by: usize) {
        if self.unset_ready(key) {
            self.throttled.insert((by, key));
            self.rows.entry(key).and_modify(|row| row.phase = Phase::Throttled(by));
        }
    }

    /// Removes a call. Returns `None` if there is no such call.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.unset_ready(key);
        let row = self.rows.get_mut(&key).filter(|row| row.phase != Phase::Gone)?;
        let (seat, was_receiving) = (row.seat, row.phase == Phase::Receiving);
        if let Phase::Throttled(by) = row.phase {
            self.throttled.remove(&(by, key));
        }
        if row.is_moving {
            // Its memory is being written, so its seat becomes free only after that.
            row.phase = Phase::Gone;
            let value = mem::take(&mut row.value);
            if was_receiving {
                self.groups.change(seat.slab, Slab::gave_up);
            }
            return Some(value);
        }
        let row = self.rows.remove(&key)?;
        self.groups.leave(seat, was_receiving);
        Some(row.value)
    }

    /// Removes all calls.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let keys: Vec<Key> = self.rows.keys().copied().collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    fn set_ready(&mut self, key: Key, now: Instant) {
        let Some(row) = self.rows.get_mut(&key) else { return };
        row.phase = Phase::Ready(now);
        self.groups.set_ready(key, row.seat, row.deadline, now);
    }

    /// Unmarks a ready call. Returns false if it is not ready.
    pub(crate) fn unset_ready(&mut self, key: Key) -> bool {
        let Some(row) = self.rows.get(&key) else { return false };
        let Phase::Ready(since) = row.phase else { return false };
        self.groups.unset_ready(key, row.seat, row.deadline, since);
        true
    }
}
