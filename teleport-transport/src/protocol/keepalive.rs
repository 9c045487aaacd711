//! Detects a dead peer: any received byte shows that it is alive, and a ping asks for one after a silence.
//!
//! Flow: `on_received` at each read -> `poll_timeout` -> `handle_timeout` sends a ping or gives up. Reads no
//! clock: callers pass `now`. Bound: one ping per `ping_interval`.
//!
//! Time during which this process itself was stopped does not count as silence.

use std::time::{Duration, Instant};

use super::error::Closed;
use crate::config::{Config, MAX_TIME};

/// Shorter times would only occupy the poller.
const MIN_TIME: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Keepalive {
    ping_interval: Duration,
    max_silence: Duration,
    handshake_timeout: Duration,
    opened: Instant,
    last_received: Instant,
    /// The time of the newest ping, if nothing has arrived since.
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

    pub(super) fn on_received(&mut self, now: Instant) {
        self.last_received = now;
        self.pinged = None;
    }

    pub(super) fn poll_timeout(&self, handshaking: bool) -> Instant {
        if handshaking {
            return self.opened + self.handshake_timeout;
        }
        let ping = self.pinged.unwrap_or(self.last_received) + self.ping_interval;
        ping.min(self.last_received + self.max_silence)
    }

    /// Returns the token of a ping, if one is due.
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

    /// Does not count the delay as silence if this is called a ping interval or more too late. The timeout
    /// that was due then is due now, so that even a process that is always late detects a dead peer.
    fn forgive_lateness(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.poll_timeout(false));
        if late >= self.ping_interval {
            self.last_received += late;
            self.pinged = self.pinged.map(|pinged| pinged + late);
        }
    }
}

/// Bounds a time: a time that means "never" could overflow a clock, and zero would keep the poller awake.
fn clamp(time: Duration) -> Duration {
    time.clamp(MIN_TIME, MAX_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn new(now: Instant) -> Keepalive {
        Keepalive::new(&Config { ping_interval: 10 * S, max_silence: 35 * S, ..Config::default() }, now)
    }

    #[test]
    fn pings_come_when_nothing_else_does() {
        let start = Instant::now();
        let mut keepalive = new(start);
        keepalive.on_received(start);
        let mut pings = Vec::new();
        let error = loop {
            let now = keepalive.poll_timeout(false);
            match keepalive.handle_timeout(now, false) {
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
        let mut keepalive = new(start);
        for second in 1..1000 {
            keepalive.on_received(start + second * S);
            assert!(matches!(keepalive.handle_timeout(start + (second + 1) * S, false), Ok(None)));
        }
    }

    #[test]
    fn time_in_which_this_side_was_stopped_is_no_silence() {
        let start = Instant::now();
        let mut keepalive = new(start);
        keepalive.on_received(start);
        // A ping is sent before it gives up, as if the time had not passed.
        let woken = start + 1000 * S;
        assert!(matches!(keepalive.handle_timeout(woken, false), Ok(Some(1))));
        assert_eq!(keepalive.poll_timeout(false), woken + 10 * S);
        // It gives up in the end, however often this side is stopped.
        let (now, error) = loop {
            let now = keepalive.poll_timeout(false) + 500 * S;
            match keepalive.handle_timeout(now, false) {
                Ok(token) => assert!(token.is_some_and(|token| token <= 3), "{token:?}"),
                Err(error) => break (now, error),
            }
        };
        assert!(matches!(error, Closed::NotAlive { silence, .. } if silence == 35 * S), "{error:?}");
        // A small delay is not a stop.
        let mut keepalive = new(now);
        assert!(matches!(keepalive.handle_timeout(now + 19 * S, false), Ok(Some(1))));
        assert_eq!(keepalive.poll_timeout(false), now + 29 * S);
    }

    #[test]
    fn a_peer_that_never_says_hello_is_given_up() {
        let start = Instant::now();
        let mut keepalive = new(start);
        keepalive.on_received(start + 4 * S);
        let end = keepalive.poll_timeout(true);
        assert!(matches!(keepalive.handle_timeout(end - S, true), Ok(None)));
        assert!(matches!(keepalive.handle_timeout(end, true), Err(Closed::NoHandshake { .. })));
    }

    #[test]
    fn times_that_mean_never_are_allowed() {
        let start = Instant::now();
        let (ping_interval, max_silence) = (Duration::ZERO, Duration::MAX);
        let mut keepalive =
            Keepalive::new(&Config { ping_interval, max_silence, ..Config::default() }, start);
        keepalive.on_received(start);
        assert!(keepalive.poll_timeout(false) > start);
        assert!(matches!(keepalive.handle_timeout(start + S, false), Ok(Some(1))));
        assert!(keepalive.poll_timeout(false) > start + S);
    }
}
