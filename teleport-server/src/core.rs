//! What all threads of a running server share, and how connections come to it.
//!
//! Flow: [`Door`] accepts a socket -> a poller in turn -> a [`Peer`] for it -> this, until the connection has ended.
//! Never waits. Bounds: `max_connections`; memory by `Budget` and [`Credit`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Quota, Role, UnsentBytes};
use teleport_transport::wire::{ErrorKind, Id128, RemoteError};
use teleport_transport::{AcceptError, Acceptor, Budget, Lent, Link, Poller, Socket};

use crate::batch::batcher::{Batcher, Surroundings};
use crate::batch::waiting::Expired;
use crate::call::OpenCall;
use crate::counters::Counters;
use crate::credit::Credit;
use crate::done::Ledger;
use crate::error::ServeError;
use crate::expiry::Expiry;
use crate::lifecycle::Lifecycle;
use crate::log_limit::LogLimit;
use crate::methods::{BatchPlan, PoolPlan, Route, Table};
use crate::options::Options;
use crate::peer::Peer;
use crate::queue::Queue;
use crate::session::Sessions;

/// Connections past `max_connections` that are told so, at the same time; more are just closed.
const MAX_REFUSALS: usize = 64;

/// How long a refused client has to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// What any connection's results may take: so much holds nobody up, and the quota of many connections is no less.
const MIN_UNSENT_BYTES: u64 = 64 << 10;

/// When more of the memory than one in so many parts is in use, connections share it alike.
const SHARED_PART: u64 = 2;

/// A connection that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) link: Arc<Link>,
    pub(crate) peer: Arc<Peer>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) table: Table,
    /// One queue for each pool of the table.
    pub(crate) pools: Vec<Arc<Queue<OpenCall>>>,
    /// One for each batched method of the table.
    pub(crate) batchers: Vec<Arc<Batcher>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Counters,
    pub(crate) log_limit: LogLimit,
    pub(crate) budget: Budget,
    /// What tells this server from another at the same address.
    pub(crate) instance: Id128,
    pub(crate) sessions: Sessions,
    /// Of calls that wait for a worker or are parked.
    pub(crate) expiry: Expiry,
    lent: Option<Lent>,
    max_unsent_bytes: u64,
    stop_on_error: bool,
    max_connections: usize,
    credit: Credit,
    pollers: Vec<Poller>,
    next_poller: AtomicUsize,
    /// Every connection that has not ended, by its link's key.
    connections: Mutex<HashMap<usize, Connection>>,
    /// Counted on its own, since a connection may end before it stands in the map.
    connection_count: AtomicUsize,
}

