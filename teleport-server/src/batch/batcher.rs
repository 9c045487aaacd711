//! The calls of one batched method: their rows in memory, as the scheduler says.
//!
//! Flow: `place` (from the link that receives a call, before the first byte of its payload) -> the payload goes into the row ->
//! `arrive` -> `take` (a worker that was told by its queue that a batch is due) -> rows are moved as far as they must be ->
//! the function runs -> `finished`. Calls in list mode have no rows: they arrive whole.
//!
//! Locks: a link's inbound half, then this, then that of a session or of a link's sending half, or the queue's. Never blocks.
//! Bounds: what the clients may have open, `max_queue`, and those of `memory`.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use teleport_transport::wire::{BatchLayout, ErrorKind, Order, QuickHash, Ran, RemoteError, Signature};
use teleport_transport::{Budget, Charge, Lent, Row, Rows, Slab, Ticket};

use crate::api::batch_options::Plan;
use crate::api::stats::BatchStats;
use crate::batch::overhead::Overhead;
use crate::batch::plan::ids::{GroupId, Key, SlabId};
use crate::batch::plan::scheduler::Scheduler;
use crate::call::{Arguments, OpenCall};
use crate::exec::queue::Queue;

/// What batches have to do with the rest of their server.
#[derive(Debug)]
pub(crate) struct BatcherEnv {
    pub(crate) queue: Arc<Queue<OpenCall>>,
    /// The method's number in the queue.
    pub(crate) number: usize,
    pub(crate) budget: Budget,
    pub(crate) lent: Option<Lent>,
}

/// All calls of a batched method that have not started.
#[derive(Debug)]
pub(crate) struct Batcher {
    pub(crate) method: Arc<str>,
    pub(crate) plan: Plan,
    pub(crate) is_listed: bool,
    pub(crate) env: BatcherEnv,
    /// For tickets.
    abandoned_rows: Arc<AbandonedRows>,
    pub(crate) inner: Mutex<Inner>,
}

/// Told by a connection when a call whose row it has does not come whole.
///
/// Weak, since the batcher holds calls, each of which holds its connection.
#[derive(Debug)]
struct AbandonedRows(Weak<Batcher>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) scheduler: Scheduler<Waiter>,
    pub(crate) kinds: HashMap<Arc<Signature>, Kind, QuickHash>,
    pub(crate) signatures: HashMap<GroupId, Arc<Signature>, QuickHash>,
    /// The group of list mode.
    pub(crate) list: Option<GroupId>,
    pub(crate) slabs: HashMap<SlabId, OpenSlab, QuickHash>,
    /// What slabs hold of the budget past its bound.
    pub(crate) surplus: u64,
    /// Given back when the lock is.
    pub(crate) returned: Vec<Charge>,
    /// What the queue was told last.
    pub(crate) posted: Option<Instant>,
    pub(crate) stats: BatchStats,
    pub(crate) closed: bool,
}

/// Calls of one signature.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) group: GroupId,
    pub(crate) stacked: Arc<BatchLayout>,
}

#[derive(Debug)]
pub(crate) struct OpenSlab {
    pub(crate) slab: Slab,
    pub(crate) overhead: Overhead,
}

/// A call that has not started.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// Where it is received; none in list mode.
    pub(crate) row: Option<Arc<Row>>,
    /// The slab of that.
    pub(crate) slab: Option<SlabId>,
    pub(crate) order: Option<Order>,
    /// Once it is whole.
    pub(crate) call: Option<Arc<OpenCall>>,
}

impl Batcher {
    pub(crate) fn new(method: &Arc<str>, plan: &Plan, is_listed: bool, env: BatcherEnv) -> Arc<Batcher> {
        let mut scheduler = Scheduler::new(plan.clone());
        let list = is_listed.then(|| scheduler.add_group(plan.max_rows, 0));
        let inner = Inner {
            scheduler,
            kinds: HashMap::default(),
            signatures: HashMap::default(),
            list,
            slabs: HashMap::default(),
            surplus: 0,
            returned: Vec::new(),
            posted: None,
            stats: BatchStats::default(),
            closed: false,
        };
        let (method, plan) = (method.clone(), plan.clone());
        Arc::new_cyclic(|batcher| Batcher {
            method,
            plan,
            is_listed,
            env,
            abandoned_rows: Arc::new(AbandonedRows(batcher.clone())),
            inner: Mutex::new(inner),
        })
    }

