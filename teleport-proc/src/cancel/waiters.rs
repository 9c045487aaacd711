//! A list of wakers for a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Instant;

use crate::cancel::interrupt::park_until;

/// The wakers of all that wait for a change.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Vec<Waker>>);

impl Waiters {
    /// Adds a waker, which the next [`wake`](Waiters::wake) wakes.
    pub(crate) fn add(&self, waker: &Waker) {
        let mut wakers = self.lock();
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Wakes all that wait.
    pub(crate) fn wake(&self) {
        let wakers = std::mem::take(&mut *self.lock());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// **Blocks** until `poll` returns something, or until `deadline`. Each change that makes a difference
    /// to `poll` has to call [`wake`](Waiters::wake).
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut poll: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = poll() {
            return Some(found);
        }
        let waiting = Waiting { waker: Waker::from(Arc::new(Unpark(thread::current()))), waiters: self };
        park_until(deadline, || {
            self.add(&waiting.waker);
            // This has to be after `add`, so that no change is missed.
            poll()
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that waits. Dropping this removes its waker.
struct Waiting<'a> {
    waker: Waker,
    waiters: &'a Waiters,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiters.lock().retain(|waker| !waker.will_wake(&self.waker));
    }
}

/// Wakes a parked thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
