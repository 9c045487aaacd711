//! Decides when a batch closes: at that time, the ready calls of a group are due to run.
//!
//! A full batch is due at once. An exact batch is due only then. Other batches are due when their first call
//! has waited for `max_wait`, or, if they are adaptive, when one more call is no longer worth waiting for. A
//! batch waits a little for calls that are being received, and closes early enough for the earliest deadline.

use std::time::{Duration, Instant};

use crate::batch::plan::group::{Group, MAX_RECEIVE_TIME};
use crate::batch::plan::policy::{BatchPolicy, Close};
use crate::batch::plan::seats::Slab;

/// The part of a call's time that is reserved for starting a batch and sending its results, within the two
/// bounds.
const MARGIN_PART: u32 = 8;
const MIN_MARGIN: Duration = Duration::from_millis(1);
const MAX_MARGIN: Duration = Duration::from_millis(20);

/// Returns when the next batch of `group` is due, which may be in the past. `base` is the slab for the batch.
pub(crate) fn closes_at(policy: &BatchPolicy, group: &Group, base: Option<&Slab>) -> Option<Instant> {
    let oldest = group.oldest()?;
    let due = match policy.close {
        _ if group.ready >= group.capacity => oldest,
        Close::Full { .. } => return None,
        Close::Soon { max_wait, is_adaptive } => {
            let latest = oldest + max_wait;
            let due = if is_adaptive { group.estimate.wait(group.ready).unwrap_or(oldest) } else { latest };
            due.min(latest).max(oldest)
        }
    };
    // Waiting for calls that are being received takes less time than moving their received bytes.
    let received = base.and_then(Slab::receiving_since).map(|since| since + group.receive_time);
    let due = due.max(received.unwrap_or(due).min(due + MAX_RECEIVE_TIME));
    Some(due.min(latest_start(policy, group, oldest).unwrap_or(due)).max(oldest))
}

/// Returns when a batch must start to end by its earliest deadline, if its run time is known.
fn latest_start(policy: &BatchPolicy, group: &Group, oldest: Instant) -> Option<Instant> {
    let (earliest, _) = group.deadlines.first()?;
    let rows = policy.padded(group.ready.min(group.capacity));
    let whole = earliest.saturating_duration_since(oldest);
    let margin = (whole / MARGIN_PART).clamp(MIN_MARGIN, MAX_MARGIN);
    earliest.checked_sub(group.estimate.run_time(rows).unwrap_or(Duration::ZERO) + margin)
}
