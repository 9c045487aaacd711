//! Whether and when what has ended is started again.

use std::time::Duration;

/// What a [`Group`](crate::Group) does when one of its members has ended.
///
/// `limit` is how often it is started again in all. Once that is used up, its failure is the group's; one that ends well has
/// ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Leaves it.
    #[default]
    Never,
    /// Starts it again if it failed.
    OnFailure {
        /// So often at most.
        limit: u32,
    },
    /// Starts it again, however it ended.
    Always {
        /// So often at most.
        limit: u32,
    },
}

impl Restart {
    /// Whether to start it once more that was started `restarts` times again.
    pub(crate) fn wants(self, failed: bool, restarts: u32) -> bool {
        match self {
            Restart::Never => false,
            Restart::OnFailure { limit } => failed && restarts < limit,
            Restart::Always { limit } => restarts < limit,
        }
    }
}

/// How long to wait before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// Before the first time, the second, …
    pub(crate) fn before(self, restart: u32) -> Duration {
        let factor = 1u32.checked_shl(restart).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_all_restarts() {
        assert!(!Restart::Never.wants(true, 0));
        let policy = Restart::OnFailure { limit: 2 };
        assert!(policy.wants(true, 1) && !policy.wants(false, 1) && !policy.wants(true, 2));
        let policy = Restart::Always { limit: 2 };
        assert!(policy.wants(true, 1) && policy.wants(false, 1) && !policy.wants(false, 2));
    }

    #[test]
    fn waits_double_up_to_a_bound() {
        let backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_millis(50) };
        let waits: Vec<_> = [0, 1, 2, 3, 40, u32::MAX].map(|n| backoff.before(n).as_millis()).into();
        assert_eq!(waits, [10, 20, 40, 50, 50, 50]);
    }
}
