//! What all threads of a running server share, and how connections come to it.
//!
//! Flow: [`ConnectionAcceptor`] accepts a socket -> a poller in turn -> a [`Connection`] for it -> this, until the connection has ended.
//! Never waits. Bounds: `max_connections`; memory by `Budget` and [`Credit`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::protocol::{Quota, UnsentBytes};
use teleport_transport::wire::{ErrorKind, Id128, RemoteError};
use teleport_transport::{Budget, Lent, Link, Poller};

use crate::api::error::ServeError;
use crate::api::options::Options;
use crate::batch::batcher::{Batcher, BatcherEnv};
use crate::batch::timeouts::Expired;
use crate::call::OpenCall;
use crate::connection::credit::Credit;
use crate::connection::dispatch::Connection;
use crate::exec::done::Ledger;
use crate::exec::queue::Queue;
use crate::registry::{BatchPlan, PoolPlan, Registry};
use crate::route::Route;
use crate::runtime::counters::Counters;
use crate::runtime::deadlines::Deadlines;
use crate::runtime::lifecycle::Lifecycle;
use crate::runtime::log_limit::LogLimit;
use crate::session::table::Sessions;

/// What any connection's results may take: so much holds nobody up, and the quota of many connections is no less.
const MIN_UNSENT_BYTES: u64 = 64 << 10;

/// When more of the memory than one in so many parts is in use, connections share it alike.
const SHARED_PART: u64 = 2;

