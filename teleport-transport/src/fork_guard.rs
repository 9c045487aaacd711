//! Detects forked children: a child has copies of its parent's locks and sockets, but none of its threads.
//!
//! Check for a fork before taking a lock (its holder may not exist in the child), before waiting for a
//! thread, and before using a socket. A check is one load: the process id is cached in memory that the kernel
//! clears in a child.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// Remembers the process in which it was created.
///
/// ```
/// use teleport_transport::ForkGuard;
///
/// let guard = ForkGuard::current();
/// assert!(guard.is_current()); // false in a process that is forked from this one
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkGuard(u32);

impl ForkGuard {
    /// Returns a guard of this process.
    pub fn current() -> ForkGuard {
        ForkGuard(current_process())
    }

    /// Returns a guard as a forked child sees its parent's.
    #[cfg(test)]
    pub(crate) fn elsewhere() -> ForkGuard {
        ForkGuard(u32::MAX)
    }

    /// Returns true in the process that created the guard, and false in its forked children. Never blocks.
    #[inline]
    pub fn is_current(self) -> bool {
        number().load(Ordering::Relaxed) == self.0 || current_process() == self.0
    }
}

impl Default for ForkGuard {
    fn default() -> ForkGuard {
        ForkGuard::current()
    }
}

/// Returns the error for the use of a parent's resource in a forked child.
pub(crate) fn wrong_process() -> std::io::Error {
    std::io::Error::other("it belongs to the process from which this one was forked")
}

/// Stands in if the system cannot clear memory in a child. Always 0.
static UNKNOWN: AtomicU32 = AtomicU32::new(0);

/// Returns the process id in memory that is cleared in a child, or 0 if nobody has stored it yet.
#[inline]
fn number() -> &'static AtomicU32 {
    static NUMBER: OnceLock<&AtomicU32> = OnceLock::new();
    NUMBER.get_or_init(|| sys::number_cleared_by_fork().unwrap_or(&UNKNOWN))
}

#[cold]
#[inline(never)]
fn current_process() -> u32 {
    let own = std::process::id();
    let number = number();
    if !std::ptr::eq(number, &UNKNOWN) {
        // Relaxed: it publishes no other data, and all threads write the same value.
        number.store(own, Ordering::Relaxed);
    }
    own
}