    // ---- Calls that come and go ----

    /// Whether calls of this signature can be batched at all.
    ///
    /// # Errors
    /// What their callers are told.
    pub(crate) fn admit(&self, signature: &Arc<Signature>) -> Result<(), RemoteError> {
        if self.is_listed {
            return Ok(());
        }
        if let Err(error) = signature.check_stackable() {
            return Err(RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string()));
        }
        self.rows_of(signature).map(drop)
    }

    /// Where a call's payload is to be received; nothing in list mode, where it comes whole.
    ///
    /// # Errors
    /// What its caller is told.
    pub(crate) fn place(
        &self,
        signature: &Arc<Signature>,
        order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        if self.is_listed {
            return Ok(None);
        }
        let mut inner = self.inner.lock();
        self.check_room(&inner)?;
        let Kind { group, .. } = self.kind(&mut inner, signature)?;
        let waiter = Waiter { order: Some(order.clone()), ..Waiter::default() };
        let placed = inner.scheduler.place(group, waiter);
        let memory = self.seat(&mut inner, placed.seat, group, placed.is_new_slab);
        let row = memory.map(|memory| Arc::new(Row::new(Some(memory))));
        match &row {
            Ok(row) => {
                let waiter = inner.scheduler.value_mut(placed.key).expect("it was placed under this lock");
                (waiter.row, waiter.slab) = (Some(row.clone()), Some(placed.seat.slab));
            }
            Err(_) => drop(inner.scheduler.remove(placed.key)),
        }
        self.settle(inner);
        Ok(Some(Ticket::new(row?, placed.key, self.abandoned_rows.clone())))
    }

    /// A call is whole, with the number that its ticket gave. It may run from now on. Returns when to look whether its time is
    /// over.
    ///
    /// # Errors
    /// What its caller is told, if it is not to run.
    pub(crate) fn arrive(
        &self,
        call: &Arc<OpenCall>,
        key: Option<Key>,
    ) -> Result<Option<Instant>, RemoteError> {
        let mut inner = self.inner.lock();
        let key = match (key, inner.list) {
            (Some(key), _) => key,
            (None, Some(list)) => {
                self.check_room(&inner)?;
                inner.scheduler.place(list, Waiter::default()).key
            }
            (None, None) => return Err(self.given_up(&inner)),
        };
        let now = Instant::now();
        let Some(waiter) = inner.scheduler.value_mut(key) else { return Err(self.given_up(&inner)) };
        waiter.call = Some(call.clone());
        call.set_key(key);
        inner.scheduler.arrive(key, call.deadline, now);
        let look_at = inner.scheduler.looked_at(call.deadline, now);
        self.settle(inner);
        Ok(look_at)
    }

    /// Lets the calls run that are throttled by `by`. Returns when to look whether their time is over.
    pub(crate) fn release(&self, by: usize) -> Option<Instant> {
        let (mut inner, now) = (self.inner.lock(), Instant::now());
        let any = inner.scheduler.release(by, now);
        let look_at = any.then(|| inner.scheduler.looked_at(None, now)).flatten();
        self.settle(inner);
        look_at
    }

    /// Takes a call out, with its arguments; nothing if it has started or was taken out before.
    pub(crate) fn withdraw(&self, call: &OpenCall) -> Option<Arguments> {
        let mut inner = self.inner.lock();
        let waiter = inner.scheduler.remove(call.key())?;
        inner.drop_row(&waiter);
        // Under the lock: who finds it gone finds it claimed.
        let arguments = call.claim();
        self.settle(inner);
        arguments
    }

    /// Takes no more calls, and gives those that wait, which are the caller's to answer.
    pub(crate) fn close(&self) -> Vec<Arc<OpenCall>> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let waiters = inner.scheduler.drain();
        waiters.iter().for_each(|waiter| inner.drop_row(waiter));
        self.settle(inner);
        let calls = waiters.into_iter().filter_map(|waiter| waiter.call);
        calls.filter(|call| call.claim().is_some()).collect()
    }

    fn check_room(&self, inner: &Inner) -> Result<(), RemoteError> {
        if inner.closed {
            return Err(self.given_up(inner));
        }
        let (waiting, max_queue) = (inner.scheduler.waiting(), self.plan.max_queue);
        if waiting < max_queue {
            return Ok(());
        }
        let text = format!(
            "method {:?} has {waiting} calls that wait for their batch, as many as may (`max_queue`): try later",
            self.method
        );
        Err(overloaded(text))
    }

    /// What a call is told whose row is gone.
    pub(crate) fn given_up(&self, inner: &Inner) -> RemoteError {
        if inner.closed {
            return crate::refusal::closing();
        }
        overloaded(format!(
            "method {:?} had no memory left to move the call to another batch: try later",
            self.method
        ))
    }

    // ---- Looking, and the end of each change ----

    /// Ends a change: lets go what nobody needs, and tells the queue when the next batch is due.
    pub(crate) fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let (slabs, groups) = inner.scheduler.take_unused();
        let returned = std::mem::take(&mut inner.returned);
        let closed: Vec<OpenSlab> = slabs.iter().filter_map(|slab| inner.close_slab(*slab)).collect();
        for group in groups {
            if let Some(signature) = inner.signatures.remove(&group) {
                inner.kinds.remove(&signature);
            }
        }
        let due = inner.scheduler.next_due();
        if due != inner.posted {
            inner.posted = due;
            // Under the lock, so that the queue is told in the order of changes.
            self.env.queue.set_batch_timer(self.env.number, due);
        }
        drop(inner);
        // Memory goes back without the lock.
        drop((closed, returned));
    }

    pub(crate) fn stats(&self) -> BatchStats {
        let inner = self.inner.lock();
        BatchStats { waiting: inner.scheduler.waiting(), ..inner.stats.clone() }
    }

    /// Returns how many calls wait, without those that are being received.
    pub(crate) fn queued(&self) -> usize {
        self.inner.lock().scheduler.whole()
    }
}