/// A connection that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) link: Arc<Link>,
    pub(crate) peer: Arc<Connection>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    /// One queue for each pool of the registry.
    pub(crate) pools: Vec<Arc<Queue<OpenCall>>>,
    /// One for each batched method of the registry.
    pub(crate) batchers: Vec<Arc<Batcher>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Counters,
    pub(crate) log_limit: LogLimit,
    pub(crate) budget: Budget,
    /// What tells this server from another at the same address.
    pub(crate) instance: Id128,
    pub(crate) sessions: Sessions,
    /// Of calls that wait for a worker or are throttled.
    pub(crate) deadlines: Deadlines,
    pub(crate) lent: Option<Lent>,
    pub(crate) max_unsent_bytes: u64,
    pub(crate) stop_on_error: bool,
    pub(crate) max_connections: usize,
    pub(crate) credit: Credit,
    pub(crate) pollers: Vec<Poller>,
    pub(crate) next_poller: AtomicUsize,
    /// Every connection that has not ended, by its link's key.
    pub(crate) connections: Mutex<HashMap<usize, Attached>>,
    /// Counted on its own, since a connection may end before it stands in the map.
    pub(crate) connection_count: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(
        options: &Options,
        registry: Registry,
        pollers: Vec<Poller>,
        lifecycle: Arc<Lifecycle>,
    ) -> Arc<Shared> {
        let (config, budget) = (options.config(), Budget::new(options.shared_memory()));
        let queue = |pool: &PoolPlan| Arc::new(Queue::new(config.spin, &pool.batched));
        let pools: Vec<Arc<Queue<OpenCall>>> = registry.pools.iter().map(queue).collect();
        let batcher = |plan: &BatchPlan| {
            let (queue, number) = (pools[plan.pool].clone(), plan.number);
            let env = BatcherEnv { queue, number, budget: budget.clone(), lent: config.lent.clone() };
            Batcher::new(&plan.method, &plan.plan, plan.is_listed, env)
        };
        let batchers = registry.batches.iter().map(batcher).collect();
        Arc::new(Shared {
            instance: config.instance,
            lent: config.lent.clone(),
            sessions: options.sessions(budget.clone()),
            deadlines: Deadlines::new(Instant::now()),
            pools,
            batchers,
            ledger: Ledger::new(registry.logging_workers()),
            registry,
            lifecycle,
            counters: Counters::default(),
            log_limit: LogLimit::default(),
            budget,
            max_unsent_bytes: options.max_unsent(),
            stop_on_error: options.stop_on_error,
            max_connections: options.max_connections,
            credit: Credit::new(options.max_memory, config),
            pollers,
            next_poller: AtomicUsize::new(0),
            connections: Mutex::default(),
            connection_count: AtomicUsize::new(0),
        })
    }

    /// Connections that have not ended, those in their handshake included.
    pub(crate) fn connection_count(&self) -> usize {
        self.connection_count.load(Ordering::SeqCst)
    }

    /// Received memory that functions, or those that they gave it to, hold.
    pub(crate) fn lent_bytes(&self) -> u64 {
        self.lent.as_ref().map_or(0, Lent::bytes)
    }

    /// Every connection that has not ended.
    pub(crate) fn connections(&self) -> Vec<Attached> {
        self.connections.lock().values().cloned().collect()
    }

    /// Everybody with whom calls may be kept, each once: those who are connected, and those before them whose calls
    /// survived.
    pub(crate) fn peers(&self) -> Vec<Arc<Connection>> {
        let connected = self.connections().into_iter().map(|connection| connection.peer);
        let mut peers: Vec<Arc<Connection>> =
            connected.flat_map(|peer| [peer.origins(), vec![peer]].concat()).collect();
        peers.sort_unstable_by_key(Arc::as_ptr);
        peers.dedup_by(|one, other| Arc::ptr_eq(one, other));
        peers
    }

    pub(crate) fn connection_ended(&self, key: usize) {
        let ended = self.connections.lock().remove(&key);
        // Outside of the lock: it may be the last that holds the link.
        drop(ended);
        self.connection_count.fetch_sub(1, Ordering::SeqCst);
        self.lifecycle.notify();
    }

    /// What a connection may leave unfetched of its results and still start calls: one that may be as large as it likes, and the
    /// option's bytes beside it. Less when many do so at once, and that one counts too: results are made whether or not there
    /// is memory left for them, so connections share it before.
    pub(crate) fn quota(&self, unsent: UnsentBytes) -> Quota {
        let part = self.budget.max_bytes() / SHARED_PART;
        // The largest is no reason to hold up its own connection.
        let largest_bytes = unsent.all - unsent.but_largest;
        if self.budget.used_bytes() <= part.saturating_add(largest_bytes) {
            return Quota { max_bytes: u64::MAX, max_bytes_but_largest: self.max_unsent_bytes };
        }
        let share = (part / self.connection_count().max(1) as u64).max(MIN_UNSENT_BYTES);
        let max_bytes = self.max_unsent_bytes.min(share);
        Quota { max_bytes, max_bytes_but_largest: max_bytes }
    }

    /// Whether a connection with so much of its results unfetched starts no call.
    pub(crate) fn is_past_quota(&self, unsent: UnsentBytes) -> bool {
        // Without a look at what all share in most cases.
        unsent.all > self.max_unsent_bytes.min(MIN_UNSENT_BYTES) && !self.quota(unsent).allows(unsent)
    }

    /// A call waits for a worker, or is throttled: from when it stands there it is to leave in time.
    pub(crate) fn waits_until(&self, deadline: Option<Instant>) {
        if self.deadlines.note(deadline) {
            // The supervisor sleeps on the lifecycle.
            self.lifecycle.notify();
        }
    }

    /// Refuses calls that wait and whose time is over, if it is time to look.
    pub(crate) fn expire_calls(&self, now: Instant) {
        if !self.deadlines.begin(now) {
            return;
        }
        let queued = self.pools.iter().map(|pool| pool.expire(now));
        let (mut late, mut next) = (Vec::new(), None);
        for batcher in &self.batchers {
            let Expired { refused, starved, next: earliest } = batcher.expire(now);
            next = next.into_iter().chain(earliest).min();
            for (call, error) in refused {
                call.refuse(&error);
            }
            let told = starved.iter().filter(|_| self.log_limit.allows());
            told.for_each(|waiting| batcher.tell(waiting));
        }
        // Pools before those that are throttled: what a worker takes from there and parks notes its deadline again.
        let throttled = self.peers().into_iter().map(|peer| peer.expire_throttled(now));
        for (calls, earliest) in queued.chain(throttled) {
            late.extend(calls);
            next = next.into_iter().chain(earliest).min();
        }
        // The supervisor is the one that asks.
        self.deadlines.note(next);
        for call in late {
            if call.give_up() {
                call.refuse_late();
            }
        }
    }

    /// The batcher of a method, if it is batched.
    pub(crate) fn batcher_of(&self, slot: u32) -> Option<&Arc<Batcher>> {
        match self.registry.entry(slot)?.route {
            Route::Batch(batcher) => self.batchers.get(batcher),
            Route::Inline | Route::Pool(_) => None,
        }
    }

    /// The batcher that has this number in the queue of a pool.
    pub(crate) fn batcher_in(&self, pool: usize, number: usize) -> &Batcher {
        let is_it = |plan: &BatchPlan| plan.pool == pool && plan.number == number;
        let found = self.registry.batches.iter().position(is_it);
        &self.batchers[found.expect("the queue was made for those of the registry")]
    }

    /// A function failed: its caller is told, and so is the server's owner.
    pub(crate) fn function_failed(&self, call: &OpenCall, error: RemoteError) {
        // A function that gave up since nobody waits for it: no failure of the server's. One that did not know fails.
        if error.kind == ErrorKind::Failed && call.knows_cancelled() {
            let (method, caller) = (&*call.method.name, call.connection.name(&call.link));
            tracing::debug!(method, caller, "a cancelled call ended: {error}");
            return call.refuse(&error);
        }
        self.fail(call, 0, error);
    }

    /// A function failed for a whole batch: all callers are told, and the server's owner once.
    pub(crate) fn batch_failed(&self, calls: &[Arc<OpenCall>], error: RemoteError) {
        let Some((first, others)) = calls.split_first() else { return };
        for call in others {
            call.refuse(&error);
        }
        if error.kind == ErrorKind::Failed && calls.iter().all(|call| call.knows_cancelled()) {
            return first.refuse(&error);
        }
        self.fail(first, others.len(), error);
    }

    /// Tells the caller of one call, and the owner of it and of so many `others` that had the same failure.
    fn fail(&self, call: &OpenCall, others: usize, error: RemoteError) {
        // The caller's own mistake.
        if error.kind == ErrorKind::BadArguments {
            return call.refuse(&error);
        }
        let (method, mut caller) = (&*call.method.name, call.connection.name(&call.link).to_owned());
        if others > 0 {
            caller.push_str(&format!(" and {others} others in its batch"));
        }
        if self.log_limit.allows() {
            tracing::warn!(method, caller, "a call failed: {error}");
        }
        let method = method.to_owned();
        let failure = ServeError::Function { method, caller, error: Box::new(error.clone()) };
        self.note(failure, || call.refuse(&error));
    }

    /// A done function failed.
    pub(crate) fn done_failed(&self, method: &str, message: String) {
        if self.log_limit.allows() {
            tracing::warn!(method, "a done function failed: {message}");
        }
        self.note(ServeError::Done { method: method.to_owned(), message }, || {});
    }

    /// Who has the answer finds the failure noted; a server that ends of it answers first.
    fn note(&self, failure: ServeError, answer: impl FnOnce()) {
        if self.stop_on_error {
            answer();
            self.lifecycle.fail(failure);
        } else {
            self.lifecycle.note(failure);
            answer();
        }
    }
}
