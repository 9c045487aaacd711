//! The calls of one batched method that have not started.
//!
//! Flow: `place` (by the link that receives a call, before the first byte of its payload) -> the payload is
//! received into the row -> `arrive` -> `take` (by a worker, when a batch is due) -> rows are moved where
//! necessary -> the function runs -> `finished`. Calls in list mode have no rows: they are complete when they
//! arrive here.
//!
//! The batcher has the arguments of its calls. The thread that removes a call under its lock gets them, and
//! decides what happens to the call. Locks: a link's receiving half, then this one, then a session's or a
//! link's sending half, or the queue's. Never blocks. Bounds: the open calls of all clients, `max_queue`, and
//! the budget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use teleport_transport::wire::{ErrorKind, Order, Ran, RemoteError, Signature};
use teleport_transport::{Budget, Lent, Rows, Ticket};

use crate::api::stats::BatchStats;
use crate::batch::memory::{BatchMemory, PlacedRow, slab_rows};
use crate::batch::plan::ids::{GroupId, Key};
use crate::batch::plan::policy::BatchPolicy;
use crate::batch::plan::scheduler::Scheduler;
use crate::batch::plan::starvation::expiry_of;
use crate::call::job::PoolQueue;
use crate::call::open_call::{Arguments, OpenCall};
use crate::call::refusal::{closing, overloaded};
use crate::queue::fair_queue::{Queueable, Queued};

/// The parts of its server that a batcher uses.
#[derive(Debug)]
pub(crate) struct BatcherEnv {
    pub(crate) queue: Arc<PoolQueue>,
    /// The method's number in the queue.
    pub(crate) number: usize,
    pub(crate) budget: Budget,
    pub(crate) lent: Option<Lent>,
}

/// All calls of a batched method that have not started.
#[derive(Debug)]
pub(crate) struct Batcher {
    pub(crate) method: Arc<str>,
    pub(crate) policy: BatchPolicy,
    pub(crate) is_listed: bool,
    pub(crate) env: BatcherEnv,
    pub(crate) inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) scheduler: Scheduler<Waiter>,
    pub(crate) memory: BatchMemory,
    /// The only group in list mode.
    list: Option<GroupId>,
    /// The time at which the queue expects the next batch.
    pub(crate) timer: Option<Instant>,
    pub(crate) stats: BatchStats,
    is_closed: bool,
}

/// A call that has not started.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// `None` in list mode.
    pub(crate) placed: Option<PlacedRow>,
    /// `None` while the call is being received.
    pub(crate) call: Option<Queued<OpenCall>>,
}

impl Batcher {
    pub(crate) fn new(
        method: &Arc<str>,
        policy: &BatchPolicy,
        is_listed: bool,
        env: BatcherEnv,
    ) -> Arc<Batcher> {
        let mut scheduler = Scheduler::new(policy.clone());
        let inner = Inner {
            list: is_listed.then(|| scheduler.groups.add(policy.max_rows, 0)),
            scheduler,
            memory: BatchMemory::new(method, policy, &env.budget),
            timer: None,
            stats: BatchStats::default(),
            is_closed: false,
        };
        let (method, policy) = (method.clone(), policy.clone());
        Arc::new(Batcher { method, policy, is_listed, env, inner: Mutex::new(inner) })
    }

    // ---- Calls that arrive and leave ----

