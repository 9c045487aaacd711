//! Whether a client fetches its results so slowly that others' rows should not wait beside its own.
//!
//! A result row is a part of the whole batch's result, and keeps all of it alive until it has gone. So a row for a slow reader is
//! copied out. Flow: a row is to be sent -> [`SlowReader::is_slow`] compares what waits with what has gone since the look
//! before. Never waits. Bound: one look.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::Link;

/// What waits is to be gone in this time, at the pace of late; it is also how far looks lie apart.
const PATIENCE: Duration = Duration::from_millis(100);

/// How one client fetches its results.
#[derive(Debug, Default)]
pub(crate) struct SlowReader {
    last: Mutex<Option<Look>>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// Payload that had gone since the connection began.
    sent_bytes: u64,
    /// What was found: it holds until the next look.
    is_slow: bool,
}

impl SlowReader {
    /// Whether what waits on its link will wait for long.
    pub(crate) fn is_slow(&self, link: &Link, now: Instant) -> bool {
        let unsent_bytes = link.queued_bytes();
        let mut last = self.last.lock();
        if unsent_bytes == 0 {
            *last = None;
            return false;
        }
        let look = next(*last, unsent_bytes, link.sent_payload_bytes(), now);
        *last = Some(look);
        look.is_slow
    }
}

fn next(last: Option<Look>, unsent_bytes: u64, sent_bytes: u64, now: Instant) -> Look {
    let Some(last) = last else { return Look { at: now, sent_bytes, is_slow: false } };
    let time = now.saturating_duration_since(last.at);
    // Another connection has taken the place of the one before.
    let Some(moved_bytes) = sent_bytes.checked_sub(last.sent_bytes) else {
        return next(None, 0, sent_bytes, now);
    };
    if time < PATIENCE {
        return last;
    }
    let is_slow = u128::from(unsent_bytes) * time.as_nanos() > u128::from(moved_bytes) * PATIENCE.as_nanos();
    Look { at: now, sent_bytes, is_slow }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fetches_what_waits_soon_is_not_slow() {
        let start = Instant::now();
        let first = next(None, 1 << 20, 0, start);
        assert!(!first.is_slow, "nothing is known yet");
        assert_eq!(next(Some(first), 1 << 20, 5, start + PATIENCE / 2).at, start);
        let fast = next(Some(first), 1 << 20, 2 << 20, start + PATIENCE);
        assert!(!fast.is_slow);
        let slow = next(Some(fast), 1 << 20, (2 << 20) + 1000, start + 2 * PATIENCE);
        assert!(slow.is_slow && next(Some(slow), 1, 3 << 20, start + 2 * PATIENCE).is_slow);
        assert!(!next(Some(slow), 1 << 20, 4 << 20, start + 3 * PATIENCE).is_slow);
        assert!(next(Some(fast), 1, 2 << 20, start + 9 * PATIENCE).is_slow, "nothing goes");
        assert!(!next(Some(slow), 1, 0, start + 9 * PATIENCE).is_slow, "a new connection");
    }
}
