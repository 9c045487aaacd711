//! Making a batch: which calls take part, who leaves its slab, and what fills the holes.
//!
//! Flow: `select` (a batch is due) -> the caller moves the `outs`, then the `fills` -> `settled` -> the function runs ->
//! `finished`. Decides only; the memory is the caller's.

use std::time::{Duration, Instant};

use crate::batch::plan::ids::{GroupId, Key, Seat, SlabId};
use crate::batch::plan::scheduler::{Phase, Scheduler};
use crate::batch::plan::seats::Slab;

/// What is to become of a call whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseDecision {
    Runs,
    /// It must not run before `Scheduler::release` is called with this key.
    Throttled(usize),
    /// Its time is over.
    Late,
}

/// What came of a batch that was due.
#[derive(Debug)]
pub(crate) struct Selected<T> {
    /// None where nobody is left of it, or too few for an exact one.
    pub(crate) batch: Option<SelectedBatch<T>>,
    /// Calls that are not here any more, since their time is over.
    pub(crate) late: Vec<T>,
}

/// A call that leaves the slab of a batch, to go on elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) key: Key,
    pub(crate) to: Seat,
    pub(crate) is_new_slab: bool,
}

/// A row that fills a hole of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Which row of `SelectedBatch::rows` it is: the index in the slab where it is to lie.
    pub(crate) to: usize,
    pub(crate) from: Seat,
}

/// A batch: the rows of the slab `base` from the first to the last of `rows`.
#[derive(Debug)]
pub(crate) struct SelectedBatch<T> {
    pub(crate) group: GroupId,
    pub(crate) base: SlabId,
    /// Whether `base` is new: its memory has to be taken.
    pub(crate) is_new_slab: bool,
    pub(crate) rows: Vec<T>,
    /// With rows of zeros.
    pub(crate) padded: usize,
    /// To be done before the fills.
    pub(crate) outs: Vec<Out>,
    pub(crate) fills: Vec<Fill>,
    /// How long all of its rows together were ready.
    pub(crate) waited: Duration,
}

impl<T: Default> Scheduler<T> {
    /// The batch that is due first, if one is, of those calls that `judge` lets run.
    pub(crate) fn select(
        &mut self,
        now: Instant,
        judge: impl Fn(&T) -> CloseDecision,
    ) -> Option<Selected<T>> {
        if self.next_due()? > now {
            return None;
        }
        let (_, id) = *self.due.first()?;
        let group = self.groups.get(&id)?;
        let (base, capacity, is_exact) = (group.base(), group.capacity, self.plan.is_exact());
        let mut keys: Vec<Key> = Vec::with_capacity(capacity.min(group.ready));
        for source in base.into_iter().chain(group.sources(base, is_exact)) {
            keys.extend(self.slabs.get(&source)?.ready_keys().take(capacity - keys.len()));
        }
        let mut selected = Selected { batch: None, late: Vec::new() };
        keys.retain(|key| match self.rows.get(key).map_or(CloseDecision::Runs, |row| judge(&row.value)) {
            CloseDecision::Runs => true,
            CloseDecision::Throttled(by) => {
                self.throttle(*key, by);
                false
            }
            CloseDecision::Late => {
                selected.late.extend(self.remove(*key));
                false
            }
        });
        if !keys.is_empty() && (!is_exact || keys.len() == capacity) {
            selected.batch = Some(self.close(id, base, &keys, now));
        }
        Some(selected)
    }

    /// The moves of a batch are done.
    pub(crate) fn settled(&mut self, outs: &[Out], fills: &[Fill]) {
        for out in outs {
            if let Some(row) = self.rows.get_mut(&out.key) {
                row.is_moving = false;
                if row.phase == Phase::Gone {
                    self.rows.remove(&out.key);
                    self.leave(out.to, false);
                }
            }
            self.settle(out.to.slab);
        }
        // The slab of the batch itself is gone.
        for fill in fills {
            if self.slabs.contains_key(&fill.from.slab) {
                self.leave(fill.from, false);
                self.settle(fill.from.slab);
            }
        }
    }

