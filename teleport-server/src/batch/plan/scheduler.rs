//! Which call lies where, and which batch is made next: without memory, threads or a clock.
//!
//! Flow: `place` (a call's first byte is to come) -> `arrive` (it is whole) -> `select` (a worker is free and a batch is due)
//! -> what must be moved is moved by the caller -> `settled` -> the function runs -> `finished`. `remove` takes out a call
//! that was withdrawn or did not come whole.
//!
//! A call that is being received when its slab becomes a batch is moved to another slab that is being filled, and if it
//! is still not whole when that becomes one, to a slow slab, from where it is copied once it is whole: so each is copied
//! three times at most, however slow it is. Nothing else is ever copied, but rows that fill the holes which others left.
//! Bounds: one entry a row that has not started, one slab a row at most, `MAX_IDLE` groups without rows.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use teleport_transport::wire::QuickHash;

use crate::api::batch_options::Plan;
use crate::batch::plan::group::{Group, SlabSummary};
use crate::batch::plan::ids::{GroupId, Key, Seat, SlabId};
use crate::batch::plan::seats::Slab;

/// Groups without rows that are kept for their estimates.
const MAX_IDLE: usize = 16;

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its payload is being received.
    Filling,
    /// It is whole, and must not run before `release` is called with this key.
    Throttled(usize),
    /// It may run, since then.
    Ready(Instant),
    /// It was removed while it was moved.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Row<T> {
    pub(crate) seat: Seat,
    pub(crate) phase: Phase,
    /// Its batch was made without it once already.
    pub(crate) was_moved: bool,
    /// The caller of `select` moves it to its seat.
    pub(crate) is_moving: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) value: T,
}

/// All calls of one method that have not started.
#[derive(Debug)]
pub(crate) struct Scheduler<T> {
    pub(crate) plan: Plan,
    pub(crate) rows: HashMap<Key, Row<T>, QuickHash>,
    pub(crate) slabs: HashMap<SlabId, Slab, QuickHash>,
    pub(crate) groups: HashMap<GroupId, Group, QuickHash>,
    /// Rows that are throttled, by what releases them.
    throttled: BTreeSet<(usize, Key)>,
    /// Groups of which a batch is due, by when.
    pub(crate) due: BTreeSet<(Instant, GroupId)>,
    /// Buckets without slabs, the one that was used last at the end.
    idle: VecDeque<GroupId>,
    /// Batches that were selected and have not finished.
    pub(crate) in_progress: usize,
    last_key: Key,
    last_slab: u64,
    last_group: u64,
    /// Slabs that nobody has a seat in any more.
    released: Vec<SlabId>,
    /// Buckets that were forgotten.
    forgotten: Vec<GroupId>,
}

/// Where a new call lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) key: Key,
    pub(crate) seat: Seat,
    pub(crate) is_new_slab: bool,
}

