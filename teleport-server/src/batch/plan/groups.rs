//! All groups of a method and their slabs. Finds a seat for a new call, and the group whose batch is due
//! first.
//!
//! Bounds: one slab a call, and `MAX_IDLE` groups without calls.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::time::Instant;

use teleport_transport::wire::QuickHash;

use crate::batch::plan::close::closes_at;
use crate::batch::plan::group::{Group, SlabSummary};
use crate::batch::plan::ids::{GroupId, Key, Seat, SlabId};
use crate::batch::plan::policy::BatchPolicy;
use crate::batch::plan::seats::Slab;

/// The number of groups without calls that are kept for their estimates.
const MAX_IDLE: usize = 16;

pub(crate) type Slabs = HashMap<SlabId, Slab, QuickHash>;

#[derive(Debug)]
pub(crate) struct Groups {
    policy: BatchPolicy,
    groups: HashMap<GroupId, Group, QuickHash>,
    slabs: Slabs,
    /// Groups by the time at which their next batch is due.
    due: BTreeSet<(Instant, GroupId)>,
    /// Groups without slabs, least recently used first.
    idle: VecDeque<GroupId>,
    last_slab: u64,
    last_group: u64,
    unused: Unused,
}

/// Slabs and groups that were removed.
#[derive(Debug, Default)]
pub(crate) struct Unused {
    pub(crate) slabs: Vec<SlabId>,
    pub(crate) groups: Vec<GroupId>,
}

impl Groups {
    pub(crate) fn new(policy: &BatchPolicy) -> Groups {
        Groups {
            policy: policy.clone(),
            groups: HashMap::default(),
            slabs: HashMap::default(),
            due: BTreeSet::new(),
            idle: VecDeque::new(),
            last_slab: 0,
            last_group: 0,
            unused: Unused::default(),
        }
    }

    // ---- Groups ----

    /// Adds a group with slabs of `capacity` rows.
    pub(crate) fn add(&mut self, capacity: usize, row_bytes: u64) -> GroupId {
        self.last_group += 1;
        let id = GroupId(self.last_group);
        self.groups.insert(id, Group::new(capacity, row_bytes));
        self.set_idle(id);
        id
    }

