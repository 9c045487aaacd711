//! The settings of a process or thread, and when a group restarts it.

use std::time::Duration;

/// Decides when a [`Group`](crate::Group) restarts a member that has ended.
///
/// Once the `limit` is used up, a failure of the member ends the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    Never,
    /// After a failure.
    OnFailure {
        /// The maximum number of restarts.
        limit: u32,
    },
    /// After a failure, and also when it has ended well.
    Always {
        /// The maximum number of restarts.
        limit: u32,
    },
}

impl Restart {
    /// Returns whether to start a member again that was restarted `restarts` times.
    pub(crate) fn wants(self, failed: bool, restarts: u32) -> bool {
        match self {
            Restart::Never => false,
            Restart::OnFailure { limit } => failed && restarts < limit,
            Restart::Always { limit } => restarts < limit,
        }
    }
}

/// The pauses before restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) max: Duration,
}

impl Backoff {
    /// Returns the pause before a restart. The first one is number 0.
    pub(crate) fn before(self, restart: u32) -> Duration {
        let factor = 1u32.checked_shl(restart).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }
}

/// The settings of a process or thread.
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) initializers: Vec<fn()>,
    pub(crate) grace: Duration,
    pub(crate) restart: Restart,
    pub(crate) backoff: Backoff,
}

impl Settings {
    pub(crate) fn new(name: String) -> Settings {
        Settings {
            name,
            initializers: Vec::new(),
            grace: Duration::from_secs(5),
            restart: Restart::Never,
            backoff: Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_all_restarts() {
        assert!(!Restart::Never.wants(true, 0));
        let policy = Restart::OnFailure { limit: 2 };
        assert!(policy.wants(true, 1) && !policy.wants(false, 1) && !policy.wants(true, 2));
        let policy = Restart::Always { limit: 2 };
        assert!(policy.wants(true, 1) && policy.wants(false, 1) && !policy.wants(false, 2));
    }

    #[test]
    fn pauses_double_up_to_a_maximum() {
        let backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_millis(50) };
        let pauses: Vec<_> = [0, 1, 2, 3, 40, u32::MAX].map(|n| backoff.before(n).as_millis()).into();
        assert_eq!(pauses, [10, 20, 40, 50, 50, 50]);
    }
}
