//! When a time that a user gives is over. Any time will do: one that no clock comes to, as `Duration::MAX`, is for ever.

use std::time::{Duration, Instant};

/// When `time` from now is over, as waits take it: none is never.
pub(crate) fn deadline(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

/// The same where a moment must be named: instead of never, one that no process lives to see.
pub(crate) fn moment(time: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    deadline(time).unwrap_or_else(|| Instant::now() + CENTURY)
}
