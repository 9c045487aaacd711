//! When calls that wait run out of time, so that no arguments are kept for callers who have gone.
//!
//! Flow: whoever has a call wait `note`s its deadline, once the call stands where it waits -> the supervisor is woken if
//! that is earlier than what it sleeps until -> `begin`, when that has come -> it looks through all calls that wait, and
//! notes the earliest deadline of those that stay.
//! Knows no calls. Bounds: they are looked through once a `STEP` at most, and go at most two of them late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A walk through 100,000 calls takes some milliseconds: a small part of this.
const STEP: Duration = Duration::from_millis(100);
const STEP_NS: u64 = STEP.as_nanos() as u64;

/// No deadline was noted.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Deadlines {
    /// What times are counted from, in nanoseconds.
    base: Instant,
    /// No deadline of a call that waits is more than a `STEP` before this.
    earliest_ns: AtomicU64,
    /// When calls may be looked through again.
    rests_until_ns: AtomicU64,
}

// `earliest_ns` is sequentially consistent: who has a call wait puts it there (under that place's lock) and then reads the
// number, the supervisor sets the number and then looks at the place; one of them must see what the other wrote.
impl Deadlines {
    pub(crate) fn new(now: Instant) -> Deadlines {
        Deadlines { base: now, earliest_ns: AtomicU64::new(NEVER), rests_until_ns: AtomicU64::new(0) }
    }

    /// A call with this deadline waits. True if the supervisor may sleep for too long.
    pub(crate) fn note(&self, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else { return false };
        let at = self.ns(deadline);
        let is_earlier = |earliest: u64| (at.saturating_add(STEP_NS) < earliest).then_some(at);
        self.earliest_ns.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_earlier).is_ok()
    }

    /// When calls are to be looked through.
    pub(crate) fn next(&self) -> Option<Instant> {
        let earliest = self.earliest_ns.load(Ordering::SeqCst);
        let at = earliest.max(self.rests_until_ns.load(Ordering::Relaxed));
        (earliest != NEVER).then(|| self.base + Duration::from_nanos(at))
    }

    /// Whether they are to be looked through now. Then the earliest deadline that is left must be noted.
    pub(crate) fn begin(&self, now: Instant) -> bool {
        let is_due = self.next().is_some_and(|next| next <= now);
        if is_due {
            // Of the supervisor alone.
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
    fn the_earliest_counts_to_a_step() {
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
    fn who_looked_rests_for_a_step() {
        let now = Instant::now();
        let deadlines = Deadlines::new(now);
        assert!(deadlines.note(Some(now)) && deadlines.begin(now + S));
        assert!(deadlines.note(Some(now)));
        assert_eq!(deadlines.next(), Some(now + S + STEP));
        assert!(!deadlines.begin(now + S) && deadlines.begin(now + S + STEP));
    }
}