    /// Checks that calls of this signature can be batched.
    ///
    /// # Errors
    /// Returns the error for their callers.
    pub(crate) fn admit(&self, signature: &Arc<Signature>) -> Result<(), RemoteError> {
        if self.is_listed {
            return Ok(());
        }
        if let Err(error) = signature.check_stackable() {
            return Err(RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string()));
        }
        slab_rows(&self.method, &self.policy, &self.env.budget, signature).map(drop)
    }

    /// Returns the row for a call's payload, or `None` in list mode.
    ///
    /// # Errors
    /// Returns the error for its caller.
    pub(crate) fn place(
        self: &Arc<Self>,
        signature: &Arc<Signature>,
        order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        if self.is_listed {
            return Ok(None);
        }
        let mut inner = self.inner.lock();
        let Inner { scheduler, memory, is_closed, .. } = &mut *inner;
        self.check_room(scheduler.waiting(), *is_closed)?;
        let group = memory.group(&mut scheduler.groups, signature)?;
        let placed = scheduler.place(group, Waiter::default());
        let row = memory.take_row(placed.seat, group, placed.is_new_slab);
        let ticket = row.map(|memory| Ticket::new(Some(memory), placed.key, self.clone()));
        match &ticket {
            Ok(ticket) => {
                let waiter = scheduler.value_mut(placed.key).expect("it was placed under this lock");
                let (row, slab) = (ticket.row().clone(), placed.seat.slab);
                waiter.placed = Some(PlacedRow { row, slab, order: order.clone() });
            }
            Err(_) => drop(scheduler.remove(placed.key)),
        }
        self.settle(inner);
        ticket.map(Some)
    }

    /// Takes a complete call, with the key of its ticket. Returns when to check whether it has waited for too
    /// long.
    ///
    /// # Errors
    /// Returns the error for its caller, if it cannot run.
    pub(crate) fn arrive(
        &self,
        call: &Arc<OpenCall>,
        arguments: Arguments,
        key: Option<Key>,
    ) -> Result<Option<Instant>, RemoteError> {
        let mut inner = self.inner.lock();
        let key = match (key, inner.list) {
            (Some(key), _) => key,
            (None, Some(list)) => {
                self.check_room(inner.scheduler.waiting(), inner.is_closed)?;
                inner.scheduler.place(list, Waiter::default()).key
            }
            (None, None) => return Err(self.row_lost(&inner)),
        };
        let now = Instant::now();
        let Some(waiter) = inner.scheduler.value_mut(key) else { return Err(self.row_lost(&inner)) };
        waiter.call = Some((call.clone(), arguments));
        call.place().set(key);
        inner.scheduler.arrive(key, call.deadline, now);
        self.settle(inner);
        Ok(expiry_of(&self.policy, call.deadline, now))
    }

    /// Releases the calls that are throttled by `by`. Returns when to check whether they have waited for too
    /// long.
    pub(crate) fn release(&self, by: usize) -> Option<Instant> {
        let (mut inner, now) = (self.inner.lock(), Instant::now());
        let was_throttled = inner.scheduler.release(by, now);
        self.settle(inner);
        if was_throttled { expiry_of(&self.policy, None, now) } else { None }
    }

    /// Removes a call. Returns `None` if it has started or was removed before.
    pub(crate) fn withdraw(&self, call: &OpenCall) -> Option<Queued<OpenCall>> {
        let mut inner = self.inner.lock();
        let waiter = inner.scheduler.remove(call.place().get())?;
        inner.free(&waiter);
        self.settle(inner);
        waiter.call
    }

    /// Called when the function of a batch has returned. `ran` is its run time, if it is typical for other
    /// batches.
    pub(crate) fn finished(&self, group: GroupId, padded: usize, ran: Option<Duration>) {
        let mut inner = self.inner.lock();
        inner.scheduler.finished(group, ran.map(|time| (padded, time)));
        inner.stats.running -= 1;
        inner.stats.ran += ran.unwrap_or_default();
        self.settle(inner);
    }

    /// Accepts no more calls. Returns those that waited, for the caller to answer.
    pub(crate) fn close(&self) -> Vec<Queued<OpenCall>> {
        let mut inner = self.inner.lock();
        inner.is_closed = true;
        let waiters = inner.scheduler.drain();
        waiters.iter().for_each(|waiter| inner.free(waiter));
        self.settle(inner);
        waiters.into_iter().filter_map(|waiter| waiter.call).collect()
    }

    /// Ends a change under the lock: frees unused memory, and informs the queue when the next batch is due.
    pub(crate) fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let unused = inner.scheduler.take_unused();
        let freed = inner.memory.release(&unused);
        let due = inner.scheduler.next_due();
        if due != inner.timer {
            inner.timer = due;
            // Under the lock, so that the queue gets changes in their order.
            self.env.queue.set_batch_timer(self.env.number, due);
        }
        drop(inner);
        drop(freed);
    }

    fn check_room(&self, waiting: usize, is_closed: bool) -> Result<(), RemoteError> {
        if is_closed {
            return Err(closing());
        }
        if waiting < self.policy.max_queue {
            return Ok(());
        }
        Err(overloaded(format!(
            "method {:?} has {waiting} calls that wait for their batch, as many as may (`max_queue`): try later",
            self.method
        )))
    }

    /// Returns the error for a call whose row was taken away while it was being received.
    pub(crate) fn row_lost(&self, inner: &Inner) -> RemoteError {
        if inner.is_closed {
            return closing();
        }
        overloaded(format!(
            "method {:?} had no memory left to move the call to another batch: try later",
            self.method
        ))
    }

    // ---- Queries ----

    pub(crate) fn stats(&self) -> BatchStats {
        let inner = self.inner.lock();
        BatchStats { waiting: inner.scheduler.waiting(), ..inner.stats.clone() }
    }

    /// Returns how many calls wait, excluding those that are being received.
    pub(crate) fn queued(&self) -> usize {
        self.inner.lock().scheduler.complete()
    }
}

impl Rows for Batcher {
    fn abandoned(&self, key: Key) {
        let mut inner = self.inner.lock();
        if let Some(waiter) = inner.scheduler.remove(key) {
            inner.free(&waiter);
        }
        self.settle(inner);
    }
}

impl Inner {
    /// Frees the row of a call that does not run.
    pub(crate) fn free(&mut self, waiter: &Waiter) {
        self.stats.dropped += 1;
        if let Some(placed) = &waiter.placed {
            self.memory.free_row(placed);
        }
    }
}