impl Core {
    pub(crate) fn new(
        options: &Options,
        table: Table,
        pollers: Vec<Poller>,
        lifecycle: Arc<Lifecycle>,
    ) -> Arc<Core> {
        let (config, budget) = (options.config(), Budget::new(options.shared_memory()));
        let queue = |pool: &PoolPlan| Arc::new(Queue::new(config.spin, &pool.batched));
        let pools: Vec<Arc<Queue<OpenCall>>> = table.pools.iter().map(queue).collect();
        let batcher = |plan: &BatchPlan| {
            let (queue, number) = (pools[plan.pool].clone(), plan.number);
            let around = Surroundings { queue, number, budget: budget.clone(), lent: config.lent.clone() };
            Batcher::new(&plan.method, &plan.plan, plan.is_listed, around)
        };
        let batchers = table.batches.iter().map(batcher).collect();
        Arc::new(Core {
            instance: config.instance,
            lent: config.lent.clone(),
            sessions: options.sessions(budget.clone()),
            expiry: Expiry::new(Instant::now()),
            pools,
            batchers,
            ledger: Ledger::new(table.logging_workers()),
            table,
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
    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.connections.lock().values().cloned().collect()
    }

    /// Everybody with whom calls may be kept, each once: those who are connected, and those before them whose calls
    /// survived.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let connected = self.connections().into_iter().map(|connection| connection.peer);
        let mut peers: Vec<Arc<Peer>> =
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

    /// A call waits for a worker, or is parked: from when it stands there it is to leave in time.
    pub(crate) fn waits_until(&self, deadline: Option<Instant>) {
        if self.expiry.note(deadline) {
            // The supervisor sleeps on the lifecycle.
            self.lifecycle.notify();
        }
    }

    /// Refuses calls that wait and whose time is over, if it is time to look.
    pub(crate) fn expire_calls(&self, now: Instant) {
        if !self.expiry.begin(now) {
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
        // Pools before those that are parked: what a worker takes from there and parks notes its deadline again.
        let parked = self.peers().into_iter().map(|peer| peer.expire_parked(now));
        for (calls, earliest) in queued.chain(parked) {
            late.extend(calls);
            next = next.into_iter().chain(earliest).min();
        }
        // The supervisor is the one that asks.
        self.expiry.note(next);
        for call in late {
            if call.give_up() {
                call.refuse_late();
            }
        }
    }

    /// The batcher of a method, if it is batched.
    pub(crate) fn batcher_of(&self, slot: u32) -> Option<&Arc<Batcher>> {
        match self.table.entry(slot)?.route {
            Route::Batch(batcher) => self.batchers.get(batcher),
            Route::Inline | Route::Pool(_) => None,
        }
    }

    /// The batcher that has this number in the queue of a pool.
    pub(crate) fn batcher_in(&self, pool: usize, number: usize) -> &Batcher {
        let is_it = |plan: &BatchPlan| plan.pool == pool && plan.number == number;
        let found = self.table.batches.iter().position(is_it);
        &self.batchers[found.expect("the queue was made for those of the table")]
    }

    /// A function failed: its caller is told, and so is the server's owner.
    pub(crate) fn function_failed(&self, call: &OpenCall, error: RemoteError) {
        // A function that gave up since nobody waits for it: no failure of the server's. One that did not know fails.
        if error.kind == ErrorKind::Failed && call.knows_cancelled() {
            let (method, caller) = (&*call.entry.name, call.peer.name(&call.link));
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
        let (method, mut caller) = (&*call.entry.name, call.peer.name(&call.link).to_owned());
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

/// Where clients come in.
#[derive(Debug)]
pub(crate) struct Door(pub(crate) Arc<Core>);

impl Door {
    fn admit(&self, socket: Socket, connections: usize) -> std::io::Result<()> {
        let core = &self.0;
        let turn = core.next_poller.fetch_add(1, Ordering::Relaxed);
        let poller = &core.pollers[turn % core.pollers.len()];
        let is_surplus = connections > core.max_connections;
        let (config, reservation) = if is_surplus {
            (core.credit.none(), None)
        } else {
            let (config, reservation) = core.credit.reserve();
            (config, Some(reservation))
        };
        let peer = Peer::new(core, reservation);
        let budget = Some(core.budget.clone());
        let link = poller.attach(socket, Role::Server, config, budget, peer.clone())?;
        if is_surplus {
            let reason =
                format!("the server has its {} connections (`max_connections`)", core.max_connections);
            link.close(Some(ErrorKind::Overloaded), &reason, REFUSAL_TIME);
        }
        let mut known = core.connections.lock();
        // A connection that has ended by now was removed before it stood here.
        if link.closed().is_none() {
            known.insert(link.key(), Connection { link, peer });
        }
        Ok(())
    }
}

impl Acceptor for Door {
    fn accepted(&self, socket: Socket) {
        let core = &self.0;
        let connections = core.connection_count.fetch_add(1, Ordering::SeqCst) + 1;
        let surplus = connections.saturating_sub(core.max_connections);
        let peer = socket.peer().to_owned();
        if surplus > 0 && core.log_limit.allows() {
            tracing::warn!(
                peer,
                max_connections = core.max_connections,
                "a connection was refused: too many"
            );
        }
        let refused =
            if surplus > MAX_REFUSALS { Ok(false) } else { self.admit(socket, connections).map(|()| true) };
        if !matches!(refused, Ok(true)) {
            core.connection_count.fetch_sub(1, Ordering::SeqCst);
            core.lifecycle.notify();
        }
        if let Err(error) = refused
            && core.log_limit.allows()
        {
            tracing::warn!(peer, %error, "a connection was refused: it cannot be watched");
        }
    }

    fn failed(&self, error: &AcceptError) {
        if self.0.log_limit.allows() {
            tracing::warn!("{error}");
        }
    }
}
