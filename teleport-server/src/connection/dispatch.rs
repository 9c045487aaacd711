//! One connected client, as the server sees it: its calls without an answer, and what becomes of them.
//!
//! Flow: the poller tells what arrived -> a call goes to its pool's queue, or runs here if its method is inline -> a
//! cancel or the end of the connection withdraws what has not started and tells what runs. Never blocks. Bound: as many
//! calls as the server allows a connection at once (`max_open_calls`).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Closed, SlowCalls};
use teleport_transport::wire::{ErrorKind, Hello, Limits, Message, Ran, RemoteError, Resume};
use teleport_transport::{Call, Handler, IdMap, Link, Ticket, Wakers};

use crate::call::{Arguments, OpenCall};
use crate::connection::credit::Reservation;
use crate::connection::slow_reader::SlowReader;
use crate::connection::throttled::{Throttle, Throttled};
use crate::exec::worker;
use crate::refusal::closing;
use crate::route::Route;
use crate::runtime::shared::Shared;
use crate::session::session::{Forgotten, Session, unknown};

/// Inline calls that waited for results to leave have so much time on the poller before others get their turn.
const MAX_TURN: Duration = Duration::from_millis(2);

/// How long a client has to read which rule it broke.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// What a client said of itself.
#[derive(Debug)]
struct Introduction {
    name: String,
    limits: Limits,
    /// Calls that it has open at most; 0 if it did not say.
    max_inflight: u32,
}

/// The client at the other end of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    me: Weak<Connection>,
    pub(crate) shared: Arc<Shared>,
    introduction: OnceLock<Introduction>,
    /// Where calls that survive this connection are kept.
    session: OnceLock<Arc<Session>>,
    /// Other calls that have no answer. Inline ones are answered before anything else happens here, unless they are throttled.
    open: Mutex<IdMap<Arc<OpenCall>>>,
    /// Those of them that wait until the client has fetched results.
    throttled: Throttled,
    /// How it fetches results of batches.
    slow_reader: SlowReader,
    /// What pays for its eager credit until the connection has ended; functions may keep the rest of this for longer.
    reservation: Mutex<Option<Reservation>>,
}

impl Connection {
    pub(crate) fn new(shared: &Arc<Shared>, reservation: Option<Reservation>) -> Arc<Connection> {
        Arc::new_cyclic(|me| Connection {
            me: me.clone(),
            shared: shared.clone(),
            introduction: OnceLock::new(),
            session: OnceLock::new(),
            open: Mutex::default(),
            throttled: Throttled::default(),
            slow_reader: SlowReader::default(),
            reservation: Mutex::new(reservation),
        })
    }

    /// Its name, or its address if it gave none.
    pub(crate) fn name<'a>(&'a self, link: &'a Link) -> &'a str {
        match self.introduction.get() {
            Some(introduction) if !introduction.name.is_empty() => &introduction.name,
            _ => link.peer_address(),
        }
    }

    /// What a message to it must keep to.
    pub(crate) fn limits(&self) -> Limits {
        self.introduction.get().map(|introduction| introduction.limits).unwrap_or_default()
    }

    /// How many calls it has open at most; 0 if it did not say.
    pub(crate) fn max_inflight(&self) -> u32 {
        self.introduction.get().map_or(0, |introduction| introduction.max_inflight)
    }

    /// Whether its hello has come.
    pub(crate) fn is_introduced(&self) -> bool {
        self.introduction.get().is_some()
    }

