//! Finds calls that have waited for too long. Each check visits every call, so checks are rare.

use std::time::{Duration, Instant};

use crate::batch::plan::group::Group;
use crate::batch::plan::ids::Key;
use crate::batch::plan::policy::BatchPolicy;
use crate::batch::plan::scheduler::{Phase, Row, Scheduler};
use crate::batch::plan::seats::Slab;

/// An exact batch that has waited for this time is logged.
const MAX_SILENCE: Duration = Duration::from_secs(1);

/// An exact batch that does not become full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Starved {
    /// Calls that are ready.
    pub(crate) keys: Vec<Key>,
    /// The number of calls in a full batch.
    pub(crate) rows: usize,
}

/// The reason why a call has waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LateBy {
    Deadline,
    /// Its batch did not become full in time.
    FullTimeout,
}

/// Returns the complete calls that have waited for too long.
pub(crate) fn late<T>(scheduler: &Scheduler<T>, now: Instant) -> Vec<(Key, LateBy)> {
    let timeout = scheduler.policy.full_timeout();
    let late_by = |row: &Row<T>| match row.phase {
        Phase::Receiving | Phase::Gone => None,
        _ if row.deadline.is_some_and(|deadline| deadline <= now) => Some(LateBy::Deadline),
        Phase::Ready(since) if timeout.is_some_and(|timeout| since + timeout <= now) => {
            Some(LateBy::FullTimeout)
        }
        Phase::Ready(_) | Phase::Throttled(_) => None,
    };
    scheduler.rows.iter().filter_map(|(key, row)| Some((*key, late_by(row)?))).collect()
}

/// Returns the exact batches that should be logged, each once.
pub(crate) fn starved<T>(scheduler: &mut Scheduler<T>, now: Instant) -> Vec<Starved> {
    if !scheduler.policy.is_exact() {
        return Vec::new();
    }
    let mut starved = Vec::new();
    for (group, slabs) in scheduler.groups.all_mut().filter(|(group, _)| !group.was_logged) {
        let has_waited = group.oldest().is_some_and(|oldest| oldest + MAX_SILENCE <= now);
        if has_waited && group.ready < group.capacity {
            group.was_logged = true;
            let keys = group.slabs.iter().filter_map(|id| slabs.get(id)).flat_map(Slab::ready_keys);
            starved.push(Starved { keys: keys.collect(), rows: group.capacity });
        }
    }
    starved
}

/// Returns the earliest time at which `late` or `starved` may find something.
pub(crate) fn next_expiry<T>(scheduler: &Scheduler<T>) -> Option<Instant> {
    let timeout = scheduler.policy.full_timeout();
    let of_row = |row: &Row<T>| match row.phase {
        Phase::Ready(since) => row.deadline.into_iter().chain(timeout.map(|time| since + time)).min(),
        Phase::Throttled(_) => row.deadline,
        Phase::Receiving | Phase::Gone => None,
    };
    let silent = scheduler.groups.all().filter(|group| timeout.is_some() && !group.was_logged);
    let silent = silent.filter_map(Group::oldest).map(|oldest| oldest + MAX_SILENCE);
    scheduler.rows.values().filter_map(of_row).chain(silent).min()
}

/// Returns the latest time for the check of a call that became ready `now`.
pub(crate) fn expiry_of(policy: &BatchPolicy, deadline: Option<Instant>, now: Instant) -> Option<Instant> {
    let timeout = policy.full_timeout().map(|timeout| now + timeout.min(MAX_SILENCE));
    deadline.into_iter().chain(timeout).min()
}
