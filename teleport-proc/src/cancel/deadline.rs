//! The end of a time that a user gives. A time that no clock reaches, as `Duration::MAX`, never ends.

use std::time::{Duration, Instant};

/// Returns the end of `time` from now on, or `None` if it never ends.
pub(crate) fn deadline(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

/// Returns the same as [`deadline`], but a moment in a century instead of never.
pub(crate) fn moment(time: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    deadline(time).unwrap_or_else(|| Instant::now() + CENTURY)
}
