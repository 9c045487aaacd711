//! Brings each call to its pool, batcher or function, and removes it again.
//!
//! Flow: `start` (a call arrived) -> a pool's queue, a batcher, or the function itself if it is inline. A
//! call whose client fetches no results is `throttled` until `release`. `withdraw` and `expire` remove calls
//! that have not started.
//!
//! Calls refer to their links, links to their connections, and connections to the dispatcher, which refers to
//! all queues. [`Queues`], which belongs to the supervisor, breaks this circle: when it is dropped, it closes
//! and empties them. Never waits.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use teleport_transport::protocol::Quota;
use teleport_transport::{Link, TurnClock};

use crate::api::options::Options;
use crate::batch::batcher::{Batcher, BatcherEnv};
use crate::batch::timeouts::{self, Expired, log_starved};
use crate::call::job::PoolQueue;
use crate::call::open_call::{Arguments, OpenCall};
use crate::call::refusal::{cancelled, closing, late};
use crate::call::route::Route;
use crate::exec::done::LogOrder;
use crate::exec::run::{Starting, note_time, run_inline};
use crate::queue::pool::Queue;
use crate::registry::{BatchPlan, PoolPlan, Registry};
use crate::runtime::connections::ConnectionList;
use crate::runtime::shared::Shared;
use crate::session::session::Forgotten;
use crate::session::table::Sessions;

/// Inline calls that were throttled take at most this long on the poller before other connections get their
/// turn.
const MAX_TURN: Duration = Duration::from_millis(2);

/// All calls that have not started.
#[derive(Debug)]
pub(crate) struct Queues {
    /// One for each pool of the registry, and one without workers for throttled inline calls.
    pub(crate) pools: Vec<Arc<PoolQueue>>,
    /// One for each batched method of the registry.
    pub(crate) batchers: Vec<Arc<Batcher>>,
}

impl Queues {
    pub(crate) fn new(registry: &Registry, shared: &Shared, spin: Duration) -> Queues {
        let pool = |plan: &PoolPlan| Arc::new(Queue::new(spin, &plan.batched));
        let inline = Arc::new(Queue::new(Duration::ZERO, &[]));
        let pools: Vec<Arc<PoolQueue>> = registry.pools.iter().map(pool).chain([inline]).collect();
        let batcher = |plan: &BatchPlan| {
            let (queue, number) = (pools[plan.pool].clone(), plan.number);
            let env = BatcherEnv { queue, number, budget: shared.budget.clone(), lent: shared.lent.clone() };
            Batcher::new(&plan.method, &plan.policy, plan.is_listed, env)
        };
        let batchers = registry.batches.iter().map(batcher).collect();
        Queues { pools, batchers }
    }

    /// Returns how many calls wait.
    pub(crate) fn len(&self) -> usize {
        let pools = self.pools.iter().map(|pool| pool.len()).sum::<usize>();
        pools + self.batchers.iter().map(|batcher| batcher.queued()).sum::<usize>()
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        self.batchers.iter().for_each(|batcher| drop(batcher.close()));
        self.pools.iter().for_each(|pool| drop(pool.close()));
    }
}

/// Connects the connections to the functions.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Registry,
    /// The logs of logged calls, in order.
    pub(crate) log_order: Arc<LogOrder>,
    pub(crate) sessions: Sessions<OpenCall>,
    pub(crate) connections: ConnectionList,
    pools: Vec<Arc<PoolQueue>>,
    batchers: Vec<Arc<Batcher>>,
}

impl Dispatcher {
    pub(crate) fn new(
        options: &Options,
        shared: &Arc<Shared>,
        registry: Registry,
        queues: &Queues,
    ) -> Arc<Dispatcher> {
        Arc::new(Dispatcher {
            shared: shared.clone(),
            log_order: LogOrder::new(registry.logging_workers()),
            sessions: Sessions::new(
                options.resume_timeout,
                options.max_connections,
                options.config.max_open_calls,
                options.max_kept_bytes(),
                shared.budget.clone(),
            ),
            connections: ConnectionList::default(),
            pools: queues.pools.clone(),
            batchers: queues.batchers.clone(),
            registry,
        })
    }

    pub(crate) fn batcher(&self, batcher: usize) -> &Arc<Batcher> {
        &self.batchers[batcher]
    }

