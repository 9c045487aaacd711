//! The request that a function returns.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cancel::deadline::deadline;
use crate::cancel::interrupt::uninterrupted;
use crate::cancel::waiters::Waiters;
use crate::sys;

/// Tells a function of a process or thread whether to continue.
///
/// The owner of the process or thread calls `stop(grace)`. Then [`running`](Stop::running) returns false,
/// and the function has the grace to return. In a thread, [`kill`](crate::Thread::kill) has the same effect.
/// The function may share this with threads that it starts.
#[derive(Debug)]
pub struct Stop(Source);

#[derive(Debug)]
enum Source {
    Process {
        /// Is readable once the owner asks for the stop, or is gone.
        pipe: OwnedFd,
        /// Saves a system call once the pipe was readable.
        stopped: AtomicBool,
    },
    Thread(Arc<StopFlag>),
}

/// The request that a thread stops, shared by the thread and its owner.
#[derive(Debug, Default)]
pub(crate) struct StopFlag {
    is_set: AtomicBool,
    waiters: Waiters,
}

impl StopFlag {
    pub(crate) fn set(&self) {
        // Release: pairs with the load in `is_set`.
        self.is_set.store(true, Ordering::Release);
        self.waiters.wake();
    }

    fn is_set(&self) -> bool {
        // Acquire: the thread sees all that its owner did before `set`.
        self.is_set.load(Ordering::Acquire)
    }
}

impl Stop {
    /// Makes the `Stop` of a process. It stops when `pipe` becomes readable.
    pub(crate) fn of_process(pipe: OwnedFd) -> Stop {
        Stop(Source::Process { pipe, stopped: Default::default() })
    }

    /// Makes the `Stop` of a thread.
    pub(crate) fn of_thread(flag: Arc<StopFlag>) -> Stop {
        Stop(Source::Thread(flag))
    }

    /// Returns whether to continue. This takes a system call in a process and none in a thread.
    pub fn running(&self) -> bool {
        match &self.0 {
            Source::Process { .. } => self.sleep(Duration::ZERO),
            Source::Thread(flag) => !flag.is_set(),
        }
    }

    /// **Blocks** for `time`, or until the function should stop. Returns whether to continue.
    pub fn sleep(&self, time: Duration) -> bool {
        match &self.0 {
            Source::Process { pipe, stopped } => {
                // Relaxed: no other memory depends on it.
                if stopped.load(Ordering::Relaxed) {
                    return false;
                }
                // A pipe that cannot be read will never bring the request, so the function stops now.
                let stop = sys::readable(pipe, deadline(time)).unwrap_or(true);
                if stop {
                    stopped.store(true, Ordering::Relaxed);
                }
                !stop
            }
            Source::Thread(flag) => {
                let is_set = || flag.is_set().then_some(());
                // A kill sets the flag, too. The thread then unwinds at its next cancellation point.
                uninterrupted(|| flag.waiters.wait(deadline(time), is_set)).is_none()
            }
        }
    }
}
