//! A thread that sleeps until it is woken, a time is reached, or a socket is readable.
//!
//! It is parked, or sleeps in `poll(2)` on the socket and on an event flag. A waker need not know which.

use std::cell::Cell;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::task::Wake;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU8, Ordering};

use crate::net::socket::Socket;
use crate::sys::EventFlag;

/// The thread is in `poll(2)` or about to enter it.
const POLLS: u8 = 1;
/// The thread was woken since the last `reset`.
const WOKEN: u8 = 2;

/// The two flags of a sleeping thread. They are one word, so that either the thread sees that it was woken,
/// or the waker sees that it polls.
#[derive(Debug)]
pub(super) struct WakeState(AtomicU8);

impl WakeState {
    pub(super) fn new() -> WakeState {
        WakeState(AtomicU8::new(0))
    }

    /// Clears the wake-up. The thread must check its condition afterwards.
    pub(super) fn reset(&self) {
        // Most threads were not woken, since they read their answers themselves.
        if self.0.load(Ordering::SeqCst) & WOKEN != 0 {
            self.0.fetch_and(!WOKEN, Ordering::SeqCst);
        }
    }

    /// Wakes the thread. Returns true if it polls, so that its event flag must be raised.
    pub(super) fn wake(&self) -> bool {
        self.0.fetch_or(WOKEN, Ordering::SeqCst) & POLLS != 0
    }

    /// Returns false if the thread was woken and must not sleep.
    pub(super) fn begin_poll(&self) -> bool {
        self.0.fetch_or(POLLS, Ordering::SeqCst) & WOKEN == 0
    }

    pub(super) fn end_poll(&self) {
        self.0.fetch_and(!POLLS, Ordering::SeqCst);
    }
}

thread_local! {
    /// The sleeper of this thread while it reads.
    static READS: Cell<*const Sleeper> = const { Cell::new(ptr::null()) };
}

/// Returns the time left until `until`, or `None` for no limit.
pub(super) fn left_until(until: Option<Instant>) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(Instant::now()))
}

/// The waker of one thread.
#[derive(Debug)]
pub(super) struct Sleeper {
    thread: Thread,
    /// Ends a sleep in `poll(2)`. Created by the first one; `None` if the process had no descriptor left.
    flag: OnceLock<Option<EventFlag>>,
    pub(super) state: WakeState,
}

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if READS.get() == Arc::as_ptr(self) {
            return;
        }
        // A thread that polls has created its event flag already.
        let flag = if self.state.wake() { self.flag.get() } else { None };
        match flag {
            Some(Some(flag)) => flag.raise(),
            _ => self.thread.unpark(),
        }
    }
}

impl Sleeper {
    /// Makes the sleeper of this thread.
    pub(super) fn new() -> Arc<Sleeper> {
        Arc::new(Sleeper { thread: thread::current(), flag: OnceLock::new(), state: WakeState::new() })
    }

    /// Calls `read` in this thread, which checks its condition afterwards: what it reads need not wake it.
    pub(super) fn without_own_wakes<T>(&self, read: impl FnOnce() -> T) -> T {
        struct Restore(*const Sleeper);
        impl Drop for Restore {
            fn drop(&mut self) {
                READS.set(self.0);
            }
        }
        // A waker may run code that waits and reads in turn.
        let _restore = Restore(READS.replace(ptr::from_ref(self)));
        read()
    }

    /// Returns true if the thread can sleep on a socket: its event flag exists or can be created.
    pub(super) fn can_poll(&self) -> bool {
        self.flag().is_some()
    }

    fn flag(&self) -> Option<&EventFlag> {
        self.flag.get_or_init(|| EventFlag::new().ok()).as_ref()
    }

    /// Sleeps until the thread is woken, `left` is over, or the socket is readable or has failed. Returns
    /// true for the last case.
    pub(super) fn poll(&self, socket: &Socket, left: Option<Duration>) -> bool {
        let Some(flag) = self.flag() else { return false };
        let is_readable = self.state.begin_poll() && flag.wait_with(socket, left);
        self.state.end_poll();
        is_readable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(sleeper: &Sleeper) -> bool {
        let is_woken = !sleeper.state.begin_poll();
        sleeper.state.end_poll();
        sleeper.state.reset();
        is_woken
    }

    #[test]
    fn a_thread_is_not_woken_by_what_it_reads_itself() {
        let [sleeper, inner] = [Sleeper::new(), Sleeper::new()];
        sleeper.without_own_wakes(|| sleeper.wake_by_ref());
        assert!(!is_woken(&sleeper));
        // Another thread does wake it, as does its own thread for the wait around this one.
        sleeper.without_own_wakes(|| thread::scope(|scope| drop(scope.spawn(|| sleeper.wake_by_ref()))));
        assert!(is_woken(&sleeper));
        sleeper.without_own_wakes(|| {
            inner.without_own_wakes(|| sleeper.wake_by_ref());
            assert!(is_woken(&sleeper));
            sleeper.wake_by_ref();
        });
        assert!(!is_woken(&sleeper));
        sleeper.wake_by_ref();
        assert!(is_woken(&sleeper));
    }
}