    // ---- Calls that arrive ----

    /// Queues a call. An inline call waits only if it is throttled. `row` is the number of its row in a
    /// batch, if it has one.
    pub(crate) fn start(&self, call: Arc<OpenCall>, arguments: Arguments, row: Option<u64>) {
        match call.method().route {
            Route::Inline => self.start_inline(call, arguments),
            Route::Pool(pool) => self.enqueue(pool, call, arguments),
            Route::Batch(batcher) => match self.batchers[batcher].arrive(&call, arguments, row) {
                Ok(look_at) => self.shared.waits_until(look_at),
                Err(error) => call.refuse(&error),
            },
        }
    }

    fn start_inline(&self, call: Arc<OpenCall>, arguments: Arguments) {
        self.enqueue(self.inline_pool(), call.clone(), arguments);
        // Since the call is queued, this asks for its release.
        if call.reply().throttled_by().is_none() {
            self.release(&call.link);
        }
    }

    fn inline_pool(&self) -> usize {
        self.pools.len() - 1
    }

    fn enqueue(&self, pool: usize, call: Arc<OpenCall>, arguments: Arguments) {
        let deadline = call.deadline;
        match self.pools[pool].push(call, arguments) {
            Ok(()) => self.shared.waits_until(deadline),
            Err(call) => call.refuse(&closing()),
        }
    }

    /// Starts calls that were throttled by unfetched results of a link.
    pub(crate) fn release(&self, link: &Arc<Link>) {
        self.pools.iter().for_each(|queue| queue.release(link.key()));
        for batcher in &self.batchers {
            self.shared.waits_until(batcher.release(link.key()));
        }
        let inline = &self.pools[self.inline_pool()];
        let mut clock = TurnClock::default();
        let start = clock.start();
        while let Some((call, Arguments { mut tree, lease })) = inline.try_take() {
            let function = self.registry.function(call.method());
            run_inline(function, &Starting::known(&call, &call.reply()), &mut tree, lease, &mut clock);
            // Each is measured alone, since the turn has a limit.
            note_time(&call.caller, clock.end());
            if clock.start().saturating_duration_since(start) > MAX_TURN {
                // Other connections get their turn, and then this is called again.
                return link.await_drain(Quota { max_bytes: u64::MAX, max_bytes_but_largest: u64::MAX });
            }
        }
    }

    // ---- Calls that do not start ----

    /// Withdraws a call: frees its memory, or cancels its function. Returns true if it had not started.
    pub(crate) fn withdraw(&self, call: &OpenCall) -> bool {
        // First, so that a call that is not queued yet will not be.
        call.cancel();
        match call.method().route {
            Route::Batch(batcher) => self.batchers[batcher].withdraw(call).is_some(),
            Route::Pool(pool) => self.pools[pool].remove(call).is_some(),
            Route::Inline => self.pools[self.inline_pool()].remove(call).is_some(),
        }
    }

    /// Withdraws calls that their clients have given up.
    pub(crate) fn withdraw_all(&self, forgotten: Vec<Forgotten<OpenCall>>) {
        for call in forgotten.iter().flat_map(|forgotten| &forgotten.open).filter_map(Weak::upgrade) {
            self.withdraw(&call);
        }
    }

    /// Cancels the open call with this id, for its caller.
    pub(crate) fn cancel(&self, call: &OpenCall) {
        if self.withdraw(call) {
            call.refuse(&cancelled());
        }
    }

    /// Refuses queued calls whose deadline has passed. Does nothing before the next deadline.
    pub(crate) fn expire(&self, now: Instant) {
        if !self.shared.deadlines.begin(now) {
            return;
        }
        let mut next = None;
        for batcher in &self.batchers {
            let Expired { starved, next: earliest } = timeouts::expire(batcher, now);
            next = next.into_iter().chain(earliest).min();
            starved.iter().filter(|_| self.shared.log_limit.allows()).for_each(log_starved);
        }
        let mut overdue = Vec::new();
        for (calls, earliest) in self.pools.iter().map(|pool| pool.expire(now)) {
            overdue.extend(calls);
            next = next.into_iter().chain(earliest).min();
        }
        // This is the supervisor's thread, so it need not be woken.
        self.shared.deadlines.note(next);
        overdue.iter().for_each(|(call, _)| call.refuse(&late()));
    }
}
