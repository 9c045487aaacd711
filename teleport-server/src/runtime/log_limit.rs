//! A bound on the lines that strangers and failing functions can put into the log.
//!
//! Flow: who wants to log asks [`LogLimit::allows`] first. Past `MAX_LINES` in one window the rest is counted, and the
//! first line of a later window says how many there were, or the end of the server does.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines of one window: enough to see what goes on.
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
    /// Whether one more line may be written now.
    pub(crate) fn allows(&self) -> bool {
        let (allowed, left_out) = self.window.lock().ask(Instant::now());
        tell_left_out(left_out);
        allowed
    }

    /// Tells of the lines that were left out last: the server ends, and no later line does.
    pub(crate) fn finish(&self) {
        let left_out = std::mem::take(&mut self.window.lock().left_out);
        tell_left_out(left_out);
    }
}

fn tell_left_out(left_out: u64) {
    if left_out > 0 {
        tracing::warn!(left_out, "log lines were left out: more than {MAX_LINES} in {WINDOW:?}");
    }
}

impl Window {
    /// Whether one more line may be written, and how many were left out in the window that has just ended.
    fn ask(&mut self, now: Instant) -> (bool, u64) {
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
    fn the_end_tells_of_the_last_lines_once() {
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
            assert_eq!(window.ask(start), (true, 0));
        }
        assert_eq!(window.ask(start), (false, 0));
        assert_eq!(window.ask(start + WINDOW / 2), (false, 0));
        assert_eq!(window.ask(start + WINDOW), (true, 2));
        assert_eq!(window.ask(start + WINDOW * 5 / 2), (true, 0));
    }
}