    /// A call was answered.
    pub(crate) fn forget(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    /// Takes note of a call that has arrived whole; false if it must not run.
    fn keep(&self, link: &Arc<Link>, call: &Arc<OpenCall>, session: Option<&Arc<Session>>) -> bool {
        let Some(session) = session else {
            if call.method.route != Route::Inline {
                self.open.lock().insert(call.id, call.clone());
            }
            return true;
        };
        match session.arrived(link, call) {
            Ok(()) => link.acknowledge(call.id),
            Err(rule) => {
                if self.shared.log_limit.allows() {
                    let (name, peer) = (self.name(link), link.peer_address());
                    tracing::warn!(
                        name,
                        peer,
                        "a connection ended: the peer does not keep to the protocol: {rule}"
                    );
                }
                link.close(Some(ErrorKind::Protocol), rule, GOODBYE_TIME);
                return false;
            }
        }
        true
    }

    fn queue(&self, call: Arc<OpenCall>, pool: usize) {
        // Behind those of its connection that are kept, if there are any.
        if self.throttled.len() > 0 && self.keeps(&call) {
            return;
        }
        let deadline = call.deadline;
        match self.shared.pools[pool].push(call) {
            Ok(()) => self.shared.waits_until(deadline),
            Err(call) => refuse_all([call]),
        }
    }

    /// A call is to run in a batch; its row has this number, if it has one.
    fn batch(&self, call: Arc<OpenCall>, batcher: usize, key: Option<u64>) {
        let batcher = &self.shared.batchers[batcher];
        // Behind those of its connection that are kept, if there are any.
        let is_held = self.throttled.len() > 0;
        match batcher.arrive(&call, key, is_held) {
            Ok(look_at) => self.shared.waits_until(look_at),
            Err(error) => {
                // Nobody else can run it; a worker would have found it with its row.
                drop(call.claim());
                return call.refuse(&error);
            }
        }
        if is_held && !self.keeps(&call) {
            self.shared.waits_until(batcher.resume(&call));
        }
    }

    fn run_inline(&self, call: Arc<OpenCall>) {
        // Only one that has to wait can be withdrawn: what is cheap stays so.
        if self.must_wait(&call) || self.throttled.len() > 0 {
            if !call.survives() {
                self.open.lock().insert(call.id, call.clone());
            }
            if self.keeps(&call) {
                return;
            }
        }
        worker::run_inline(&self.shared, &call);
    }

    /// Withdraws a call; true if it had not started.
    fn withdraw(&self, call: &OpenCall) -> bool {
        let waited = call.give_up();
        let was_parked = waited && self.throttled.remove(call.id);
        match call.method.route {
            Route::Pool(pool) if waited && !was_parked => {
                self.shared.pools[pool].remove(call);
            }
            _ => call.cancel(),
        }
        waited
    }

    // ---- Calls that wait for results to leave ----

    /// A call without a connection waits for nobody: what is kept of its answer has a bound of its own.
    pub(crate) fn must_wait(&self, call: &OpenCall) -> bool {
        let is_past_quota = |link: &Link| self.shared.is_past_quota(link.unsent_bytes());
        if call.survives() {
            call.way().is_some_and(|link| is_past_quota(&link))
        } else {
            is_past_quota(&call.link)
        }
    }

    /// Whether the answer of a call would wait for long before it is sent.
    pub(crate) fn answers_late(&self, call: &OpenCall, now: Instant) -> bool {
        if !call.survives() {
            return self.slow_reader.is_slow(&call.link, now);
        }
        // Without a connection it is kept for the next one.
        call.way().is_none_or(|link| self.slow_reader.is_slow(&link, now))
    }

    /// Whether a call may not start now, since its client has left too many results unfetched. It is kept then, and comes
    /// back once half of them have gone: so that not each chunk that goes moves all calls.
    pub(crate) fn keeps(&self, call: &Arc<OpenCall>) -> bool {
        self.keeps_if(call, || self.must_wait(call))
    }

    fn keeps_if(&self, call: &Arc<OpenCall>, must_wait: impl FnOnce() -> bool) -> bool {
        match self.throttled.park(call, must_wait) {
            Throttle::Starts => return false,
            Throttle::Kept => match call.way() {
                Some(link) => link.await_drain(self.shared.quota(link.unsent_bytes()).half()),
                // The connection has ended meanwhile, and this call stood nowhere then.
                None => self.start_throttled(),
            },
            Throttle::Closed => refuse_all([call.clone()]),
        }
        // Withdrawn before it stood there.
        if !call.waits() {
            self.throttled.remove(call.id);
        }
        self.shared.waits_until(call.deadline);
        true
    }

    /// Starts calls that were kept, as far as they may.
    fn start_throttled(&self) {
        let mut inline = Vec::new();
        let mut pooled: HashMap<usize, Vec<Arc<OpenCall>>> = HashMap::new();
        for call in self.throttled.take_all() {
            match call.method.route {
                Route::Pool(pool) => pooled.entry(pool).or_default().push(call),
                Route::Batch(batcher) => {
                    let look_at = self.shared.batchers[batcher].resume(&call);
                    self.shared.waits_until(look_at);
                }
                Route::Inline => inline.push(call),
            }
        }
        for (pool, calls) in pooled {
            let deadline = calls.iter().filter_map(|call| call.deadline).min();
            self.shared.pools[pool].push_first(calls).unwrap_or_else(refuse_all);
            self.shared.waits_until(deadline);
        }
        let start = Instant::now();
        for call in inline {
            if !self.keeps_if(&call, || start.elapsed() > MAX_TURN || self.must_wait(&call)) {
                worker::run_inline(&self.shared, &call);
            }
        }
    }

    /// As `start_throttled`, also for calls of earlier connections, whose answers go to this one.
    fn start_all_throttled(&self) {
        self.start_throttled();
        self.origins().iter().for_each(|peer| peer.start_throttled());
    }

    /// Where calls that survive came from: they are kept there, also when that connection has ended and another has
    /// taken its place.
    pub(crate) fn origins(&self) -> Vec<Arc<Connection>> {
        self.session.get().map(|session| session.origins()).unwrap_or_default()
    }

    /// Calls that are kept.
    pub(crate) fn throttled(&self) -> usize {
        self.throttled.len()
    }

    /// Takes out calls that are kept and whose time is over, and gives the earliest deadline of the rest.
    pub(crate) fn expire_throttled(&self, now: Instant) -> (Vec<Arc<OpenCall>>, Option<Instant>) {
        self.throttled.expire(now)
    }

    /// Keeps no calls from now on, and gives those that were.
    pub(crate) fn close_throttled(&self) -> impl Iterator<Item = Arc<OpenCall>> + use<> {
        self.throttled.close()
    }
}

/// Answers calls that find no queue any more, or are left in one.
pub(crate) fn refuse_all(calls: impl IntoIterator<Item = Arc<OpenCall>>) {
    for call in calls {
        if call.give_up() {
            call.refuse(&closing());
        }
    }
}

/// Withdraws calls that their clients have given up.
pub(crate) fn withdraw(forgotten: Vec<Forgotten>) {
    for call in forgotten.into_iter().flat_map(|forgotten| forgotten.open) {
        call.connection.withdraw(&call);
    }
}

impl Handler for Connection {
    fn opened(&self, link: &Arc<Link>, hello: &Hello) {
        let introduction = Introduction {
            name: hello.name.clone(),
            limits: hello.limits,
            max_inflight: hello.max_open_calls,
        };
        // A second hello is a fault of protocol, which ends the link before this is called.
        if self.introduction.set(introduction).is_ok() {
            self.shared.counters.clients.add();
            tracing::debug!(peer = link.peer_address(), name = hello.name, "a client connected");
            if link.resumes() {
                let _ = self.session.set(self.shared.sessions.opened(hello.session, link));
            }
        }
    }

