//! The calls of one signature: the slabs with their rows, and the slabs with ready calls.
//!
//! Bound: the slabs of its calls.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::batch::plan::estimate::Estimate;
use crate::batch::plan::ids::{Key, SlabId};
use crate::batch::plan::seats::Slab;

/// A call that is waited for arrives at this rate in bytes per second at least, plus `MIN_RECEIVE_TIME`.
/// Batches do not wait for slower calls.
const MIN_RATE: u64 = 1 << 30;
const MIN_RECEIVE_TIME: Duration = Duration::from_micros(100);

/// A batch that is due waits at most this long for calls that are being received.
pub(crate) const MAX_RECEIVE_TIME: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Group {
    /// The number of rows of a slab.
    pub(crate) capacity: usize,
    /// The expected time between two arrivals while the next call is being received.
    pub(crate) receive_time: Duration,
    pub(crate) slabs: BTreeSet<SlabId>,
    /// Slabs with a free seat; a new call takes one in the first slab. Never includes slow slabs.
    pub(crate) open: BTreeSet<SlabId>,
    /// Slabs with ready calls and no pending moves, by the time at which their first call became ready.
    ready_slabs: BTreeSet<(Instant, SlabId)>,
    /// The same for slow slabs.
    ready_slow: BTreeSet<(Instant, SlabId)>,
    /// The ready calls of both.
    pub(crate) ready: usize,
    /// Deadlines of ready calls.
    pub(crate) deadlines: BTreeSet<(Instant, Key)>,
    pub(crate) estimate: Estimate,
    /// The time at which its next batch is due.
    pub(crate) due: Option<Instant>,
    /// True if the log already mentions that an exact batch waits.
    pub(crate) was_logged: bool,
}

/// The part of a slab's state that its group uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlabSummary {
    oldest: Option<Instant>,
    ready: usize,
    is_open: bool,
}

impl SlabSummary {
    pub(crate) fn of(slab: &Slab) -> SlabSummary {
        let oldest = slab.oldest().filter(|_| slab.pending_moves == 0);
        let ready = if oldest.is_some() { slab.ready() } else { 0 };
        SlabSummary { oldest, ready, is_open: !slab.is_slow && slab.has_room() }
    }
}

impl Group {
    pub(crate) fn new(capacity: usize, row_bytes: u64) -> Group {
        let time = Duration::from_nanos(row_bytes.saturating_mul(1_000_000_000) / MIN_RATE);
        Group {
            capacity,
            receive_time: (time + MIN_RECEIVE_TIME).min(MAX_RECEIVE_TIME),
            slabs: BTreeSet::new(),
            open: BTreeSet::new(),
            ready_slabs: BTreeSet::new(),
            ready_slow: BTreeSet::new(),
            ready: 0,
            deadlines: BTreeSet::new(),
            estimate: Estimate::default(),
            due: None,
            was_logged: false,
        }
    }

    pub(crate) fn add(&mut self, id: SlabId, slab: &Slab) {
        self.slabs.insert(id);
        self.update(id, slab.is_slow, SlabSummary::default(), SlabSummary::of(slab));
    }

    pub(crate) fn remove(&mut self, id: SlabId, slab: &Slab) {
        self.slabs.remove(&id);
        self.update(id, slab.is_slow, SlabSummary::of(slab), SlabSummary::default());
    }

    /// Updates the group after a slab has changed.
    pub(crate) fn update(&mut self, id: SlabId, is_slow: bool, before: SlabSummary, now: SlabSummary) {
        let slabs = if is_slow { &mut self.ready_slow } else { &mut self.ready_slabs };
        if before.oldest != now.oldest {
            before.oldest.map(|oldest| slabs.remove(&(oldest, id)));
            now.oldest.map(|oldest| slabs.insert((oldest, id)));
        }
        self.ready = self.ready + now.ready - before.ready;
        match (before.is_open, now.is_open) {
            (false, true) => drop(self.open.insert(id)),
            (true, false) => drop(self.open.remove(&id)),
            _ => {}
        }
    }

    /// Returns the time since which the first ready call has waited.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let first = |slabs: &BTreeSet<(Instant, SlabId)>| slabs.first().map(|(oldest, _)| *oldest);
        first(&self.ready_slabs).into_iter().chain(first(&self.ready_slow)).min()
    }

    /// Returns the slab for the next batch, unless all ready calls are in slow slabs.
    pub(crate) fn base(&self) -> Option<SlabId> {
        self.ready_slabs.first().map(|(_, id)| *id)
    }

    /// Returns the slabs whose ready calls must be copied to a batch: slow ones, oldest first, and for an
    /// exact batch also the others.
    pub(crate) fn sources(&self, base: Option<SlabId>, is_exact: bool) -> impl Iterator<Item = SlabId> + '_ {
        let others = self.ready_slabs.iter().filter(move |(_, id)| is_exact && Some(*id) != base);
        self.ready_slow.iter().chain(others).map(|(_, id)| *id)
    }
}
