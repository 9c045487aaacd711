//! The calls of one batched method: their rows in memory, as the state says.
//!
//! Flow: `place` (from the link that receives a call, before the first byte of its payload) -> the payload goes into the row ->
//! `arrive` -> `take` (a worker that was told by its queue that a batch is due) -> rows are moved as far as they must be ->
//! the function runs -> `finished`. Calls in list mode have no rows: they arrive whole.
//!
//! Locks: a link's inbound half, then this, then that of a session or of a link's sending half, or the queue's. Never blocks.
//! Bounds: what the clients may have open, `max_queue`, and those of `memory`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use teleport_transport::wire::{ErrorKind, Order, QuickHash, Ran, RemoteError, Signature, Stacked};
use teleport_transport::{Budget, Charge, Lent, Row, Rows, Slab, Ticket};

use super::options::Plan;
use super::slab::SlabId;
use super::state::{BucketId, Key, State};
use super::stats::BatchStats;
use super::upkeep::Upkeep;
use crate::call::{Arguments, OpenCall};
use crate::queue::Queue;

/// What batches have to do with the rest of their server.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) queue: Arc<Queue<OpenCall>>,
    /// The method's number in the queue.
    pub(crate) number: usize,
    pub(crate) budget: Budget,
    pub(crate) lent: Option<Lent>,
}

/// All calls of a batched method that have not started.
#[derive(Debug)]
pub(crate) struct Batcher {
    pub(super) method: Arc<str>,
    pub(super) plan: Plan,
    pub(super) is_listed: bool,
    pub(super) around: Surroundings,
    pub(super) desk: Mutex<Desk>,
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) state: State<Waiter>,
    pub(super) kinds: HashMap<Arc<Signature>, Kind, QuickHash>,
    pub(super) signatures: HashMap<BucketId, Arc<Signature>, QuickHash>,
    /// The bucket of list mode.
    pub(super) list: Option<BucketId>,
    pub(super) slabs: HashMap<SlabId, OpenSlab, QuickHash>,
    /// What slabs hold of the budget past its bound.
    pub(super) surplus: u64,
    /// Given back when the lock is.
    pub(super) returned: Vec<Charge>,
    /// What the queue was told last.
    pub(super) posted: Option<Instant>,
    pub(super) stats: BatchStats,
    pub(super) closed: bool,
}

/// Calls of one signature.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) bucket: BucketId,
    pub(super) stacked: Arc<Stacked>,
}

#[derive(Debug)]
pub(super) struct OpenSlab {
    pub(super) slab: Slab,
    pub(super) upkeep: Upkeep,
}

/// A call that has not started.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    /// Where it is received; none in list mode.
    pub(super) row: Option<Arc<Row>>,
    /// The slab of that.
    pub(super) slab: Option<SlabId>,
    pub(super) order: Option<Order>,
    /// Once it is whole.
    pub(super) call: Option<Arc<OpenCall>>,
}