    pub(crate) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// Returns a group that has calls.
    pub(crate) fn group_mut(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).expect("a group is removed only when it has no calls")
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// Returns each group, with all slabs.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = (&mut Group, &Slabs)> {
        let slabs = &self.slabs;
        self.groups.values_mut().map(move |group| (group, slabs))
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.slabs.is_empty() && self.due.is_empty()
    }

    /// Returns how many groups have calls.
    pub(crate) fn busy(&self) -> usize {
        self.groups.len() - self.idle.len()
    }

    /// Returns the group whose next batch is due first.
    pub(crate) fn first_due(&self) -> Option<(Instant, GroupId)> {
        self.due.first().copied()
    }

    /// Updates the time at which the next batch of a group is due.
    pub(crate) fn update_due(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let base = group.base().and_then(|base| self.slabs.get(&base));
        let due = closes_at(&self.policy, group, base);
        if due == group.due {
            return;
        }
        if let Some(before) = mem::replace(&mut group.due, due) {
            self.due.remove(&(before, id));
        }
        due.map(|due| self.due.insert((due, id)));
    }

    /// Returns the slabs and groups that were removed since the last call of this.
    pub(crate) fn take_unused(&mut self) -> Unused {
        mem::take(&mut self.unused)
    }

    fn set_idle(&mut self, group: GroupId) {
        self.idle.push_back(group);
        if self.idle.len() > MAX_IDLE
            && let Some(oldest) = self.idle.pop_front()
        {
            self.groups.remove(&oldest);
            self.unused.groups.push(oldest);
        }
    }

    // ---- Slabs ----

    pub(crate) fn slab(&self, id: SlabId) -> Option<&Slab> {
        self.slabs.get(&id)
    }

    pub(crate) fn add_slab(&mut self, group: GroupId, is_slow: bool) -> SlabId {
        self.last_slab += 1;
        let id = SlabId(self.last_slab);
        let known = self.group_mut(group);
        let slab = Slab::new(group, known.capacity, is_slow);
        known.add(id, &slab);
        let was_idle = known.slabs.len() == 1;
        self.slabs.insert(id, slab);
        if was_idle {
            self.idle.retain(|idle| *idle != group);
        }
        id
    }

    pub(crate) fn remove_slab(&mut self, id: SlabId) {
        let Some(slab) = self.slabs.remove(&id) else { return };
        let group = self.group_mut(slab.group);
        group.remove(id, &slab);
        let is_idle = group.slabs.is_empty();
        group.was_logged &= !is_idle;
        self.update_due(slab.group);
        if is_idle {
            self.set_idle(slab.group);
        }
    }

    /// Changes a slab, and updates its group.
    pub(crate) fn change(&mut self, id: SlabId, change: impl FnOnce(&mut Slab)) -> GroupId {
        let slab = self.slabs.get_mut(&id).expect("a slab is removed only when no call has a seat there");
        let before = SlabSummary::of(slab);
        change(slab);
        let group = self.groups.get_mut(&slab.group).expect("the group has this slab");
        group.update(id, slab.is_slow, before, SlabSummary::of(slab));
        slab.group
    }

    // ---- Seats ----

    /// Takes a seat in a slab for new calls, or in a slow slab. The second value is true if the slab is new.
    pub(crate) fn sit(
        &mut self,
        group: GroupId,
        is_slow: bool,
        key: Key,
        is_receiving: bool,
    ) -> (Seat, bool) {
        let has_room = |id: &SlabId| self.slabs.get(id).is_some_and(|slab| slab.is_slow && slab.has_room());
        let open = self.groups.get(&group).and_then(|group| match is_slow {
            true => group.slabs.iter().copied().find(has_room),
            false => group.open.first().copied(),
        });
        let slab = open.unwrap_or_else(|| self.add_slab(group, is_slow));
        let mut index = 0;
        self.change(slab, |slab| index = slab.sit(key, is_receiving));
        (Seat { slab, index }, open.is_none())
    }

    /// Returns a seat.
    pub(crate) fn leave(&mut self, seat: Seat, was_receiving: bool) {
        let group = self.change(seat.slab, |slab| slab.leave(seat.index, was_receiving));
        self.remove_if_unused(seat.slab);
        self.update_due(group);
    }

    /// Notes a complete call, and marks it as ready to run.
    pub(crate) fn arrived(&mut self, key: Key, seat: Seat, deadline: Option<Instant>, now: Instant) {
        let id = self.change(seat.slab, |slab| {
            slab.arrived(now);
            slab.set_ready(now, key, seat.index);
        });
        let group = self.group_mut(id);
        group.estimate.arrived(now);
        group.deadlines.extend(deadline.map(|deadline| (deadline, key)));
        self.update_due(id);
    }

    /// Marks a call as ready to run.
    pub(crate) fn set_ready(&mut self, key: Key, seat: Seat, deadline: Option<Instant>, now: Instant) {
        let group = self.change(seat.slab, |slab| slab.set_ready(now, key, seat.index));
        self.group_mut(group).deadlines.extend(deadline.map(|deadline| (deadline, key)));
        self.update_due(group);
    }

    /// Unmarks a call that was ready `since` then, because it runs or must no longer run.
    pub(crate) fn unset_ready(&mut self, key: Key, seat: Seat, deadline: Option<Instant>, since: Instant) {
        let group = self.change(seat.slab, |slab| slab.unset_ready(since, key));
        if let Some(deadline) = deadline {
            self.group_mut(group).deadlines.remove(&(deadline, key));
        }
        self.update_due(group);
    }

    /// A move to or from this slab begins.
    pub(crate) fn begin_move(&mut self, id: SlabId) {
        let group = self.change(id, |slab| slab.pending_moves += 1);
        self.update_due(group);
    }

    /// A move to or from this slab is done.
    pub(crate) fn end_move(&mut self, id: SlabId) {
        let group = self.change(id, |slab| slab.pending_moves -= 1);
        self.remove_if_unused(id);
        self.update_due(group);
    }

    fn remove_if_unused(&mut self, id: SlabId) {
        if self.slabs.get(&id).is_some_and(Slab::is_unused) {
            self.remove_slab(id);
            self.unused.slabs.push(id);
        }
    }
}