impl Rows for AbandonedRows {
    fn abandoned(&self, key: Key) {
        let Some(batcher) = self.0.upgrade() else { return };
        let mut inner = batcher.inner.lock();
        if let Some(waiter) = inner.scheduler.remove(key) {
            inner.drop_row(&waiter);
        }
        batcher.settle(inner);
    }
}

impl Inner {
    /// A call does not run: its memory is taken away, and what still comes of it is dropped. Under the lock, so that who gets its
    /// seat finds the memory free.
    pub(crate) fn drop_row(&mut self, waiter: &Waiter) {
        self.stats.dropped += 1;
        vacate(waiter);
        if let Some(slab) = waiter.slab {
            self.left(slab);
        }
    }

    /// A call that has paid for its row has a seat in a slab.
    pub(crate) fn sat(&mut self, id: SlabId) {
        if let Some(opened) = self.slabs.get_mut(&id)
            && let Some(charge) = opened.overhead.sat()
        {
            self.surplus -= opened.overhead.settle_surplus();
            self.returned.push(charge);
        }
    }

    /// A call leaves a slab that goes on.
    pub(crate) fn left(&mut self, id: SlabId) {
        let opened = self.slabs.get_mut(&id);
        self.returned.extend(opened.and_then(|opened| opened.overhead.left()));
    }

    pub(crate) fn close_slab(&mut self, id: SlabId) -> Option<OpenSlab> {
        let opened = self.slabs.remove(&id)?;
        self.surplus -= opened.overhead.surplus();
        Some(opened)
    }
}

pub(crate) fn vacate(waiter: &Waiter) {
    if let Some(row) = &waiter.row {
        drop(row.vacate());
    }
}

pub(crate) fn overloaded(text: String) -> RemoteError {
    RemoteError::new(ErrorKind::Overloaded, Ran::No, text)
}