impl<T: Default> Scheduler<T> {
    pub(crate) fn new(plan: Plan) -> Scheduler<T> {
        Scheduler {
            plan,
            rows: HashMap::default(),
            slabs: HashMap::default(),
            groups: HashMap::default(),
            throttled: BTreeSet::new(),
            due: BTreeSet::new(),
            idle: VecDeque::new(),
            in_progress: 0,
            last_key: 0,
            last_slab: 0,
            last_group: 0,
            released: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    // ---- Looking ----

    /// Calls that have not started.
    pub(crate) fn waiting(&self) -> usize {
        self.rows.len()
    }

    /// Of these, those that are whole.
    pub(crate) fn whole(&self) -> usize {
        self.groups.values().map(|group| group.ready).sum::<usize>() + self.throttled.len()
    }

    pub(crate) fn value_mut(&mut self, key: Key) -> Option<&mut T> {
        self.rows.get_mut(&key).filter(|row| row.phase != Phase::Gone).map(|row| &mut row.value)
    }

    /// When the next batch is due; none while there is none, or as many run as may.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let (due, _) = self.due.first()?;
        (self.in_progress < self.plan.max_in_progress).then_some(*due)
    }

    /// What nobody needs any more since this was asked last.
    pub(crate) fn take_unused(&mut self) -> (Vec<SlabId>, Vec<GroupId>) {
        (std::mem::take(&mut self.released), std::mem::take(&mut self.forgotten))
    }

    // ---- Calls that come and go ----

    /// A group for a signature that has none, with so many rows in a slab, of so many bytes each.
    pub(crate) fn add_group(&mut self, capacity: usize, row_bytes: u64) -> GroupId {
        self.last_group += 1;
        let id = GroupId(self.last_group);
        self.groups.insert(id, Group::new(capacity, row_bytes));
        self.rest(id);
        id
    }

    /// How many groups have rows.
    pub(crate) fn busy_groups(&self) -> usize {
        self.groups.len() - self.idle.len()
    }

    /// A seat for a new call.
    pub(crate) fn place(&mut self, group: GroupId, value: T) -> Placed {
        self.last_key += 1;
        let key = self.last_key;
        let open = self.group(group).open.first().copied();
        let (seat, is_new_slab) = self.sit(group, open, false, key, true);
        let row =
            Row { seat, phase: Phase::Filling, was_moved: false, is_moving: false, deadline: None, value };
        self.rows.insert(key, row);
        // A batch that is due may wait for it.
        if self.group(group).ready > 0 {
            self.settle_due(group);
        }
        Placed { key, seat, is_new_slab }
    }

    /// Marks a call as whole: it may run from now on. Returns false if it was removed.
    pub(crate) fn arrive(&mut self, key: Key, deadline: Option<Instant>, now: Instant) -> bool {
        let Some(row) = self.rows.get_mut(&key).filter(|row| row.phase == Phase::Filling) else {
            return false;
        };
        row.deadline = deadline;
        let seat = row.seat;
        let group = self.change(seat.slab, |slab| slab.arrived(now));
        self.group(group).estimate.arrived(now);
        self.set_ready(key, now);
        true
    }

    /// Lets the calls run that are throttled by `by`. Returns false if there are none.
    pub(crate) fn release(&mut self, by: usize, now: Instant) -> bool {
        let rows = self.throttled.range((by, Key::MIN)..=(by, Key::MAX));
        let keys: Vec<Key> = rows.map(|(_, key)| *key).collect();
        for key in &keys {
            self.throttled.remove(&(by, *key));
            self.set_ready(*key, now);
        }
        !keys.is_empty()
    }

    /// Keeps a ready call from running until `release`.
    pub(crate) fn throttle(&mut self, key: Key, by: usize) {
        let Some(row) = self.rows.get_mut(&key) else { return };
        if let Phase::Ready(since) = row.phase {
            row.phase = Phase::Throttled(by);
            self.throttled.insert((by, key));
            self.unset_ready(key, since);
        }
    }

    fn set_ready(&mut self, key: Key, now: Instant) {
        let Some(row) = self.rows.get_mut(&key) else { return };
        row.phase = Phase::Ready(now);
        let (seat, deadline) = (row.seat, row.deadline);
        let group = self.change(seat.slab, |slab| slab.set_ready(now, key, seat.index));
        if let Some(deadline) = deadline {
            self.group(group).deadlines.insert((deadline, key));
        }
        self.settle_due(group);
    }

    /// Takes out a call that has not started; none if it is not here.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let row = self.rows.get_mut(&key)?;
        let (seat, phase) = (row.seat, row.phase);
        match phase {
            Phase::Gone => return None,
            Phase::Ready(since) => self.unset_ready(key, since),
            Phase::Throttled(by) => drop(self.throttled.remove(&(by, key))),
            Phase::Filling => {}
        }
        let row = self.rows.get_mut(&key)?;
        if row.is_moving {
            // Its memory is being written: its seat is free when that is done.
            row.phase = Phase::Gone;
            let value = std::mem::take(&mut row.value);
            if phase == Phase::Filling {
                self.change(seat.slab, Slab::gave_up);
            }
            return Some(value);
        }
        let row = self.rows.remove(&key)?;
        self.leave(seat, phase == Phase::Filling);
        Some(row.value)
    }

