//! The deadlines of queued calls, so that the server keeps no arguments for callers that no longer wait.
//!
//! Flow: a queued call's deadline is noted -> the supervisor wakes if that is earlier than it expected ->
//! `begin` -> it checks all queued calls, and notes the earliest remaining deadline. Holds no calls. Bounds:
//! calls are checked at most once in a `STEP`, and end at most two steps late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Checking 100,000 calls takes some milliseconds, a small part of this.
const STEP: Duration = Duration::from_millis(100);
const STEP_NS: u64 = STEP.as_nanos() as u64;

/// No deadline was noted.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Deadlines {
    /// The origin of the times below.
    base: Instant,
    /// Invariant: no deadline of a queued call is more than a `STEP` before this.
    earliest_ns: AtomicU64,
    /// The time until which calls are not checked again.
    rests_until_ns: AtomicU64,
}

// `earliest_ns` is sequentially consistent: a thread queues a call (under the queue's lock) and then reads
// the number, while the supervisor writes the number and then checks the queue. One of them must see what
// the other wrote.
impl Deadlines {
    pub(crate) fn new(now: Instant) -> Deadlines {
        Deadlines { base: now, earliest_ns: AtomicU64::new(NEVER), rests_until_ns: AtomicU64::new(0) }
    }

    /// Notes the deadline of a queued call. Returns true if the supervisor must be woken.
    pub(crate) fn note(&self, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else { return false };
        let at = self.ns(deadline);
        let is_earlier = |earliest: u64| (at.saturating_add(STEP_NS) < earliest).then_some(at);
        self.earliest_ns.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_earlier).is_ok()
    }

    /// Returns the time of the next check.
    pub(crate) fn next(&self) -> Option<Instant> {
        let earliest = self.earliest_ns.load(Ordering::SeqCst);
        let at = earliest.max(self.rests_until_ns.load(Ordering::Relaxed));
        (earliest != NEVER).then(|| self.base + Duration::from_nanos(at))
    }

    /// Returns true if calls must be checked now. The caller must then note the earliest remaining deadline.
    pub(crate) fn begin(&self, now: Instant) -> bool {
        let is_due = self.next().is_some_and(|next| next <= now);
        if is_due {
            // Only the supervisor writes this.
            self.rests_until_ns.store(self.ns(now).saturating_add(STEP_NS), Ordering::Relaxed);
            self.earliest_ns.store(NEVER, Ordering::SeqCst);
        }
        is_due
    }

    fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_nanos()).unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn only_deadlines_earlier_by_a_step_wake_the_supervisor() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        assert!(!deadlines.note(None) && deadlines.next().is_none() && !deadlines.begin(now + S));
        assert!(deadlines.note(Some(now + 5 * S)));
        assert!(!deadlines.note(Some(now + 6 * S)) && !deadlines.note(Some(now + 5 * S - STEP)));
        assert!(deadlines.note(Some(now + 4 * S)));
        assert_eq!(deadlines.next(), Some(now + 4 * S));
        assert!(!deadlines.begin(now + 3 * S) && deadlines.begin(now + 4 * S));
        assert_eq!(deadlines.next(), None);
        assert!(deadlines.note(Some(now + 5 * S)));
    }

    #[test]
    fn checks_are_a_step_apart() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        assert!(deadlines.note(Some(now)) && deadlines.begin(now + S));
        assert!(deadlines.note(Some(now)));
        assert_eq!(deadlines.next(), Some(now + S + STEP));
        assert!(!deadlines.begin(now + S) && deadlines.begin(now + S + STEP));
    }
}
