//! Finds clients that fetch their results so slowly that a row of a batch result should be copied for them.
//!
//! A row is a part of the whole batch's result, and keeps all of it alive until the row is sent. Flow: before
//! a row is sent, [`SlowReader::is_slow`] compares the waiting bytes with those sent since its last sample.
//! Never waits.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::Link;

/// At its latest rate, a client that is not slow fetches all waiting results in this time. Also the time
/// between samples.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// The rate at which one client fetches its results.
#[derive(Debug, Default)]
pub(crate) struct SlowReader {
    last: Mutex<Option<Sample>>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Payload bytes that were sent since the connection began.
    sent_bytes: u64,
    /// The verdict until the next sample.
    is_slow: bool,
}

impl SlowReader {
    /// Returns true if the waiting results of the link will wait for a long time.
    pub(crate) fn is_slow(&self, link: &Link, now: Instant) -> bool {
        let unsent_bytes = link.queued_bytes();
        let mut last = self.last.lock();
        if unsent_bytes == 0 {
            *last = None;
            return false;
        }
        let sample = next(*last, unsent_bytes, link.sent_payload_bytes(), now);
        *last = Some(sample);
        sample.is_slow
    }
}

fn next(last: Option<Sample>, unsent_bytes: u64, sent_bytes: u64, now: Instant) -> Sample {
    let Some(last) = last else { return Sample { at: now, sent_bytes, is_slow: false } };
    let time = now.saturating_duration_since(last.at);
    // The session has a new connection.
    let Some(moved_bytes) = sent_bytes.checked_sub(last.sent_bytes) else {
        return next(None, 0, sent_bytes, now);
    };
    if time < MAX_WAIT {
        return last;
    }
    let is_slow = u128::from(unsent_bytes) * time.as_nanos() > u128::from(moved_bytes) * MAX_WAIT.as_nanos();
    Sample { at: now, sent_bytes, is_slow }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_slow_if_waiting_results_take_too_long() {
        let start = Instant::now();
        let first = next(None, 1 << 20, 0, start);
        assert!(!first.is_slow, "nothing is known yet");
        assert_eq!(next(Some(first), 1 << 20, 5, start + MAX_WAIT / 2).at, start);
        let fast = next(Some(first), 1 << 20, 2 << 20, start + MAX_WAIT);
        assert!(!fast.is_slow);
        let slow = next(Some(fast), 1 << 20, (2 << 20) + 1000, start + 2 * MAX_WAIT);
        assert!(slow.is_slow && next(Some(slow), 1, 3 << 20, start + 2 * MAX_WAIT).is_slow);
        assert!(!next(Some(slow), 1 << 20, 4 << 20, start + 3 * MAX_WAIT).is_slow);
        assert!(next(Some(fast), 1, 2 << 20, start + 9 * MAX_WAIT).is_slow, "nothing goes");
        assert!(!next(Some(slow), 1, 0, start + 9 * MAX_WAIT).is_slow, "a new connection");
    }
}
