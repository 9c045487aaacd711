//! The calls of one signature: in which slabs they lie, and when a batch of them is due.
//!
//! Knows no memory and reads no clock. Bound: the slabs of its rows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::api::batch_options::{Close, Plan};
use crate::batch::plan::estimate::Estimate;
use crate::batch::plan::ids::{Key, SlabId};
use crate::batch::plan::seats::Slab;

/// What starting a batch and sending its results takes beside the function, generously: one in so many parts of what the call
/// may take in all, within bounds.
const MARGIN_PART: u32 = 8;
const LEAST_MARGIN: Duration = Duration::from_millis(1);
const MAX_MARGIN: Duration = Duration::from_millis(20);

/// A call that is being received comes at least as fast as this, in bytes per second, and after this long at the latest, or a
/// batch that is due does not wait for it.
const LEAST_RATE: u64 = 1 << 30;
const LEAST_TIME: Duration = Duration::from_micros(100);

/// Nobody waits longer for others that are being received.
const MAX_FILLING: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Group {
    /// Rows of a slab.
    pub(crate) capacity: usize,
    /// How long the next call may take to come once one has, if it is being received.
    grace: Duration,
    pub(crate) slabs: BTreeSet<SlabId>,
    /// Those of them, slow ones apart, that have a seat for a new call: the first is filled first.
    pub(crate) open: BTreeSet<SlabId>,
    /// Those that are settled and have ready calls, by when the first was ready.
    ready_slabs: BTreeSet<(Instant, SlabId)>,
    ready_slow: BTreeSet<(Instant, SlabId)>,
    /// Invariant: the ready calls of both.
    pub(crate) ready: usize,
    /// Deadlines of calls that are ready.
    pub(crate) deadlines: BTreeSet<(Instant, Key)>,
    pub(crate) estimate: Estimate,
    /// When its next batch is due, as it stands among all groups.
    pub(crate) due: Option<Instant>,
    /// The log was told that an exact batch waits.
    pub(crate) was_told: bool,
}

/// What of a slab counts for its group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlabSummary {
    oldest: Option<Instant>,
    ready: usize,
    is_open: bool,
}

impl SlabSummary {
    pub(crate) fn of(slab: &Slab) -> SlabSummary {
        let oldest = slab.oldest().filter(|_| slab.unsettled == 0);
        let ready = if oldest.is_some() { slab.ready() } else { 0 };
        SlabSummary { oldest, ready, is_open: !slab.is_slow && slab.has_room() }
    }
}

impl Group {
    /// With so many rows in a slab, of so many bytes each.
    pub(crate) fn new(capacity: usize, row_bytes: u64) -> Group {
        let grace = Duration::from_nanos(row_bytes.saturating_mul(1_000_000_000) / LEAST_RATE);
        Group {
            capacity,
            grace: (grace + LEAST_TIME).min(MAX_FILLING),
            slabs: BTreeSet::new(),
            open: BTreeSet::new(),
            ready_slabs: BTreeSet::new(),
            ready_slow: BTreeSet::new(),
            ready: 0,
            deadlines: BTreeSet::new(),
            estimate: Estimate::default(),
            due: None,
            was_told: false,
        }
    }

    /// A slab is new: it has changed from this.
    pub(crate) fn add(&mut self, id: SlabId) -> SlabSummary {
        self.slabs.insert(id);
        SlabSummary { oldest: None, ready: 0, is_open: false }
    }

    /// A slab has changed from what it was `before`.
    pub(crate) fn slab_changed(&mut self, id: SlabId, before: SlabSummary, slab: &Slab) {
        let now = SlabSummary::of(slab);
        let those = if slab.is_slow { &mut self.ready_slow } else { &mut self.ready_slabs };
        if before.oldest != now.oldest {
            before.oldest.map(|oldest| those.remove(&(oldest, id)));
            now.oldest.map(|oldest| those.insert((oldest, id)));
        }
        self.ready = self.ready + now.ready - before.ready;
        match (before.is_open, now.is_open) {
            (false, true) => drop(self.open.insert(id)),
            (true, false) => drop(self.open.remove(&id)),
            _ => {}
        }
    }

    pub(crate) fn forget(&mut self, id: SlabId, slab: &Slab) {
        let before = SlabSummary::of(slab);
        let those = if slab.is_slow { &mut self.ready_slow } else { &mut self.ready_slabs };
        before.oldest.map(|oldest| those.remove(&(oldest, id)));
        self.ready -= before.ready;
        self.open.remove(&id);
        self.slabs.remove(&id);
    }

    /// Since when its first ready call waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let first = |those: &BTreeSet<(Instant, SlabId)>| those.first().map(|(oldest, _)| *oldest);
        first(&self.ready_slabs).into_iter().chain(first(&self.ready_slow)).min()
    }

    /// The slab that the next batch is made of; none if all that are ready lie in slow ones.
    pub(crate) fn base(&self) -> Option<SlabId> {
        self.ready_slabs.first().map(|(_, id)| *id)
    }

    /// Where calls are ready that must be copied to a batch: those that were moved before, the oldest first, and, for a batch
    /// that must be full, those of other slabs.
    pub(crate) fn sources(&self, base: Option<SlabId>, is_exact: bool) -> impl Iterator<Item = SlabId> + '_ {
        let others = self.ready_slabs.iter().filter(move |(_, id)| is_exact && Some(*id) != base);
        self.ready_slow.iter().chain(others).map(|(_, id)| *id)
    }

    /// When its next batch is due, which would be made of the slab `base`; in the past if it was before.
    pub(crate) fn next_due(&self, plan: &Plan, base: Option<&Slab>) -> Option<Instant> {
        let oldest = self.oldest()?;
        let is_full = self.ready >= self.capacity;
        let due = match plan.close {
            _ if is_full => oldest,
            Close::Full { .. } => return None,
            Close::Soon { max_wait, is_adaptive } => {
                let latest = oldest + max_wait;
                let wait =
                    if is_adaptive { self.estimate.wait(self.ready).unwrap_or(oldest) } else { latest };
                wait.min(latest).max(oldest)
            }
        };
        // To wait for those on their way takes less than to move what has come of them.
        let filled = base.and_then(Slab::filling_since).map(|since| since + self.grace);
        let due = due.max(filled.unwrap_or(due).min(due + MAX_FILLING));
        // A full batch that comes too late for its first call is still due.
        Some(due.min(self.start_in_time(plan, oldest).unwrap_or(due)).max(oldest))
    }

    /// When a batch must start to be done by the earliest of its deadlines, as far as it is known how long it takes.
    fn start_in_time(&self, plan: &Plan, oldest: Instant) -> Option<Instant> {
        let (earliest, _) = self.deadlines.first()?;
        let rows = plan.padded(self.ready.min(self.capacity));
        let whole = earliest.saturating_duration_since(oldest);
        let margin = (whole / MARGIN_PART).clamp(LEAST_MARGIN, MAX_MARGIN);
        earliest.checked_sub(self.estimate.running_time(rows).unwrap_or(Duration::ZERO) + margin)
    }
}
