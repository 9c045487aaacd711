//! The time before the next attempt to connect: longer after each failure, and different for each client.
//!
//! Pure: callers pass time and randomness. Bounds: `FIRST_WAIT` and `MAX_WAIT`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A server that restarts is back within a few of these.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// A thousand clients that wait for one server cost it a thousand refused connections a second, which is
/// little.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A shorter connection counts as a failure, so that clients do not connect in a hot loop to a server that
/// accepts and closes. If calls were answered on it, it counts as one failure at most.
const MIN_LIFE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failed attempt.
    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Notes a connection that ended after `life`.
    pub(crate) fn ended(&mut self, life: Duration, has_answered: bool) {
        if life >= MIN_LIFE {
            self.failures = 0;
        } else if has_answered {
            self.failures = 1;
        } else {
            self.failed();
        }
    }

    /// Returns how long to wait before the next attempt.
    ///
    /// The first attempt is made at once. Later, the wait is between half and all of a time that doubles up
    /// to `MAX_WAIT`. `random` decides where in between, so that clients do not connect in step.
    pub(crate) fn wait(&self, random: u32) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let whole = FIRST_WAIT.saturating_mul(1 << doublings.min(16)).min(MAX_WAIT);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// Returns a number that differs from process to process and from call to call.
pub(crate) fn random() -> u32 {
    // Each `RandomState` is keyed by the system's randomness.
    RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_double_up_to_a_second() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait(u32::MAX), Duration::ZERO);
        let waits: Vec<_> = std::iter::repeat_with(|| {
            backoff.failed();
            (backoff.wait(0).as_millis(), backoff.wait(u32::MAX).as_millis())
        })
        .take(8)
        .collect();
        let expected =
            [(10, 20), (20, 40), (40, 80), (80, 160), (160, 320), (320, 640), (500, 1000), (500, 1000)];
        assert_eq!(waits, expected);
        (0..1000).for_each(|_| backoff.failed());
        assert_eq!(backoff.wait(u32::MAX), 1000 * MS);
    }

    #[test]
    fn a_connection_that_lived_ends_the_failures() {
        let mut backoff = Backoff::default();
        backoff.ended(10 * MS, false);
        assert_eq!(backoff.wait(u32::MAX), 20 * MS);
        backoff.ended(10 * MS, false);
        assert_eq!(backoff.wait(u32::MAX), 40 * MS);
        (0..10).for_each(|_| backoff.ended(10 * MS, true));
        assert_eq!(backoff.wait(u32::MAX), 20 * MS);
        backoff.ended(MIN_LIFE, false);
        assert_eq!(backoff.wait(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn randomness_differs() {
        assert!((0..10).any(|_| random() != random()));
    }
}
