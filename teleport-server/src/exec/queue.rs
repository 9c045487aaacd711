//! What waits for a worker of one pool: calls, those of each connection in the order in which they came, and the connections
//! in turn, so that nobody's calls wait behind all that another has sent; and batches, which take turns with them.
//!
//! Flow: `push` (from pollers) -> `take` (workers, who wait here while there is nothing) -> the worker runs it. One of those who
//! wait looks for a moment before it sleeps, since to be woken takes longer than most calls. Some calls
//! need a place before they may start (logged ones); while there is none they are set aside, others of their connection go
//! past them, and they start in their order. Calls that are withdrawn meanwhile leave at once, wherever they stand, and
//! those whose time is over when the supervisor looks. Of batches only the time is known here at which the next one of each
//! method is due: `post` says it, and who takes a batch asks the method for its calls.
//! Bound: at most as many as all clients have open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use teleport_transport::Spin;

use crate::exec::batch_timers::BatchTimers;
use crate::exec::fair_queue::{FairQueue, Waiting};

/// What a worker is given to do, with its place in the order of logs if it needs one.
#[derive(Debug)]
pub(crate) enum Work<T, P> {
    Call(Arc<T>, Option<P>),
    /// A batch of the method that has this number in the queue, if it still has one.
    Batch(usize, Option<P>),
}

/// A queue of calls and batches.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    pub(super) state: Mutex<State<T>>,
    /// Something may be taken, or the queue was closed.
    changed: Condvar,
    spin: Spin,
    /// For the worker that looks: something may be taken. Written under the lock.
    news: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State<T> {
    pub(super) fair: FairQueue<T>,
    timers: BatchTimers,
    /// Whether a batch that is due comes before a call.
    is_turn_of_batches: bool,
    /// A worker looks for news. It takes the lock again before it sleeps.
    is_looked_at: bool,
    closed: bool,
}

impl<T: Waiting> Queue<T> {
    /// An empty queue, at which a worker looks for so long before it sleeps, for calls and for batches of as many methods as
    /// there are in `batched`, each of which says whether they need a place.
    pub(crate) fn new(spin: Duration, batched: &[bool]) -> Queue<T> {
        let state = State {
            fair: FairQueue::new(),
            timers: BatchTimers::new(batched),
            is_turn_of_batches: false,
            is_looked_at: false,
            closed: false,
        };
        let (changed, spin, news) = (Condvar::new(), Spin::new(spin), AtomicBool::new(false));
        Queue { state: Mutex::new(state), changed, spin, news }
    }

