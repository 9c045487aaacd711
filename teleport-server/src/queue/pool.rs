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

use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::queue::batch_timers::BatchTimers;
use crate::queue::fair_queue::{FairQueue, Queueable, Queued};
use crate::queue::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, Spin, hand_over};

/// One piece of work for a worker, with its slot in the order of logs if it needs one.
#[derive(Debug)]
pub(crate) enum Work<T: Queueable, P> {
    Call(Arc<T>, T::Arguments, Option<P>),
    /// A batch of the method that has this number in the queue. There may be none any more.
    Batch(usize, Option<P>),
}

/// The calls and batches of one pool, and what its workers run.
///
/// The condition variable is that of `std`, which takes one locked operation to wake a thread.
#[derive(Debug)]
pub(crate) struct Queue<T: Queueable, B = ()> {
    inner: Mutex<Inner<T, B>>,
    /// Something may be taken, or the queue was closed. Notified while a worker sleeps.
    changed: Condvar,
    spin: Spin,
    /// Set to notify the spinning worker. Written under the lock.
    has_news: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Inner<T: Queueable, B> {
    pub(super) calls: FairQueue<T>,
    timers: BatchTimers,
    /// The jobs of workers by their indices, until they take the next ones.
    jobs: Vec<Option<Job<T, B>>>,
    /// Workers that sleep, and notifications for these that have woken none yet. A worker that wakes for
    /// another reason uses one up too, since it looks for work as well.
    sleeping: usize,
    woken: usize,
    /// True if a due batch comes before a call.
    is_turn_of_batches: bool,
    /// True while a worker spins. It takes the lock again before it sleeps.
    is_spinning: bool,
    closed: bool,
}

/// The job of a worker: a call, or the calls of a batch. Weak, so that it can be dropped under the lock.
#[derive(Debug)]
pub(crate) enum Job<T, B> {
    Call(Weak<T>),
    Batch(Weak<B>),
}

impl<T: Queueable, B> Queue<T, B> {
    /// Creates an empty queue. `batched` has an item for each batched method, which is true if its batches
    /// need a slot. A worker spins for `spin` before it sleeps.
    pub(crate) fn new(spin: Duration, batched: &[bool]) -> Queue<T, B> {
        let inner = Inner {
            calls: FairQueue::new(),
            timers: BatchTimers::new(batched),
            jobs: Vec::new(),
            sleeping: 0,
            woken: 0,
            is_turn_of_batches: false,
            is_spinning: false,
            closed: false,
        };
        let (changed, spin, has_news) = (Condvar::new(), Spin::new(spin), AtomicBool::new(false));
        Queue { inner: Mutex::new(inner), changed, spin, has_news }
    }