    fn called(&self, link: &Arc<Link>, call: Call) {
        self.shared.counters.calls.add();
        let Call { id, slot, tree, row, deadline, resume, lease, .. } = call;
        // `admit` gave the number, and this link keeps its handler for as long as it lives.
        let (Some(me), Some(entry)) = (self.me.upgrade(), self.shared.registry.entry(slot)) else { return };
        let tree = match tree {
            Ok(tree) => tree,
            Err(error) => {
                self.shared.counters.failed.add();
                let error = RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string());
                // Fails when the link is over: nobody waits for the answer then.
                let _ = link.answer(id, Message::error(&error));
                return;
            }
        };
        let session = self.session.get().filter(|_| resume);
        let arguments = Arguments { tree, lease };
        let call = Arc::new(OpenCall::new(&me, link, id, entry, deadline, session.cloned(), arguments));
        if !self.keep(link, &call, session) {
            return;
        }
        let key = row.map(Ticket::complete);
        match entry.route {
            Route::Batch(batcher) => self.batch(call, batcher, key),
            Route::Inline => self.run_inline(call),
            Route::Pool(pool) => self.queue(call, pool),
        }
    }

    fn cancelled(&self, _link: &Arc<Link>, id: u64) {
        let call = self.open.lock().get(&id).cloned();
        let call = call.or_else(|| self.session.get().and_then(|session| session.open(id)));
        // One of an earlier connection waits there, if it is throttled.
        if let Some(call) = call
            && call.connection.withdraw(&call)
        {
            let text = "the caller withdrew the call before it started";
            call.refuse(&RemoteError::new(ErrorKind::Cancelled, Ran::No, text));
        }
    }

    fn drained(&self, _link: &Arc<Link>) {
        self.start_all_throttled();
    }

    fn gave_up(&self, link: &Arc<Link>, SlowCalls { arguments, results }: SlowCalls) {
        if self.shared.log_limit.allows() {
            let (name, peer) = (self.name(link), link.peer_address());
            tracing::warn!(
                name,
                peer,
                arguments,
                results,
                "calls were given up: slower than `min_rate` with memory that others waited for"
            );
        }
    }

    fn acknowledged(&self, _link: &Arc<Link>, ids: &[u64]) {
        if let Some(session) = self.session.get() {
            session.acknowledged(ids);
        }
    }

    fn resuming(&self, link: &Arc<Link>, resume: Resume) {
        match self.session.get() {
            Some(session) if resume.server == self.shared.instance => {
                withdraw(vec![session.resuming(link, resume)]);
            }
            // Fails when the link is over: nobody waits for the answer then.
            _ => drop(link.answer_resume(unknown(&resume), Vec::new())),
        }
    }

    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, _wakers: &mut Wakers) {
        let open = std::mem::take(&mut *self.open.lock());
        for call in open.values() {
            self.withdraw(call);
        }
        if let Some(session) = self.session.get() {
            let is_goodbye = matches!(**reason, Closed::Goodbye { .. });
            withdraw(self.shared.sessions.closed(session, link, is_goodbye, Instant::now()));
            // Those that survive wait for nobody now.
            self.start_all_throttled();
        }
        drop(self.reservation.lock().take());
        if self.is_introduced() {
            self.shared.counters.clients.take_back();
        }
        self.shared.connection_ended(link.key());
        self.log_end(link, reason, open.len());
    }
}

impl Connection {
    /// One line for each connection that ended otherwise than by being closed.
    fn log_end(&self, link: &Link, reason: &Closed, open_calls: usize) {
        let (name, peer) = (self.name(link), link.peer_address());
        if matches!(reason, Closed::Goodbye { .. } | Closed::Here) {
            tracing::debug!(name, peer, open_calls, "a connection ended: {reason}");
        } else if !self.shared.log_limit.allows() {
            // Counted there.
        } else if matches!(reason, Closed::Lost { .. }) {
            tracing::info!(name, peer, open_calls, "a connection ended: {reason}");
        } else {
            tracing::warn!(name, peer, open_calls, "a connection ended: {reason}");
        }
    }
}
