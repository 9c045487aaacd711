//! Whether a peer moves the memory that it holds, while others wait for it.
//!
//! Flow: `look` once a window, for as long as the connection holds memory -> which direction crawls. Judged is only a window
//! at both ends of which others waited, and in which this process could look in time. Knows no clock, messages or
//! budget: `now` and what was seen come in. Bound: what one look saw.

use std::time::{Duration, Instant};

use teleport_wire::{ErrorKind, Ran, RemoteError};

use crate::config::{Config, MAX_TIME};
use crate::role::Role;

/// Shorter windows would only keep the poller busy.
const MIN_WINDOW: Duration = Duration::from_millis(1);

/// What is seen of a connection at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// Payload, and metadata of unfinished frames, that has come so far.
    pub(super) received_bytes: u64,
    /// Payload that the socket has taken so far.
    pub(super) sent_bytes: u64,
    /// Other connections wait for memory.
    pub(super) others_wait: bool,
}

/// How many calls of a connection were given up since its peer crawled with memory that others waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowCalls {
    /// Calls whose arguments came too slowly: they never ran.
    pub arguments: usize,
    /// Calls that ran and whose results were fetched too slowly.
    pub results: usize,
}

/// Which directions crawl.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slow {
    pub(super) receiving: bool,
    pub(super) sending: bool,
}

#[derive(Debug)]
pub(super) struct Pace {
    min_rate: u64,
    window: Duration,
    /// When was looked last, and what was seen.
    last: Option<(Instant, Sight)>,
}

impl Pace {
    /// None if any pace will do. A client's own results are its own matter.
    pub(super) fn new(role: Role, config: &Config) -> Option<Pace> {
        let window = config.pace_window.clamp(MIN_WINDOW, MAX_TIME);
        (role == Role::Server && config.min_rate > 0).then_some(Pace {
            min_rate: config.min_rate,
            window,
            last: None,
        })
    }

    /// When the window that runs now is over; none if none does.
    pub(super) fn window_ends(&self) -> Option<Instant> {
        self.last.map(|(at, _)| at + self.window)
    }

    /// Nothing is held any more: there is nothing to look at.
    pub(super) fn rest(&mut self) {
        self.last = None;
    }

    /// Ends a window and begins the next one.
    pub(super) fn look(&mut self, now: Instant, sight: Sight) -> Slow {
        let Some((at, before)) = self.last.replace((now, sight)) else { return Slow::default() };
        // A look that comes late tells that this process was held up, and perhaps what it would have moved.
        let is_late = now.saturating_duration_since(at) > self.window * 2;
        if is_late || !before.others_wait || !sight.others_wait {
            return Slow::default();
        }
        let crawls = |before: u64, now: u64| u128::from(now.saturating_sub(before)) < self.min_bytes();
        Slow {
            receiving: crawls(before.received_bytes, sight.received_bytes),
            sending: crawls(before.sent_bytes, sight.sent_bytes),
        }
    }

    /// What must move in a window.
    fn min_bytes(&self) -> u128 {
        u128::from(self.min_rate) * self.window.as_micros() / 1_000_000
    }

    pub(super) fn min_rate(&self) -> u64 {
        self.min_rate
    }

    /// What a call is answered with whose payload or result crawls.
    pub(super) fn error(&self, what: &str, ran: Ran) -> RemoteError {
        let text = format!(
            "{what} slower than {} bytes per second (the server's `min_rate`) while others waited for its memory",
            self.min_rate
        );
        RemoteError::new(ErrorKind::TooSlow, ran, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const RATE: u64 = 1000;
    const NEITHER: Slow = Slow { receiving: false, sending: false };

    fn pace() -> Pace {
        let config = Config { min_rate: RATE, pace_window: 5 * S, ..Config::default() };
        Pace::new(Role::Server, &config).expect("a rate is set")
    }

    fn sight(received_bytes: u64, sent_bytes: u64, others_wait: bool) -> Sight {
        Sight { received_bytes, sent_bytes, others_wait }
    }

    #[test]
    fn each_direction_is_judged_by_itself() {
        let (mut pace, now) = (pace(), Instant::now());
        assert_eq!(pace.window_ends(), None);
        assert_eq!(pace.look(now, sight(0, 0, true)), NEITHER, "nothing was seen before");
        assert_eq!(pace.window_ends(), Some(now + 5 * S));
        let mut at = now;
        for (received, sent, slow) in
            [(5000, 5000, (false, false)), (9999, 10_000, (true, false)), (14_999, 10_000, (false, true))]
        {
            at += 5 * S;
            let (receiving, sending) = slow;
            assert_eq!(pace.look(at, sight(received, sent, true)), Slow { receiving, sending });
        }
    }

    #[test]
    fn nobody_is_judged_unless_others_wait_at_both_ends_of_a_window() {
        let (mut pace, mut now) = (pace(), Instant::now());
        for (others_wait, is_slow) in
            [(true, false), (false, false), (false, false), (true, false), (true, true), (false, false)]
        {
            now += 5 * S;
            assert_eq!(pace.look(now, sight(0, 0, others_wait)).receiving, is_slow);
        }
        pace.look(now, sight(0, 0, true));
        pace.rest();
        assert_eq!(pace.look(now + 5 * S, sight(0, 0, true)), NEITHER, "a window began anew");
    }

    #[test]
    fn a_look_that_comes_late_judges_nobody() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.look(now, sight(0, 0, true));
        assert_eq!(pace.look(now + 11 * S, sight(0, 0, true)), NEITHER);
        assert!(pace.look(now + 17 * S, sight(0, 0, true)).sending);
    }

    #[test]
    fn no_rate_and_every_rate_are_rates_too() {
        let with = |role, min_rate, pace_window| {
            Pace::new(role, &Config { min_rate, pace_window, ..Config::default() })
        };
        assert!(with(Role::Server, 0, S).is_none() && with(Role::Client, 1, S).is_none());
        let mut pace = with(Role::Server, u64::MAX, Duration::MAX).expect("a rate is set");
        let now = Instant::now();
        pace.look(now, sight(0, 0, true));
        assert!(pace.look(now + S, sight(u64::MAX - 1, 0, true)).receiving);
        assert!(pace.window_ends().is_some_and(|end| end > now));
        assert!(pace.error("it came", Ran::No).message.contains("min_rate"));
    }
}