    /// Locks the queue. A panic under the lock leaves it consistent: the queue calls no code of users.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<T, B>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a call to those of its connection, unless it was withdrawn.
    ///
    /// # Errors
    /// Returns the call if the queue is closed.
    pub(crate) fn push(&self, call: Arc<T>, arguments: T::Arguments) -> Result<(), Arc<T>> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(call);
        }
        // Checked under the lock: a call that is withdrawn after this is found here.
        if !call.is_withdrawn() && inner.calls.push(call, arguments) {
            self.notify_one(inner);
        }
        Ok(())
    }

    /// Sets when the next batch of a method is due, if it has one. Must be called again after each taken
    /// batch.
    pub(crate) fn set_batch_timer(&self, method: usize, due: Option<Instant>) {
        let mut inner = self.lock();
        if inner.timers.set(method, due) {
            self.notify_one(inner);
        }
    }

    fn notify_one(&self, mut inner: MutexGuard<'_, Inner<T, B>>) {
        // The spinning worker takes one piece of work; the next one is for another worker.
        if inner.is_spinning && !self.has_news.load(Ordering::Relaxed) {
            self.has_news.store(true, Ordering::Relaxed);
            return hand_over();
        }
        let wakes = inner.wakes_one();
        drop(inner);
        if wakes {
            self.changed.notify_one();
        }
    }

    fn notify_all(&self, mut inner: MutexGuard<'_, Inner<T, B>>) {
        inner.woken = inner.sleeping;
        drop(inner);
        self.changed.notify_all();
    }

    /// Waits for the next call that may start or batch that is due, for worker `index`, whose last job has
    /// ended. Returns `None` once the queue is closed. `reserve` runs under the queue's lock, so slots are in
    /// the order in which work is taken.
    pub(crate) fn take<P>(&self, index: usize, mut reserve: impl FnMut() -> Option<P>) -> Option<Work<T, P>> {
        let mut inner = self.lock();
        inner.set_job(index, None);
        let mut spun_since = None;
        while !inner.closed {
            if let Some(work) = self.next(&mut inner, &mut reserve) {
                if let Work::Call(call, ..) = &work {
                    inner.set_job(index, Some(Job::Call(Arc::downgrade(call))));
                }
                // Another worker has to wait for the next batch in place of this one.
                let wakes =
                    inner.timers.next_wakeup.is_none() && inner.timers.next().is_some() && inner.wakes_one();
                drop(inner);
                if wakes {
                    self.changed.notify_one();
                }
                if let Some(since) = spun_since {
                    self.spin.woke(since, Instant::now());
                }
                return Some(work);
            }
            if spun_since.is_some() || inner.is_spinning || self.spin.time().is_zero() {
                inner = self.sleep(inner);
            } else {
                (inner, spun_since) = self.spin(inner);
            }
        }
        None
    }

    /// Notes the batch that worker `index` runs.
    pub(crate) fn runs_batch(&self, index: usize, batch: &Arc<B>) {
        self.lock().set_job(index, Some(Job::Batch(Arc::downgrade(batch))));
    }

    /// Returns what a worker runs, and forgets it.
    pub(crate) fn take_job(&self, index: usize) -> Option<Job<T, B>> {
        self.lock().jobs.get_mut(index).and_then(Option::take)
    }

    /// Returns the next call that may start now, for a thread that is no worker.
    pub(crate) fn try_take(&self) -> Option<Queued<T>> {
        let taken = self.lock().calls.next(&mut || None::<()>);
        taken.map(|taken| (taken.call, taken.arguments))
    }

    fn next<P>(
        &self,
        inner: &mut Inner<T, B>,
        reserve: &mut impl FnMut() -> Option<P>,
    ) -> Option<Work<T, P>> {
        let is_batch_first = std::mem::replace(&mut inner.is_turn_of_batches, false);
        if is_batch_first && let Some((method, slot)) = inner.timers.take(&mut *reserve) {
            return Some(Work::Batch(method, slot));
        }
        if let Some(taken) = inner.calls.next(reserve) {
            inner.is_turn_of_batches = true;
            // This worker was woken for a call that still waits.
            if taken.was_aside && inner.calls.has_turns() && inner.wakes_one() {
                self.changed.notify_one();
            }
            return Some(Work::Call(taken.call, taken.arguments, taken.slot));
        }
        let (method, slot) = inner.timers.take(reserve)?;
        Some(Work::Batch(method, slot))
    }

    /// Sleeps until something changes, or until the next batch is due unless another worker wakes up for it.
    fn sleep<'a>(&'a self, mut inner: MutexGuard<'a, Inner<T, B>>) -> MutexGuard<'a, Inner<T, B>> {
        inner.sleeping += 1;
        let next = inner.timers.next();
        let due = next.filter(|due| inner.timers.next_wakeup.is_none_or(|wakeup| *due < wakeup));
        let mut inner = match due {
            None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            Some(due) => {
                inner.timers.next_wakeup = Some(due);
                let left = due.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        inner.sleeping -= 1;
        inner.woken = inner.woken.saturating_sub(1);
        // Another worker may have set an earlier one.
        if due.is_some() && inner.timers.next_wakeup == due {
            inner.timers.next_wakeup = None;
        }
        inner
    }

    /// Spins until there is news. Returns the time at which it began if nothing changes while it may spin.
    fn spin<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner<T, B>>,
    ) -> (MutexGuard<'a, Inner<T, B>>, Option<Instant>) {
        inner.is_spinning = true;
        self.has_news.store(false, Ordering::Relaxed);
        let due = inner.timers.next();
        drop(inner);
        let has_news = |now| due.is_some_and(|due| due <= now) || self.has_news.load(Ordering::Relaxed);
        let found = self.spin.find(None, |now| has_news(now).then_some(()));
        let mut inner = self.lock();
        inner.is_spinning = false;
        (inner, found.err())
    }

    /// Wakes workers if any call or batch waits for a slot, since one may be free now.
    pub(crate) fn slots_freed(&self) {
        // Under the lock, so that a worker that has just found no slot sleeps before it is woken.
        let mut inner = self.lock();
        if inner.timers.unblock() || inner.calls.has_blocked() {
            self.notify_all(inner);
        }
    }

    /// Releases the calls that are throttled by `key`.
    pub(crate) fn release(&self, key: usize) {
        let mut inner = self.lock();
        if inner.calls.release(key) {
            self.notify_all(inner);
        }
    }

    /// Removes a call that was withdrawn. Returns `None` if it is not queued.
    pub(crate) fn remove(&self, call: &T) -> Option<Queued<T>> {
        self.lock().calls.remove(call)
    }

    /// Removes the calls whose deadline is `now` or earlier, and returns them with the earliest deadline of
    /// the others. Visits every call.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<Queued<T>>, Option<Instant>) {
        let mut inner = self.lock();
        let late = inner.calls.remove_if(|call| call.deadline().is_some_and(|deadline| deadline <= now));
        let next = inner.calls.calls().filter_map(|call| call.deadline()).min();
        (late, next)
    }

    /// Makes all calls of `take` return, and returns the calls that no worker took.
    pub(crate) fn close(&self) -> Vec<Queued<T>> {
        let mut inner = self.lock();
        inner.closed = true;
        let left = inner.calls.drain();
        self.notify_all(inner);
        left
    }

    /// Returns how many calls wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().calls.len()
    }
}

impl<T: Queueable, B> Inner<T, B> {
    fn set_job(&mut self, index: usize, job: Option<Job<T, B>>) {
        if index >= self.jobs.len() {
            self.jobs.resize_with(index + 1, || None);
        }
        self.jobs[index] = job;
    }

    /// Returns true if a worker sleeps that nobody wakes. The caller notifies it.
    fn wakes_one(&mut self) -> bool {
        let wakes = self.sleeping > self.woken;
        self.woken += usize::from(wakes);
        wakes
    }
}