    /// Takes out all calls.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let keys: Vec<Key> = self.rows.keys().copied().collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    // ---- Inside ----

    pub(crate) fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).expect("a group is forgotten only when it has no rows")
    }

    /// Changes a slab, and what its group knows of it.
    pub(crate) fn change(&mut self, id: SlabId, change: impl FnOnce(&mut Slab)) -> GroupId {
        let slab = self.slabs.get_mut(&id).expect("a slab is let go only when nobody has a seat there");
        let before = SlabSummary::of(slab);
        change(slab);
        let group = self.groups.get_mut(&slab.group).expect("it has this slab");
        group.slab_changed(id, before, slab);
        slab.group
    }

    /// A seat in `open`, or in a new slab.
    pub(crate) fn sit(
        &mut self,
        group: GroupId,
        open: Option<SlabId>,
        is_slow: bool,
        key: Key,
        is_filling: bool,
    ) -> (Seat, bool) {
        let slab = open.unwrap_or_else(|| self.new_slab(group, is_slow));
        let mut index = 0;
        self.change(slab, |slab| index = slab.sit(key, is_filling));
        (Seat { slab, index }, open.is_none())
    }

    pub(crate) fn new_slab(&mut self, group: GroupId, is_slow: bool) -> SlabId {
        self.last_slab += 1;
        let id = SlabId(self.last_slab);
        let known = self.group(group);
        let slab = Slab::new(group, known.capacity, is_slow);
        let before = known.add(id);
        known.slab_changed(id, before, &slab);
        let was_idle = known.slabs.len() == 1;
        self.slabs.insert(id, slab);
        if was_idle {
            self.idle.retain(|idle| *idle != group);
        }
        id
    }

    /// Gives a seat back, and lets the slab go if nobody needs it any more.
    pub(crate) fn leave(&mut self, seat: Seat, was_filling: bool) {
        let group = self.change(seat.slab, |slab| slab.leave(seat.index, was_filling));
        self.release_unused(seat.slab);
        self.settle_due(group);
    }

    fn release_unused(&mut self, id: SlabId) {
        if self.slabs.get(&id).is_some_and(Slab::is_unused) {
            self.let_go(id);
            self.released.push(id);
        }
    }

    pub(crate) fn let_go(&mut self, id: SlabId) {
        let Some(slab) = self.slabs.remove(&id) else { return };
        let group = self.group(slab.group);
        group.forget(id, &slab);
        let is_idle = group.slabs.is_empty();
        self.settle_due(slab.group);
        if is_idle {
            self.group(slab.group).was_told = false;
            self.rest(slab.group);
        }
    }

    /// A group has no rows: it is kept for a while.
    fn rest(&mut self, group: GroupId) {
        self.idle.push_back(group);
        if self.idle.len() > MAX_IDLE
            && let Some(oldest) = self.idle.pop_front()
        {
            self.groups.remove(&oldest);
            self.forgotten.push(oldest);
        }
    }

    pub(crate) fn unset_ready(&mut self, key: Key, since: Instant) {
        let Some(row) = self.rows.get(&key) else { return };
        let (seat, deadline) = (row.seat, row.deadline);
        let group = self.change(seat.slab, |slab| slab.unset_ready(since, key));
        if let Some(deadline) = deadline {
            self.group(group).deadlines.remove(&(deadline, key));
        }
        self.settle_due(group);
    }

    /// Puts a group where it belongs among those that are due.
    pub(crate) fn settle_due(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let base = group.base().and_then(|base| self.slabs.get(&base));
        let due = group.next_due(&self.plan, base);
        if due == group.due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut group.due, due) {
            self.due.remove(&(before, id));
        }
        due.map(|due| self.due.insert((due, id)));
    }

    pub(crate) fn unsettle(&mut self, id: SlabId) {
        let group = self.change(id, |slab| slab.unsettled += 1);
        self.settle_due(group);
    }

    pub(crate) fn settle(&mut self, id: SlabId) {
        let group = self.change(id, |slab| slab.unsettled -= 1);
        self.release_unused(id);
        self.settle_due(group);
    }
}
