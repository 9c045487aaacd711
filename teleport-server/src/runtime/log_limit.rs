//! A bound on the log lines that clients and failing functions can cause.
//!
//! Flow: [`LogLimit::allows`] before each line. Lines past `MAX_LINES` in one window are counted, and their
//! number is logged in the next window, or when the server ends.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The lines of one window: enough to see what happens.
const MAX_LINES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    start: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    /// Returns true if one more line may be written now.
    pub(crate) fn allows(&self) -> bool {
        let (allowed, left_out) = self.window.lock().count(Instant::now());
        log_left_out(left_out);
        allowed
    }

    /// Logs how many lines were last left out, because the server ends.
    pub(crate) fn finish(&self) {
        let left_out = std::mem::take(&mut self.window.lock().left_out);
        log_left_out(left_out);
    }
}

fn log_left_out(left_out: u64) {
    if left_out > 0 {
        tracing::warn!(left_out, "log lines were left out: more than {MAX_LINES} in {WINDOW:?}");
    }
}

impl Window {
    /// Counts a line. Returns whether it may be written, and how many were left out in a window that has
    /// just ended.
    fn count(&mut self, now: Instant) -> (bool, u64) {
        let mut left_out = 0;
        if self.start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            left_out = self.left_out;
            *self = Window { start: Some(now), lines: 0, left_out: 0 };
        }
        let allowed = self.lines < MAX_LINES;
        if allowed {
            self.lines += 1;
        } else {
            self.left_out += 1;
        }
        (allowed, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_reported_once() {
        let limit = LogLimit::default();
        let allowed = (0..MAX_LINES + 2).filter(|_| limit.allows()).count();
        assert_eq!(allowed as u32, MAX_LINES);
        assert_eq!(limit.window.lock().left_out, 2);
        limit.finish();
        assert_eq!(limit.window.lock().left_out, 0);
    }

    #[test]
    fn lines_are_bounded_and_counted() {
        let (start, mut window) = (Instant::now(), Window::default());
        for _ in 0..MAX_LINES {
            assert_eq!(window.count(start), (true, 0));
        }
        assert_eq!(window.count(start), (false, 0));
        assert_eq!(window.count(start + WINDOW / 2), (false, 0));
        assert_eq!(window.count(start + WINDOW), (true, 2));
        assert_eq!(window.count(start + WINDOW * 5 / 2), (true, 0));
    }
}
