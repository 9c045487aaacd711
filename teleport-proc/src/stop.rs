//! The wish that a function ends by itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::deadline::deadline;
use crate::interrupt;
use crate::sys;

/// Tells a function that runs in a process or thread of its own whether it is to go on.
///
/// Whoever holds the process calls `stop(grace)`; then this turns false, and the function has that time to return.
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
    /// The flag that turns true; who does so unparks the thread.
    Thread(Arc<AtomicBool>),
}

impl Stop {
    /// That of a process: `pipe` becomes readable.
    pub(crate) fn of_process(pipe: OwnedFd) -> Stop {
        Stop(Source::Process { pipe, stopped: AtomicBool::new(false) })
    }

    /// That of a thread, which is unparked when `stopped` turns true.
    pub(crate) fn of_thread(stopped: Arc<AtomicBool>) -> Stop {
        Stop(Source::Thread(stopped))
    }

    /// Whether to go on. In a process it takes a system call, in a thread none.
    pub fn running(&self) -> bool {
        self.sleep(Duration::ZERO)
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
            Source::Thread(stopped) => {
                let deadline = deadline(time);
                loop {
                    // Acquire: what was done before it was told has been done. A thread that is killed is to stop, too.
                    if stopped.load(Ordering::Acquire) || interrupt::is_killed() {
                        return false;
                    }
                    match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                        None => std::thread::park(),
                        Some(Duration::ZERO) => return true,
                        Some(left) => std::thread::park_timeout(left),
                    }
                }
            }
        }
    }
}
