//! Who has waited for too long, and when that is to be looked at.
//!
//! Decides only: what becomes of those calls is the caller's. Looks at every call, so it is asked now and then.

use std::time::{Duration, Instant};

use crate::batch::plan::group::Group;
use crate::batch::plan::ids::Key;
use crate::batch::plan::scheduler::{Phase, Row, Scheduler};
use crate::batch::plan::seats::Slab;

/// An exact batch that has waited so long is told of in the log.
const PATIENCE: Duration = Duration::from_secs(1);

/// An exact batch that does not become full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Starved {
    /// Calls that are ready.
    pub(crate) keys: Vec<Key>,
    /// How many it takes.
    pub(crate) rows: usize,
}

impl<T: Default> Scheduler<T> {
    /// Calls that are whole and whose time is over: their own, or that for their batch to become full. Looks at each. The
    /// second of each pair says whether it was the latter.
    pub(crate) fn late(&self, now: Instant) -> Vec<(Key, bool)> {
        let timeout = self.plan.full_timeout();
        let is_late = |row: &Row<T>| match row.phase {
            Phase::Filling | Phase::Gone => None,
            _ if row.deadline.is_some_and(|deadline| deadline <= now) => Some(false),
            Phase::Ready(since) if timeout.is_some_and(|timeout| since + timeout <= now) => Some(true),
            Phase::Ready(_) | Phase::Throttled(_) => None,
        };
        self.rows.iter().filter_map(|(key, row)| Some((*key, is_late(row)?))).collect()
    }

    /// Exact batches that have waited long enough for the log to be told, each once.
    pub(crate) fn starved(&mut self, now: Instant) -> Vec<Starved> {
        if !self.plan.is_exact() {
            return Vec::new();
        }
        let mut starved = Vec::new();
        for group in self.groups.values_mut().filter(|group| !group.was_told) {
            if group.ready < group.capacity && group.oldest().is_some_and(|oldest| oldest + PATIENCE <= now) {
                group.was_told = true;
                let slabs = group.slabs.iter().filter_map(|id| self.slabs.get(id));
                let keys = slabs.flat_map(Slab::ready_keys).collect();
                starved.push(Starved { keys, rows: group.capacity });
            }
        }
        starved
    }

    /// When `late` or `starved` has something to tell next, at the earliest.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let timeout = self.plan.full_timeout();
        let of_row = |row: &Row<T>| match row.phase {
            Phase::Ready(since) => row.deadline.into_iter().chain(timeout.map(|time| since + time)).min(),
            Phase::Throttled(_) => row.deadline,
            Phase::Filling | Phase::Gone => None,
        };
        let told = self.groups.values().filter(|group| timeout.is_some() && !group.was_told);
        let told = told.filter_map(Group::oldest).map(|oldest| oldest + PATIENCE);
        self.rows.values().filter_map(of_row).chain(told).min()
    }

    /// When a call that has just become ready is to be looked at, at the latest.
    pub(crate) fn looked_at(&self, deadline: Option<Instant>, now: Instant) -> Option<Instant> {
        let timeout = self.plan.full_timeout().map(|timeout| now + timeout.min(PATIENCE));
        deadline.into_iter().chain(timeout).min()
    }
}
