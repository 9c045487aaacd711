//! Detects a peer that moves the memory that it holds too slowly while others wait for memory.
//!
//! Flow: `end_window` once a window, while the connection holds memory -> the directions that are too slow. A
//! window counts only if others waited at both of its ends and this process was not late. Knows no clock,
//! messages or budget: callers pass `now` and a sample. Bound: one sample.

use std::time::{Duration, Instant};

use teleport_wire::{ErrorKind, Ran, RemoteError};

use crate::config::{Config, MAX_TIME};
use crate::role::Role;

/// Shorter windows would only occupy the poller.
const MIN_WINDOW: Duration = Duration::from_millis(1);

/// The bytes that a connection has moved at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Payload, and metadata of unfinished frames, that arrived.
    pub(super) received_bytes: u64,
    /// Payload that the socket took.
    pub(super) sent_bytes: u64,
    /// Other connections wait for memory.
    pub(super) others_wait: bool,
}

/// The number of calls that were given up because their peer was slow while others waited for memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowCalls {
    /// Calls whose arguments arrived too slowly. They never ran.
    pub arguments: usize,
    /// Calls that ran and whose results the peer received too slowly.
    pub results: usize,
}

/// The directions that are too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slow {
    pub(super) receiving: bool,
    pub(super) sending: bool,
}

#[derive(Debug)]
pub(super) struct MinRate {
    bytes_per_second: u64,
    window: Duration,
    /// The last sample and its time.
    last: Option<(Instant, Sample)>,
}

impl MinRate {
    /// Returns `None` if the peer may be arbitrarily slow. Clients never require a rate, because their
    /// results are their own.
    pub(super) fn new(role: Role, config: &Config) -> Option<MinRate> {
        let window = config.min_rate_window.clamp(MIN_WINDOW, MAX_TIME);
        let bytes_per_second = config.min_rate;
        (role == Role::Server && bytes_per_second > 0).then_some(MinRate {
            bytes_per_second,
            window,
            last: None,
        })
    }

    /// Returns the end of the current window, if there is one.
    pub(super) fn window_end(&self) -> Option<Instant> {
        self.last.map(|(at, _)| at + self.window)
    }

    /// Ends the window without a verdict, because nothing is held any more.
    pub(super) fn rest(&mut self) {
        self.last = None;
    }

    /// Ends a window and begins the next one.
    pub(super) fn end_window(&mut self, now: Instant, sample: Sample) -> Slow {
        let Some((at, before)) = self.last.replace((now, sample)) else { return Slow::default() };
        // A late process may itself have delayed the bytes.
        let is_late = now.saturating_duration_since(at) > self.window * 2;
        if is_late || !before.others_wait || !sample.others_wait {
            return Slow::default();
        }
        let is_slow = |before: u64, now: u64| u128::from(now.saturating_sub(before)) < self.min_bytes();
        Slow {
            receiving: is_slow(before.received_bytes, sample.received_bytes),
            sending: is_slow(before.sent_bytes, sample.sent_bytes),
        }
    }

    /// Returns the bytes that must move in a window.
    fn min_bytes(&self) -> u128 {
        u128::from(self.bytes_per_second) * self.window.as_micros() / 1_000_000
    }

    pub(super) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Returns the answer to a call whose arguments or result move too slowly.
    pub(super) fn error(&self, what: &str, ran: Ran) -> RemoteError {
        let text = format!(
            "{what} slower than {} bytes per second (the server's `min_rate`) while others waited for its memory",
            self.bytes_per_second
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

    fn min_rate() -> MinRate {
        let config = Config { min_rate: RATE, min_rate_window: 5 * S, ..Config::default() };
        MinRate::new(Role::Server, &config).expect("a rate is set")
    }

    fn sample(received_bytes: u64, sent_bytes: u64, others_wait: bool) -> Sample {
        Sample { received_bytes, sent_bytes, others_wait }
    }

    #[test]
    fn each_direction_is_judged_alone() {
        let (mut rate, now) = (min_rate(), Instant::now());
        assert_eq!(rate.window_end(), None);
        assert_eq!(rate.end_window(now, sample(0, 0, true)), NEITHER, "there is no sample before");
        assert_eq!(rate.window_end(), Some(now + 5 * S));
        let mut at = now;
        for (received, sent, slow) in
            [(5000, 5000, (false, false)), (9999, 10_000, (true, false)), (14_999, 10_000, (false, true))]
        {
            at += 5 * S;
            let (receiving, sending) = slow;
            assert_eq!(rate.end_window(at, sample(received, sent, true)), Slow { receiving, sending });
        }
    }

    #[test]
    fn a_window_is_judged_only_if_others_wait_at_both_ends() {
        let (mut rate, mut now) = (min_rate(), Instant::now());
        for (others_wait, is_slow) in
            [(true, false), (false, false), (false, false), (true, false), (true, true), (false, false)]
        {
            now += 5 * S;
            assert_eq!(rate.end_window(now, sample(0, 0, others_wait)).receiving, is_slow);
        }
        rate.end_window(now, sample(0, 0, true));
        rate.rest();
        assert_eq!(rate.end_window(now + 5 * S, sample(0, 0, true)), NEITHER, "a new window began");
    }

    #[test]
    fn a_window_that_ends_late_is_not_judged() {
        let (mut rate, now) = (min_rate(), Instant::now());
        rate.end_window(now, sample(0, 0, true));
        assert_eq!(rate.end_window(now + 11 * S, sample(0, 0, true)), NEITHER);
        assert!(rate.end_window(now + 17 * S, sample(0, 0, true)).sending);
    }

    #[test]
    fn any_rate_and_window_can_be_set() {
        let with = |role, min_rate, min_rate_window| {
            MinRate::new(role, &Config { min_rate, min_rate_window, ..Config::default() })
        };
        assert!(with(Role::Server, 0, S).is_none() && with(Role::Client, 1, S).is_none());
        let mut rate = with(Role::Server, u64::MAX, Duration::MAX).expect("a rate is set");
        let now = Instant::now();
        rate.end_window(now, sample(0, 0, true));
        assert!(rate.end_window(now + S, sample(u64::MAX - 1, 0, true)).receiving);
        assert!(rate.window_end().is_some_and(|end| end > now));
        assert!(rate.error("it came", Ran::No).message.contains("min_rate"));
    }
}
