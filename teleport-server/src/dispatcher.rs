//! Brings each call to its pool, batcher or function, and removes it again.
//!
//! Flow: `start` (a call arrived) -> a pool's queue, a batcher, or the function itself if it is inline. A
//! call whose client fetches no results is `throttled` until `release`. `withdraw` and `expire` remove calls
//! that have not started.
//!
//! Calls refer to their links, links to their connections, and connections to the dispatcher. So its
//! references to owners of calls are weak: [`Queues`] belongs to the supervisor, and each worker has its own
//! queue. Never waits.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use teleport_transport::protocol::Quota;
use teleport_transport::{Link, TurnClock};

use crate::api::options::Options;
use crate::batch::batcher::{Batcher, BatcherEnv};
use crate::batch::timeouts::{self, Expired, log_starved};
use crate::call::open_call::OpenCall;
use crate::call::refusal::{cancelled, closing, late};
use crate::call::route::Route;
use crate::exec::done::LogOrder;
use crate::exec::run::{Starting, run_inline};
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
    pub(crate) pools: Vec<Arc<Queue<OpenCall>>>,
    /// One for each batched method of the registry.
    pub(crate) batchers: Vec<Arc<Batcher>>,
}

impl Queues {
    pub(crate) fn new(registry: &Registry, shared: &Shared, spin: Duration) -> Queues {
        let pool = |plan: &PoolPlan| Arc::new(Queue::new(spin, &plan.batched));
        let inline = Arc::new(Queue::new(Duration::ZERO, &[]));
        let pools: Vec<Arc<Queue<OpenCall>>> = registry.pools.iter().map(pool).chain([inline]).collect();
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

/// Connects the connections to the functions.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Registry,
    /// The logs of logged calls, in order.
    pub(crate) log_order: Arc<LogOrder>,
    pub(crate) sessions: Sessions<OpenCall>,
    pub(crate) connections: ConnectionList,
    pools: Vec<Weak<Queue<OpenCall>>>,
    batchers: Vec<Weak<Batcher>>,
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
            pools: queues.pools.iter().map(Arc::downgrade).collect(),
            batchers: queues.batchers.iter().map(Arc::downgrade).collect(),
            registry,
        })
    }

    /// Returns a batcher; `None` once the server has ended.
    pub(crate) fn batcher(&self, batcher: usize) -> Option<Arc<Batcher>> {
        self.batchers[batcher].upgrade()
    }

    // ---- Calls that arrive ----

    /// Queues a call. An inline call waits only if it is throttled. `row` is the number of its row in a batch, if it has one.
    pub(crate) fn start(&self, call: Arc<OpenCall>, row: Option<u64>) {
        match call.method.route {
            Route::Inline => self.start_inline(call),
            Route::Pool(pool) => self.enqueue(pool, call),
            Route::Batch(batcher) => self.start_batched(batcher, &call, row),
        }
    }

    /// Queues an inline call that is throttled.
    fn start_inline(&self, call: Arc<OpenCall>) {
        let link = call.link.clone();
        self.enqueue(self.inline_pool(), call.clone());
        // Since the call is queued, this asks for its release.
        if call.reply().throttled_by().is_none() {
            self.release(&link);
        }
    }

    fn inline_pool(&self) -> usize {
        self.pools.len() - 1
    }

    fn enqueue(&self, pool: usize, call: Arc<OpenCall>) {
        let deadline = call.deadline;
        let pushed = self.pools[pool].upgrade().ok_or_else(|| call.clone());
        match pushed.and_then(|queue| queue.push(call)) {
            Ok(()) => self.shared.waits_until(deadline),
            Err(call) => self.refuse_all([call]),
        }
    }

    fn start_batched(&self, batcher: usize, call: &Arc<OpenCall>, row: Option<u64>) {
        let Some(batcher) = self.batcher(batcher) else { return self.refuse_all([call.clone()]) };
        match batcher.arrive(call, row) {
            Ok(look_at) => self.shared.waits_until(look_at),
            Err(error) => {
                // No worker can find the call without its row.
                drop(call.claim());
                call.refuse(&error);
            }
        }
    }

    /// Starts calls that were throttled by unfetched results of a link.
    pub(crate) fn release(&self, link: &Arc<Link>) {
        for queue in self.pools.iter().filter_map(Weak::upgrade) {
            queue.release(link.key());
        }
        for batcher in self.batchers.iter().filter_map(Weak::upgrade) {
            self.shared.waits_until(batcher.release(link.key()));
        }
        let Some(inline) = self.pools[self.inline_pool()].upgrade() else { return };
        let mut clock = TurnClock::default();
        let start = clock.start();
        while let Some(call) = inline.try_take() {
            // Withdrawn calls have no arguments.
            let Some(arguments) = call.claim() else { continue };
            let function = self.registry.function(&call.method);
            run_inline(function, &Starting::known(&call), arguments, &mut clock);
            if clock.start().saturating_duration_since(start) > MAX_TURN {
                // Other connections get their turn, and then this is called again.
                return link.await_drain(Quota { max_bytes: u64::MAX, max_bytes_but_largest: u64::MAX });
            }
        }
    }

    // ---- Calls that do not start ----

    /// Prevents a call from running. Returns true if it had not started.
    fn give_up(&self, call: &OpenCall) -> bool {
        match call.method.route {
            Route::Batch(batcher) => {
                self.batcher(batcher).is_some_and(|batcher| batcher.withdraw(call).is_some())
            }
            Route::Inline | Route::Pool(_) => call.claim().is_some(),
        }
    }

    /// Withdraws a call: frees its memory, or cancels its function. Returns true if it had not started.
    pub(crate) fn withdraw(&self, call: &OpenCall) -> bool {
        let had_not_started = self.give_up(call);
        if !had_not_started {
            call.cancel();
        }
        let pool = match call.method.route {
            Route::Pool(pool) => Some(pool),
            Route::Inline => Some(self.inline_pool()),
            Route::Batch(_) => None,
        };
        if let Some(queue) = pool.filter(|_| had_not_started).and_then(|pool| self.pools[pool].upgrade()) {
            queue.remove(call);
        }
        had_not_started
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

    /// Refuses calls because the server is closing.
    pub(crate) fn refuse_all(&self, calls: impl IntoIterator<Item = Arc<OpenCall>>) {
        for call in calls {
            if self.give_up(&call) {
                call.refuse(&closing());
            }
        }
    }

    /// Refuses queued calls whose deadline has passed. Does nothing before the next deadline.
    pub(crate) fn expire(&self, now: Instant) {
        if !self.shared.deadlines.begin(now) {
            return;
        }
        let (mut overdue, mut next) = (Vec::new(), None);
        for batcher in self.batchers.iter().filter_map(Weak::upgrade) {
            let Expired { starved, next: earliest } = timeouts::expire(&batcher, now);
            next = next.into_iter().chain(earliest).min();
            starved.iter().filter(|_| self.shared.log_limit.allows()).for_each(log_starved);
        }
        for (calls, earliest) in self.pools.iter().filter_map(Weak::upgrade).map(|pool| pool.expire(now)) {
            overdue.extend(calls);
            next = next.into_iter().chain(earliest).min();
        }
        // This is the supervisor's thread, so it need not be woken.
        self.shared.deadlines.note(next);
        for call in overdue {
            if self.give_up(&call) {
                call.refuse(&late());
            }
        }
    }
}
