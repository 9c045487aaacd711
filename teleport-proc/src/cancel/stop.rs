//! The flag that a function ends by itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cancel::deadline::deadline;
use crate::cancel::interrupt::{self, Waiters};
use crate::sys;

/// Tells a function that runs in a process or thread of its own whether it is to go on.
///
/// Whoever holds it calls `stop(grace)`; then this turns false, and the function has that time to return. In a thread
/// [`kill`](crate::Thread::kill) turns it false, too. The function may lend it to threads that it starts: all are told.
#[derive(Debug)]
pub struct Stop(Source);

#[derive(Debug)]
enum Source {
    Process {
        /// Readable once it is to stop, or once nobody holds it any more.
        pipe: OwnedFd,
        /// Saves asking the system again.
        stopped: AtomicBool,
    },
    Thread(Arc<StopFlag>),
}

/// That a thread ends, as far as its owner has wished it.
#[derive(Debug, Default)]
pub(crate) struct StopFlag {
    is_set: AtomicBool,
    sleepers: Waiters,
}

impl StopFlag {
    pub(crate) fn set(&self) {
        // Release: what was done before it was told has been done.
        self.is_set.store(true, Ordering::Release);
        self.sleepers.wake();
    }

    fn is_set(&self) -> bool {
        // Acquire: see `set`.
        self.is_set.load(Ordering::Acquire)
    }
}

impl Stop {
    /// That of a process: `pipe` becomes readable.
    pub(crate) fn of_process(pipe: OwnedFd) -> Stop {
        Stop(Source::Process { pipe, stopped: AtomicBool::new(false) })
    }

    /// That of a thread.
    pub(crate) fn of_thread(flag: Arc<StopFlag>) -> Stop {
        Stop(Source::Thread(flag))
    }

    /// Whether to go on. In a process it takes a system call, in a thread none.
    pub fn running(&self) -> bool {
        match &self.0 {
            Source::Process { .. } => self.sleep(Duration::ZERO),
            Source::Thread(flag) => !flag.is_set(),
        }
    }

    /// **Blocks** until `time` is over, or until it is to stop. Says whether to go on.
    pub fn sleep(&self, time: Duration) -> bool {
        match &self.0 {
            Source::Process { pipe, stopped } => {
                // Relaxed: nothing else is passed along with it.
                if stopped.load(Ordering::Relaxed) {
                    return false;
                }
                // What cannot be asked will not be told either: then it is to stop.
                let stop = sys::readable(pipe, deadline(time)).unwrap_or(true);
                if stop {
                    stopped.store(true, Ordering::Relaxed);
                }
                !stop
            }
            Source::Thread(flag) => {
                let told = || flag.is_set().then_some(());
                // A kill tells it, too: the thread is to learn of that here, and to unwind at its next point.
                interrupt::uninterrupted(|| flag.sleepers.wait(deadline(time), told)).is_none()
            }
        }
    }
}
