//! Selects a batch: the calls that run, the calls that leave its slab, and the calls that fill the holes.
//!
//! Flow: `select` (a batch is due) -> the caller moves the `outs`, then the `fills` -> `moved` -> the
//! function runs -> `finished`.

use std::time::{Duration, Instant};

use crate::batch::plan::ids::{GroupId, Key, Seat, SlabId};
use crate::batch::plan::scheduler::{Phase, Scheduler};
use crate::batch::plan::seats::Slab;

/// The outcome of a call when its batch closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseDecision {
    Runs,
    /// It must not run before `Scheduler::release` is called with this key.
    Throttled(usize),
    /// Its deadline has passed.
    Late,
}

/// A due batch.
#[derive(Debug)]
pub(crate) struct Selected<T> {
    /// `None` if too few calls were left for a batch.
    pub(crate) batch: Option<SelectedBatch<T>>,
    /// Calls that were removed because they are late.
    pub(crate) late: Vec<T>,
}

/// The move of a call that does not take part in the batch of its slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) key: Key,
    pub(crate) to: Seat,
    pub(crate) is_new_slab: bool,
}

/// The move of a row into a hole of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    /// The index of the row in `SelectedBatch::rows`, and in the slab.
    pub(crate) to: usize,
    pub(crate) from: Seat,
}

/// A batch: the first rows of the slab `base`, once all moves are done.
#[derive(Debug)]
pub(crate) struct SelectedBatch<T> {
    pub(crate) group: GroupId,
    pub(crate) base: SlabId,
    /// True if `base` has no memory yet.
    pub(crate) is_new_slab: bool,
    pub(crate) rows: Vec<T>,
    /// The number of rows, including rows of zeros.
    pub(crate) padded: usize,
    /// Moves to do before the fills.
    pub(crate) outs: Vec<Out>,
    pub(crate) fills: Vec<Fill>,
    /// The sum of the times that its rows were ready.
    pub(crate) waited: Duration,
}

impl<T: Default> Scheduler<T> {
    /// Selects the batch that is due first, if one is due, with the calls that `judge` allows.
    pub(crate) fn select(
        &mut self,
        now: Instant,
        judge: impl Fn(&T) -> CloseDecision,
    ) -> Option<Selected<T>> {
        if self.next_due()? > now {
            return None;
        }
        let (_, id) = self.groups.first_due()?;
        let group = self.groups.get(id)?;
        let (base, capacity, is_exact) = (group.base(), group.capacity, self.policy.is_exact());
        let mut keys: Vec<Key> = Vec::with_capacity(capacity.min(group.ready));
        for source in base.into_iter().chain(group.sources(base, is_exact)) {
            keys.extend(self.groups.slab(source)?.ready_keys().take(capacity - keys.len()));
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

    /// Called when the moves of a batch are done.
    pub(crate) fn moved(&mut self, outs: &[Out], fills: &[Fill]) {
        for out in outs {
            if let Some(row) = self.rows.get_mut(&out.key) {
                row.is_moving = false;
                if row.phase == Phase::Gone {
                    self.rows.remove(&out.key);
                    self.groups.leave(out.to, false);
                }
            }
            self.groups.end_move(out.to.slab);
        }
        // The slab of the batch itself was removed.
        for fill in fills {
            if self.groups.slab(fill.from.slab).is_some() {
                self.groups.leave(fill.from, false);
                self.groups.end_move(fill.from.slab);
            }
        }
    }

    /// Called when the function has returned. `ran` is the number of rows and their run time, if it is
    /// typical for other batches.
    pub(crate) fn finished(&mut self, group: GroupId, ran: Option<(usize, Duration)>) {
        self.in_progress -= 1;
        if let Some((rows, time)) = ran
            && self.groups.get(group).is_some()
        {
            self.groups.group_mut(group).estimate.ran(rows, time);
        }
        self.groups.update_due(group);
    }

    fn close(
        &mut self,
        group: GroupId,
        base: Option<SlabId>,
        keys: &[Key],
        now: Instant,
    ) -> SelectedBatch<T> {
        let is_new_slab = base.is_none();
        let base = base.unwrap_or_else(|| self.groups.add_slab(group, false));
        let mut waited = Duration::ZERO;
        for key in keys {
            let Some(row) = self.rows.get(key) else { continue };
            let Phase::Ready(since) = row.phase else { continue };
            waited += now.saturating_duration_since(since);
            // Calls of the batch's own slab are removed with it.
            if row.seat.slab != base {
                self.unset_ready(*key);
            } else if let Some(deadline) = row.deadline {
                self.groups.group_mut(group).deadlines.remove(&(deadline, *key));
            }
        }
        let (order, fills) = self.arrange(base, keys);
        let rows = order.iter().filter_map(|key| self.rows.remove(key)).map(|row| row.value).collect();
        let outs = self.move_out(group, base);
        self.groups.group_mut(group).was_logged = false;
        self.groups.remove_slab(base);
        self.in_progress += 1;
        let padded = self.policy.padded(order.len());
        SelectedBatch { group, base, is_new_slab, rows, padded, outs, fills, waited }
    }

    /// Seats the calls of a batch on its first seats: calls that are there stay, and the others fill the
    /// holes.
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
            self.groups.begin_move(fill.from.slab);
        }
        (order.into_iter().flatten().collect(), fills)
    }

    /// Takes other seats for the calls in a batch's slab that do not take part in it.
    fn move_out(&mut self, group: GroupId, base: SlabId) -> Vec<Out> {
        let keys: Vec<Key> = self.groups.slab(base).into_iter().flat_map(Slab::keys).collect();
        self.groups.group_mut(group).open.remove(&base);
        let mut outs = Vec::new();
        for key in keys {
            let Some(row) = self.rows.get_mut(&key) else { continue };
            let is_receiving = row.phase == Phase::Receiving;
            let is_slow = row.was_moved || matches!(row.phase, Phase::Throttled(_));
            let (to, is_new_slab) = self.groups.sit(group, is_slow, key, is_receiving);
            self.groups.begin_move(to.slab);
            (row.seat, row.was_moved, row.is_moving) = (to, true, true);
            outs.push(Out { key, to, is_new_slab });
        }
        outs
    }
}
