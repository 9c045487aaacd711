//! Whether the peer is alive: any byte from it counts, and a ping asks for one where none came.
//!
//! Flow: `received` with each read -> `next_timeout` tells when to look again -> `handle_timeout` pings or gives up.
//! Knows no clock: `now` comes in. Bound: one ping in `ping_interval`.
//!
//! Only time in which this side looked counts as silence. One that looks much too late was stopped or slept, as its peer may
//! have, which then had nothing to answer and sent nothing.

use std::time::{Duration, Instant};

use super::error::Closed;
use crate::config::{Config, MAX_TIME};

/// Shorter times would only keep the poller busy.
const MIN_TIME: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Keepalive {
    ping_interval: Duration,
    max_silence: Duration,
    handshake_timeout: Duration,
    opened: Instant,
    last_received: Instant,
    /// When the newest ping was asked for, if nothing has come since.
    pinged: Option<Instant>,
    next_token: u64,
}

impl Keepalive {
    pub(super) fn new(config: &Config, now: Instant) -> Keepalive {
        Keepalive {
            ping_interval: clamp(config.ping_interval),
            max_silence: clamp(config.max_silence),
            handshake_timeout: clamp(config.handshake_timeout),
            opened: now,
            last_received: now,
            pinged: None,
            next_token: 1,
        }
    }

    pub(super) fn received(&mut self, now: Instant) {
        self.last_received = now;
        self.pinged = None;
    }

    pub(super) fn next_timeout(&self, handshaking: bool) -> Instant {
        if handshaking {
            return self.opened + self.handshake_timeout;
        }
        let ping = self.pinged.unwrap_or(self.last_received) + self.ping_interval;
        ping.min(self.last_received + self.max_silence)
    }

    /// The token of a ping that is due, if one is.
    pub(super) fn handle_timeout(&mut self, now: Instant, handshaking: bool) -> Result<Option<u64>, Closed> {
        if handshaking {
            if now >= self.opened + self.handshake_timeout {
                return Err(Closed::NoHandshake { waited: self.handshake_timeout });
            }
            return Ok(None);
        }
        self.forgive_lateness(now);
        let silence = now.saturating_duration_since(self.last_received);
        if silence >= self.max_silence {
            return Err(Closed::NotAlive { silence, max_silence: self.max_silence });
        }
        if now < self.pinged.unwrap_or(self.last_received) + self.ping_interval {
            return Ok(None);
        }
        self.pinged = Some(now);
        self.next_token += 1;
        Ok(Some(self.next_token - 1))
    }

    /// Takes the time since this side should have looked out of the silence, if a ping or more was missed in it. What
    /// was due is due now, and no later: so a dead peer is found out also by a side that is always late.
    fn forgive_lateness(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next_timeout(false));
        if late >= self.ping_interval {
            self.last_received += late;
            self.pinged = self.pinged.map(|pinged| pinged + late);
        }
    }
}

/// Times that users mean as "never" would overflow a clock, and none at all would keep the poller from sleeping.
fn clamp(time: Duration) -> Duration {
    time.clamp(MIN_TIME, MAX_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn liveness(now: Instant) -> Keepalive {
        Keepalive::new(&Config { ping_interval: 10 * S, max_silence: 35 * S, ..Config::default() }, now)
    }

    #[test]
    fn pings_come_when_nothing_else_does() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.received(start);
        let mut pings = Vec::new();
        let error = loop {
            let now = liveness.next_timeout(false);
            match liveness.handle_timeout(now, false) {
                Ok(token) => pings.extend(token.map(|token| (token, (now - start).as_secs()))),
                Err(error) => break error,
            }
        };
        assert_eq!(pings, [(1, 10), (2, 20), (3, 30)]);
        assert!(matches!(error, Closed::NotAlive { silence, .. } if silence == 35 * S));
    }

    #[test]
    fn any_byte_counts_as_life() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        for second in 1..1000 {
            liveness.received(start + second * S);
            assert!(matches!(liveness.handle_timeout(start + (second + 1) * S, false), Ok(None)));
        }
    }

    #[test]
    fn the_time_in_which_this_side_slept_is_no_silence() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.received(start);
        // Asked before it is judged, as if the time had not passed.
        let woken = start + 1000 * S;
        assert!(matches!(liveness.handle_timeout(woken, false), Ok(Some(1))));
        assert_eq!(liveness.next_timeout(false), woken + 10 * S);
        // And given up in the end, however often this side sleeps.
        let (now, error) = loop {
            let now = liveness.next_timeout(false) + 500 * S;
            match liveness.handle_timeout(now, false) {
                Ok(token) => assert!(token.is_some_and(|token| token <= 3), "{token:?}"),
                Err(error) => break (now, error),
            }
        };
        assert!(matches!(error, Closed::NotAlive { silence, .. } if silence == 35 * S), "{error:?}");
        // A little late is not slept.
        let mut liveness = self::liveness(now);
        assert!(matches!(liveness.handle_timeout(now + 19 * S, false), Ok(Some(1))));
        assert_eq!(liveness.next_timeout(false), now + 29 * S);
    }

    #[test]
    fn a_peer_that_never_says_hello_is_given_up() {
        let start = Instant::now();
        let mut liveness = liveness(start);
        liveness.received(start + 4 * S);
        let end = liveness.next_timeout(true);
        assert!(matches!(liveness.handle_timeout(end - S, true), Ok(None)));
        assert!(matches!(liveness.handle_timeout(end, true), Err(Closed::NoHandshake { .. })));
    }

    #[test]
    fn never_is_a_time_too() {
        let start = Instant::now();
        let (ping_interval, max_silence) = (Duration::ZERO, Duration::MAX);
        let mut liveness = Keepalive::new(&Config { ping_interval, max_silence, ..Config::default() }, start);
        liveness.received(start);
        assert!(liveness.next_timeout(false) > start);
        assert!(matches!(liveness.handle_timeout(start + S, false), Ok(Some(1))));
        assert!(liveness.next_timeout(false) > start + S);
    }
}