impl Batcher {
    pub(crate) fn new(method: &Arc<str>, plan: &Plan, is_listed: bool, around: Surroundings) -> Arc<Batcher> {
        let mut state = State::new(plan.clone());
        let list = is_listed.then(|| state.add_bucket(plan.max_rows, 0));
        let desk = Desk {
            state,
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
        Arc::new(Batcher { method, plan, is_listed, around, desk: Mutex::new(desk) })
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
        self: &Arc<Self>,
        signature: &Arc<Signature>,
        order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        if self.is_listed {
            return Ok(None);
        }
        let mut desk = self.desk.lock();
        self.check_room(&desk)?;
        let Kind { bucket, .. } = self.kind(&mut desk, signature)?;
        let waiter = Waiter { order: Some(order.clone()), ..Waiter::default() };
        let placed = desk.state.place(bucket, waiter);
        let memory = self.seat(&mut desk, placed.seat, bucket, placed.is_new_slab);
        let row = memory.map(|memory| Arc::new(Row::new(Some(memory))));
        match &row {
            Ok(row) => {
                let waiter = desk.state.value_mut(placed.key).expect("it was placed under this lock");
                (waiter.row, waiter.slab) = (Some(row.clone()), Some(placed.seat.slab));
            }
            Err(_) => drop(desk.state.remove(placed.key)),
        }
        self.settle(desk);
        Ok(Some(Ticket::new(row?, placed.key, self.clone())))
    }

    /// A call is whole, with the number that its ticket gave. It may run from now on unless it `is_held`. Gives when somebody must
    /// look whether its time is over.
    ///
    /// # Errors
    /// What its caller is told, if it is not to run.
    pub(crate) fn arrive(
        &self,
        call: &Arc<OpenCall>,
        key: Option<Key>,
        is_held: bool,
    ) -> Result<Option<Instant>, RemoteError> {
        let mut desk = self.desk.lock();
        let key = match (key, desk.list) {
            (Some(key), _) => key,
            (None, Some(list)) => {
                self.check_room(&desk)?;
                desk.state.place(list, Waiter::default()).key
            }
            (None, None) => return Err(self.given_up(&desk)),
        };
        let now = Instant::now();
        let Some(waiter) = desk.state.value_mut(key) else { return Err(self.given_up(&desk)) };
        waiter.call = Some(call.clone());
        call.set_key(key);
        desk.state.arrive(key, call.deadline, is_held, now);
        let look_at = desk.state.looked_at(call.deadline, now);
        self.settle(desk);
        Ok(look_at)
    }

    /// A call that was held may run. Gives when somebody must look whether its time is over.
    pub(crate) fn resume(&self, call: &OpenCall) -> Option<Instant> {
        let (mut desk, now) = (self.desk.lock(), Instant::now());
        desk.state.resume(call.key(), now);
        let look_at = desk.state.looked_at(call.deadline, now);
        self.settle(desk);
        look_at
    }

    /// Takes a call out, with its arguments; nothing if it has started or was taken out before.
    pub(crate) fn withdraw(&self, call: &OpenCall) -> Option<Arguments> {
        let mut desk = self.desk.lock();
        let waiter = desk.state.remove(call.key())?;
        desk.drop_row(&waiter);
        // Under the lock: who finds it gone finds it claimed.
        let arguments = call.claim();
        self.settle(desk);
        arguments
    }

    /// Takes no more calls, and gives those that wait, which are the caller's to answer.
    pub(crate) fn close(&self) -> Vec<Arc<OpenCall>> {
        let mut desk = self.desk.lock();
        desk.closed = true;
        let waiters = desk.state.drain();
        waiters.iter().for_each(|waiter| desk.drop_row(waiter));
        self.settle(desk);
        let calls = waiters.into_iter().filter_map(|waiter| waiter.call);
        calls.filter(|call| call.claim().is_some()).collect()
    }

    fn check_room(&self, desk: &Desk) -> Result<(), RemoteError> {
        if desk.closed {
            return Err(self.given_up(desk));
        }
        let (waiting, max_queue) = (desk.state.waiting(), self.plan.max_queue);
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
    pub(super) fn given_up(&self, desk: &Desk) -> RemoteError {
        if desk.closed {
            return crate::peer::closing();
        }
        overloaded(format!(
            "method {:?} had no memory left to move the call to another batch: try later",
            self.method
        ))
    }

    // ---- Looking, and the end of each change ----

    /// Ends a change: lets go what nobody needs, and tells the queue when the next batch is due.
    pub(super) fn settle(&self, mut desk: MutexGuard<'_, Desk>) {
        let (slabs, buckets) = desk.state.take_unused();
        let returned = std::mem::take(&mut desk.returned);
        let closed: Vec<OpenSlab> = slabs.iter().filter_map(|slab| desk.close_slab(*slab)).collect();
        for bucket in buckets {
            if let Some(signature) = desk.signatures.remove(&bucket) {
                desk.kinds.remove(&signature);
            }
        }
        let due = desk.state.next_due();
        if due != desk.posted {
            desk.posted = due;
            // Under the lock, so that the queue is told in the order of changes.
            self.around.queue.post(self.around.number, due);
        }
        drop(desk);
        // Memory goes back without the lock.
        drop((closed, returned));
    }

    pub(crate) fn stats(&self) -> BatchStats {
        let desk = self.desk.lock();
        BatchStats { waiting: desk.state.waiting(), ..desk.stats.clone() }
    }

    /// Calls that wait and may run.
    pub(crate) fn queued(&self) -> usize {
        self.desk.lock().state.ready()
    }
}

impl Rows for Batcher {
    fn abandoned(&self, key: Key) {
        let mut desk = self.desk.lock();
        if let Some(waiter) = desk.state.remove(key) {
            desk.drop_row(&waiter);
        }
        self.settle(desk);
    }
}

impl Desk {
    /// A call does not run: its memory is taken away, and what still comes of it is dropped. Under the lock, so that who gets its
    /// seat finds the memory free.
    pub(super) fn drop_row(&mut self, waiter: &Waiter) {
        self.stats.dropped += 1;
        vacate(waiter);
        if let Some(slab) = waiter.slab {
            self.left(slab);
        }
    }

    /// A call that has paid for its row has a seat in a slab.
    pub(super) fn sat(&mut self, id: SlabId) {
        if let Some(opened) = self.slabs.get_mut(&id)
            && let Some(charge) = opened.upkeep.sat()
        {
            self.surplus -= opened.upkeep.settle_surplus();
            self.returned.push(charge);
        }
    }

    /// A call leaves a slab that goes on.
    pub(super) fn left(&mut self, id: SlabId) {
        let opened = self.slabs.get_mut(&id);
        self.returned.extend(opened.and_then(|opened| opened.upkeep.left()));
    }

    pub(super) fn close_slab(&mut self, id: SlabId) -> Option<OpenSlab> {
        let opened = self.slabs.remove(&id)?;
        self.surplus -= opened.upkeep.surplus();
        Some(opened)
    }
}

pub(super) fn vacate(waiter: &Waiter) {
    if let Some(row) = &waiter.row {
        drop(row.vacate());
    }
}

pub(super) fn overloaded(text: String) -> RemoteError {
    RemoteError::new(ErrorKind::Overloaded, Ran::No, text)
}
