//! The queue of one pool of workers: calls, in the order of [`FairQueue`], and due batches, which take turns
//! with the calls.
//!
//! Flow: `push` (by pollers) -> `take` (by workers, which wait here) -> the worker runs the call. One of the
//! waiting workers spins for a moment before it sleeps, since waking a thread takes longer than most calls.
//! Of batches only the times are known here: `set_batch_timer` sets when a method's next batch is due, and
//! the worker that takes it gets the calls from the method. Withdrawn calls are removed at once, and late
//! ones when the supervisor calls `expire`.
//!
//! Bound: the open calls of all clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use teleport_transport::Spin;

use crate::queue::batch_timers::BatchTimers;
use crate::queue::fair_queue::{FairQueue, Queueable};

/// One piece of work for a worker, with its slot in the order of logs if it needs one.
#[derive(Debug)]
pub(crate) enum Work<T, P> {
    Call(Arc<T>, Option<P>),
    /// A batch of the method that has this number in the queue. There may be none any more.
    Batch(usize, Option<P>),
}

/// The calls and batches of one pool.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    pub(super) inner: Mutex<Inner<T>>,
    /// Something may be taken, or the queue was closed.
    changed: Condvar,
    spin: Spin,
    /// Set to notify the spinning worker. Written under the lock.
    has_news: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Inner<T> {
    pub(super) calls: FairQueue<T>,
    timers: BatchTimers,
    /// True if a due batch comes before a call.
    is_turn_of_batches: bool,
    /// True while a worker spins. It takes the lock again before it sleeps.
    is_spinning: bool,
    closed: bool,
}

impl<T: Queueable> Queue<T> {
    /// Creates an empty queue. `batched` has an item for each batched method, which is true if its batches
    /// need a slot. A worker spins for `spin` before it sleeps.
    pub(crate) fn new(spin: Duration, batched: &[bool]) -> Queue<T> {
        let inner = Inner {
            calls: FairQueue::new(),
            timers: BatchTimers::new(batched),
            is_turn_of_batches: false,
            is_spinning: false,
            closed: false,
        };
        let (changed, spin, has_news) = (Condvar::new(), Spin::new(spin), AtomicBool::new(false));
        Queue { inner: Mutex::new(inner), changed, spin, has_news }
    }

