//! Which process something lives in: a process that `fork` copied has every lock and socket of its parent, and none of its threads.
//!
//! Whoever would wait for such a thread, take a lock that it may hold, or write to the parent's sockets asks first. Costs one
//! load: the number of the process stands in memory that the kernel clears in a copy.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// The process in which it was made.
///
/// ```
/// use teleport_transport::ForkGuard;
///
/// let guard = ForkGuard::current();
/// assert!(guard.is_current()); // and not in a process that is forked from this one
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkGuard(u32);

impl ForkGuard {
    /// This process.
    pub fn current() -> ForkGuard {
        ForkGuard(process())
    }

    /// A process that was forked from another sees what came from there so.
    #[cfg(test)]
    pub(crate) fn elsewhere() -> ForkGuard {
        ForkGuard(0)
    }

    /// Whether it is this process. Never blocks.
    pub fn is_current(self) -> bool {
        self.0 == process()
    }
}

impl Default for ForkGuard {
    fn default() -> ForkGuard {
        ForkGuard::current()
    }
}

/// What is wrong where a copy of a process uses what is not its own.
pub(crate) fn wrong_process() -> std::io::Error {
    std::io::Error::other("it belongs to the process that this one was forked from")
}

fn process() -> u32 {
    static NUMBER: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
    let Some(number) = NUMBER.get_or_init(sys::number_cleared_by_fork) else { return std::process::id() };
    // Relaxed: nothing else is passed along with it, and all write the same.
    match number.load(Ordering::Relaxed) {
        0 => {
            let own = std::process::id();
            number.store(own, Ordering::Relaxed);
            own
        }
        own => own,
    }
}