    /// Adds a call, unless it was withdrawn; gives it back if the queue is closed.
    pub(crate) fn push(&self, call: Arc<T>) -> Result<(), Arc<T>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(call);
        }
        // Asked under the lock: who withdraws it later finds it here.
        if !call.is_alive() {
            return Ok(());
        }
        state.fair.push(call);
        self.tell_one(state);
        Ok(())
    }

    /// The next batch of a method is due at that time; none if it has none. Told again after each batch that was taken.
    pub(crate) fn post(&self, method: usize, due: Option<Instant>) {
        let mut state = self.state.lock();
        if state.timers.set(method, due) {
            self.tell_one(state);
        }
    }

    /// There is something that nobody looks for.
    fn tell_one(&self, state: MutexGuard<'_, State<T>>) {
        // Who looks takes one thing; the next one is another worker's.
        let is_seen = state.is_looked_at && !self.news.swap(true, Ordering::Relaxed);
        drop(state);
        if !is_seen {
            self.changed.notify_one();
        }
    }

    /// Puts calls, in their order, before all that wait of their connection; gives them back if the queue is closed.
    pub(crate) fn push_first(&self, calls: Vec<Arc<T>>) -> Result<(), Vec<Arc<T>>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(calls);
        }
        let alive = calls.into_iter().rev().filter(|call| call.is_alive());
        alive.for_each(|call| state.fair.push_first(call));
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for the next call that may start or batch that is due, and gives it with its place if it needs one; none once the
    /// queue is closed. `reserve` runs under the queue's lock, so places are in the order in which work is taken.
    pub(crate) fn take<P>(&self, mut reserve: impl FnMut() -> Option<P>) -> Option<Work<T, P>> {
        let mut state = self.state.lock();
        let mut since = None;
        loop {
            if state.closed {
                return None;
            }
            if let Some(work) = self.next(&mut state, &mut reserve) {
                // Who leaves no longer waits for what is due later.
                if state.timers.alarm.is_none() && state.timers.next().is_some() {
                    self.changed.notify_one();
                }
                if let Some(since) = since {
                    self.spin.woke(since);
                }
                return Some(work);
            }
            if since.is_some() || state.is_looked_at {
                self.sleep(&mut state);
            } else {
                since = self.look(&mut state).err();
            }
        }
    }

    /// What is to be done now, if there is anything.
    fn next<P>(&self, state: &mut State<T>, reserve: &mut impl FnMut() -> Option<P>) -> Option<Work<T, P>> {
        let is_batch_first = std::mem::replace(&mut state.is_turn_of_batches, false);
        if is_batch_first && let Some((method, place)) = state.timers.take(&mut *reserve) {
            return Some(Work::Batch(method, place));
        }
        if let Some(taken) = state.fair.next(reserve) {
            state.is_turn_of_batches = true;
            // Whoever was woken for what waits has taken what was set aside instead.
            if taken.was_aside && state.fair.has_turns() {
                self.changed.notify_one();
            }
            return Some(Work::Call(taken.call, taken.place));
        }
        let (method, place) = state.timers.take(reserve)?;
        Some(Work::Batch(method, place))
    }

    /// Sleeps until there is something, or a batch is due that nobody else sleeps for.
    fn sleep(&self, state: &mut MutexGuard<'_, State<T>>) {
        match state.timers.next() {
            Some(due) if state.timers.alarm.is_none_or(|alarm| due < alarm) => {
                state.timers.alarm = Some(due);
                self.changed.wait_until(state, due);
                // Another may have set an earlier one.
                if state.timers.alarm == Some(due) {
                    state.timers.alarm = None;
                }
            }
            _ => self.changed.wait(state),
        }
    }

    /// Looks for news for a moment; gives when it began if there are none.
    fn look(&self, state: &mut MutexGuard<'_, State<T>>) -> Result<(), Instant> {
        state.is_looked_at = true;
        self.news.store(false, Ordering::Relaxed);
        let due = state.timers.next();
        let has_come = |now| due.is_some_and(|due| due <= now) || self.news.load(Ordering::Relaxed);
        let found = MutexGuard::unlocked(state, || self.spin.find(None, |now| has_come(now).then_some(())));
        state.is_looked_at = false;
        found
    }

    /// There may be a place now.
    pub(crate) fn try_again(&self) {
        // Under the lock, so that workers which have just found none wait before they are woken.
        let mut state = self.state.lock();
        if state.timers.unblock() || state.fair.has_aside() {
            self.changed.notify_all();
        }
    }

    /// Takes out a call that was withdrawn, if it is here.
    pub(crate) fn remove(&self, call: &T) -> bool {
        self.state.lock().fair.remove(call)
    }

    /// Takes out the calls whose time is over at `now`, and gives the earliest deadline of the rest. Looks at every call.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<Arc<T>>, Option<Instant>) {
        let mut state = self.state.lock();
        let late = state.fair.remove_if(|call| call.deadline().is_some_and(|deadline| deadline <= now));
        (late, state.fair.all().filter_map(Waiting::deadline).min())
    }

    /// Lets all workers go, and gives what they did not take.
    pub(crate) fn close(&self) -> Vec<Arc<T>> {
        let mut state = self.state.lock();
        state.closed = true;
        let left = state.fair.drain();
        drop(state);
        self.changed.notify_all();
        left
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().fair.len()
    }
}