    /// Appends a call to those of its connection, unless it was withdrawn.
    ///
    /// # Errors
    /// Returns the call if the queue is closed.
    pub(crate) fn push(&self, call: Arc<T>) -> Result<(), Arc<T>> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(call);
        }
        // Checked under the lock: a call that is withdrawn after this is found here.
        if !call.is_alive() {
            return Ok(());
        }
        if inner.calls.push(call) {
            self.notify_one(inner);
        }
        Ok(())
    }

    /// Sets when the next batch of a method is due, if it has one. Must be called again after each taken
    /// batch.
    pub(crate) fn set_batch_timer(&self, method: usize, due: Option<Instant>) {
        let mut inner = self.inner.lock();
        if inner.timers.set(method, due) {
            self.notify_one(inner);
        }
    }

    fn notify_one(&self, inner: MutexGuard<'_, Inner<T>>) {
        // The spinning worker takes one piece of work; the next one is for another worker.
        let is_seen = inner.is_spinning && !self.has_news.swap(true, Ordering::Relaxed);
        drop(inner);
        if !is_seen {
            self.changed.notify_one();
        }
    }

    /// Waits for the next call that may start or batch that is due. Returns `None` once the queue is closed.
    /// `reserve` runs under the queue's lock, so slots are in the order in which work is taken.
    pub(crate) fn take<P>(&self, mut reserve: impl FnMut() -> Option<P>) -> Option<Work<T, P>> {
        let mut inner = self.inner.lock();
        let mut spun_since = None;
        while !inner.closed {
            if let Some(work) = self.next(&mut inner, &mut reserve) {
                // Another worker has to wait for the next batch in place of this one.
                if inner.timers.next_wakeup.is_none() && inner.timers.next().is_some() {
                    self.changed.notify_one();
                }
                unlock(inner);
                if let Some(since) = spun_since {
                    self.spin.woke(since, Instant::now());
                }
                return Some(work);
            }
            if spun_since.is_some() || inner.is_spinning {
                self.sleep(&mut inner);
            } else {
                spun_since = self.spin(&mut inner).err();
            }
        }
        None
    }

    /// Returns the next call that may start now.
    pub(crate) fn try_take(&self) -> Option<Arc<T>> {
        let mut inner = self.inner.lock();
        let taken = inner.calls.next(&mut || None::<()>);
        unlock(inner);
        taken.map(|taken| taken.call)
    }

    fn next<P>(&self, inner: &mut Inner<T>, reserve: &mut impl FnMut() -> Option<P>) -> Option<Work<T, P>> {
        let is_batch_first = std::mem::replace(&mut inner.is_turn_of_batches, false);
        if is_batch_first && let Some((method, slot)) = inner.timers.take(&mut *reserve) {
            return Some(Work::Batch(method, slot));
        }
        if let Some(taken) = inner.calls.next(reserve) {
            inner.is_turn_of_batches = true;
            // This worker was woken for a call that still waits.
            if taken.was_aside && inner.calls.has_turns() {
                self.changed.notify_one();
            }
            return Some(Work::Call(taken.call, taken.slot));
        }
        let (method, slot) = inner.timers.take(reserve)?;
        Some(Work::Batch(method, slot))
    }

    /// Sleeps until something changes, or until the next batch is due unless another worker wakes up for it.
    fn sleep(&self, inner: &mut MutexGuard<'_, Inner<T>>) {
        match inner.timers.next() {
            Some(due) if inner.timers.next_wakeup.is_none_or(|wakeup| due < wakeup) => {
                inner.timers.next_wakeup = Some(due);
                self.changed.wait_until(inner, due);
                // Another worker may have set an earlier one.
                if inner.timers.next_wakeup == Some(due) {
                    inner.timers.next_wakeup = None;
                }
            }
            _ => self.changed.wait(inner),
        }
    }

    /// Spins until there is news.
    ///
    /// # Errors
    /// Returns the time at which it began if nothing changes while it may spin.
    fn spin(&self, inner: &mut MutexGuard<'_, Inner<T>>) -> Result<(), Instant> {
        inner.is_spinning = true;
        self.has_news.store(false, Ordering::Relaxed);
        let due = inner.timers.next();
        let has_news = |now| due.is_some_and(|due| due <= now) || self.has_news.load(Ordering::Relaxed);
        let found = MutexGuard::unlocked(inner, || self.spin.find(None, |now| has_news(now).then_some(())));
        inner.is_spinning = false;
        found
    }

    /// Wakes workers if any call or batch waits for a slot, since one may be free now.
    pub(crate) fn slots_freed(&self) {
        // Under the lock, so that a worker that has just found no slot sleeps before it is woken.
        let mut inner = self.inner.lock();
        if inner.timers.unblock() || inner.calls.has_blocked() {
            self.changed.notify_all();
        }
    }

    /// Releases the calls that are throttled by `key`.
    pub(crate) fn release(&self, key: usize) {
        if self.inner.lock().calls.release(key) {
            self.changed.notify_all();
        }
    }

    /// Removes a call that was withdrawn. Returns false if it is not queued.
    pub(crate) fn remove(&self, call: &T) -> bool {
        let mut inner = self.inner.lock();
        let was_queued = inner.calls.remove(call);
        unlock(inner);
        was_queued
    }

    /// Removes the calls whose deadline is `now` or earlier, and returns them with the earliest deadline of
    /// the others. Visits every call.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<Arc<T>>, Option<Instant>) {
        let mut inner = self.inner.lock();
        let late = inner.calls.remove_if(|call| call.deadline().is_some_and(|deadline| deadline <= now));
        let next = inner.calls.calls().filter_map(|call| call.deadline()).min();
        unlock(inner);
        (late, next)
    }

    /// Makes all calls of `take` return, and returns the calls that no worker took.
    pub(crate) fn close(&self) -> Vec<Arc<T>> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let left = inner.calls.drain();
        unlock(inner);
        self.changed.notify_all();
        left
    }

    /// Returns how many calls wait.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().calls.len()
    }
}

/// Drops removed calls without the lock: they may own the last reference to other state.
fn unlock<T: Queueable>(mut inner: MutexGuard<'_, Inner<T>>) {
    let removed = inner.calls.take_removed();
    drop(inner);
    drop(removed);
}