    /// The function has returned. `rows` of which size ran for how long, if it is worth knowing.
    pub(crate) fn finished(&mut self, group: GroupId, ran: Option<(usize, Duration)>) {
        self.in_progress -= 1;
        if let Some((rows, time)) = ran
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.estimate.ran(rows, time);
        }
        self.settle_due(group);
    }

    fn close(
        &mut self,
        group: GroupId,
        base: Option<SlabId>,
        keys: &[Key],
        now: Instant,
    ) -> SelectedBatch<T> {
        let is_new_slab = base.is_none();
        let base = base.unwrap_or_else(|| self.new_slab(group, false));
        let mut waited = Duration::ZERO;
        for key in keys {
            let Some(row) = self.rows.get(key) else { continue };
            let Phase::Ready(since) = row.phase else { continue };
            let (seat, deadline) = (row.seat, row.deadline);
            waited += now.saturating_duration_since(since);
            // Those of the batch's own slab go with it.
            if seat.slab != base {
                self.unset_ready(*key, since);
            } else if let Some(deadline) = deadline {
                self.group(group).deadlines.remove(&(deadline, *key));
            }
        }
        let (order, fills) = self.arrange(base, keys);
        let rows = order.iter().filter_map(|key| self.rows.remove(key)).map(|row| row.value).collect();
        let outs = self.move_out(group, base);
        self.group(group).was_told = false;
        self.let_go(base);
        self.in_progress += 1;
        let padded = self.plan.padded(order.len());
        SelectedBatch { group, base, is_new_slab, rows, padded, outs, fills, waited }
    }

    /// Puts the calls of a batch on its first seats: those that lie there stay, the others fill the holes.
    fn arrange(&mut self, base: SlabId, keys: &[Key]) -> (Vec<Key>, Vec<Fill>) {
        let mut order: Vec<Option<Key>> = vec![None; keys.len()];
        let mut others = Vec::new();
        for key in keys {
            let Some(row) = self.rows.get(key) else { continue };
            match order.get_mut(row.seat.index).filter(|_| row.seat.slab == base) {
                Some(place) => *place = Some(*key),
                None => others.push((*key, row.seat)),
            }
        }
        let mut fills = Vec::with_capacity(others.len());
        let holes = order.iter_mut().enumerate().filter(|(_, place)| place.is_none());
        for ((to, place), (key, from)) in holes.zip(others) {
            *place = Some(key);
            fills.push(Fill { to, from });
        }
        for fill in fills.iter().filter(|fill| fill.from.slab != base) {
            self.unsettle(fill.from.slab);
        }
        (order.into_iter().flatten().collect(), fills)
    }

    /// Gives all in the slab of a batch that take no part in it a seat elsewhere.
    fn move_out(&mut self, group: GroupId, base: SlabId) -> Vec<Out> {
        let seats: Vec<(usize, Key)> = self.slabs.get(&base).into_iter().flat_map(Slab::seats).collect();
        // Nobody comes here any more.
        self.group(group).open.remove(&base);
        let mut outs = Vec::new();
        for (_, key) in seats {
            let Some(row) = self.rows.get(&key) else { continue };
            let (phase, is_slow) = (row.phase, row.was_moved || matches!(row.phase, Phase::Throttled(_)));
            let open = if is_slow { self.open_slow(group) } else { self.group(group).open.first().copied() };
            let (to, is_new_slab) = self.sit(group, open, is_slow, key, phase == Phase::Filling);
            self.unsettle(to.slab);
            if let Some(row) = self.rows.get_mut(&key) {
                (row.seat, row.was_moved, row.is_moving) = (to, true, true);
            }
            outs.push(Out { key, to, is_new_slab });
        }
        outs
    }

    fn open_slow(&self, group: GroupId) -> Option<SlabId> {
        let slabs = self.groups.get(&group)?.slabs.iter();
        slabs.copied().find(|id| self.slabs.get(id).is_some_and(|slab| slab.is_slow && slab.has_room()))
    }
}
