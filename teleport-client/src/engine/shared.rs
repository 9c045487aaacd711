//! What all clones of a client, its calls and its futures share.
//!
//! Flow out: a call acquires a slot -> is encoded for this server -> goes to the link, which writes it on the caller's own
//! thread as far as the socket takes it; a small one may wait there for others, until that thread waits for anything
//! (`release_held`), or for the poller's second look. Flow in: whoever reads the link, a thread that waits for an answer or the
//! poller -> `answered` -> the call's flight -> whoever waits. A lost connection fails what was in flight and starts a thread that connects again.
//!
//! Locks: `state` is held for a few instructions, never while a link, a waker or user code runs. A link may take it
//! while it holds its own locks, so nothing that takes those is called under it.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Closed, Gate, SendError, Withdrawn};
use teleport_transport::wire::{
    CallAnswer, CallHead, ErrorKind, Hello, Key, Limits, Message, Ran, RemoteError, Tree,
};
use teleport_transport::{
    Budget, Config, Driver, ForkGuard, Handler, Interrupted, Link, Poller, Reply, Wakers,
    block_on_interruptible, block_on_or_unwind, on_poller_thread, release_held,
};

use crate::api::on_disconnect::OnDisconnect;
use crate::api::stats::Meter;
use crate::calls::pending::{Deadline, Outcome, PendingCall, Place, Survival, Waiting};
use crate::calls::resume::Opening;
use crate::calls::slot::OpenConnection;
use crate::calls::state::{Acquired, GivenUp, Overdue, State, earliest};
use crate::connect::backoff;
use crate::connect::resolver::Resolver;
use crate::engine::timer::{Alarm, AlarmId, Timer};
use crate::error::call::CallError;
use crate::error::connect::AttemptError;

/// How long a goodbye may take to reach the server, once nothing waits for an answer.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// A server has a bound on unsent results too, past which it starts no calls of this client. So results that were deferred
/// come when somebody has waited for a later call for one to two times this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a client was built with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) address: Arc<str>,
    pub(crate) max_inflight: usize,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) errors_from_next_call: bool,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) max_memory: u64,
    pub(crate) resolvers: Vec<Resolver>,
    pub(crate) config: Arc<Config>,
    /// Starts the thread that connects: [`dial::start`](crate::connect::dial::start), but in a test.
    pub(crate) dialler: fn(Arc<Engine>) -> io::Result<()>,
}

/// A call as its caller describes it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Key,
    pub(crate) tree: Tree,
    pub(crate) deadline: Option<Duration>,
    pub(crate) is_idempotent: bool,
    pub(crate) on_disconnect: OnDisconnect,
}

impl Request {
    /// What it takes to send the call again, if it is to survive its connection.
    fn survival(&self) -> Option<Survival> {
        (self.on_disconnect == OnDisconnect::Resume)
            .then(|| Survival::new(self.is_idempotent, self.tree.clone()))
    }
}

/// Why a call with a slot was not sent.
pub(crate) enum Unsent {
    /// The connection ended meanwhile, and nothing of the call left: it may wait for the next one.
    Again,
    Failed(CallError),
}

pub(crate) struct Engine {
    me: Weak<Engine>,
    /// Where its threads are.
    pub(crate) fork_guard: ForkGuard,
    pub(crate) settings: Settings,
    pub(crate) poller: Poller,
    pub(crate) state: Mutex<State<Arc<Link>>>,
    /// Threads that wait for a change of the state, to connect or to close. Bound: one entry a thread.
    watching: Mutex<Wakers>,
    timer: &'static Timer,
    alarm: AlarmId,
    pub(crate) meter: Meter,
    /// What pays for results that have come, or may come, and were not read.
    pub(crate) budget: Budget,
    /// Whether the log has told that calls wait for slots of unread results.
    told_of_slots: AtomicBool,
    /// Futures that are alive.
    pub(crate) futures: AtomicUsize,
    pub(crate) waiting: Waiting,
}

impl Engine {
    pub(crate) fn new(settings: Settings) -> io::Result<Arc<Engine>> {
        let now = Instant::now();
        let state =
            State::new(settings.max_inflight, settings.connect_timeout, settings.address.clone(), now);
        #[cfg(feature = "threads")]
        let_threads_interrupt_waits();
        let (poller, timer) = (Poller::shared()?.clone(), Timer::shared()?);
        Ok(Arc::new_cyclic(|me| Engine {
            me: me.clone(),
            fork_guard: ForkGuard::current(),
            budget: Budget::new(settings.max_memory),
            told_of_slots: AtomicBool::new(false),
            settings,
            poller,
            state: Mutex::new(state),
            watching: Mutex::default(),
            timer,
            alarm: AlarmId::new(),
            meter: Meter::new(now),
            futures: AtomicUsize::new(0),
            waiting: Waiting::default(),
        }))
    }

    /// The right to read the connection, if no other thread has it: one that waits for an answer reads it itself.
    pub(crate) fn driver(&self) -> Option<Driver> {
        if on_poller_thread() || !self.fork_guard.is_current() {
            return None;
        }
        let link = self.state.lock().door().map(|door| door.link.clone());
        link.and_then(|link| link.drive())
    }

    /// In a process that was forked from the client's, before any lock: a thread may hold it that is not here.
    pub(crate) fn check_home(&self, method: &Key, ran: Ran) -> Result<(), CallError> {
        if self.fork_guard.is_current() {
            Ok(())
        } else {
            Err(CallError::Forked { method: method.clone(), ran })
        }
    }

    // ---- Sending ----

    /// A slot, or a place in the line for one.
    pub(crate) fn acquire(
        &self,
        request: &Request,
        deadline: Option<Deadline>,
    ) -> Result<Acquired<Arc<Link>>, CallError> {
        let (acquired, dials) = {
            let mut state = self.state.lock();
            self.earlier_failure(&mut state)?;
            let acquired = state.acquire(&request.method, deadline, Instant::now)?;
            let mut dials = false;
            if let Acquired::Later(pass) = &acquired {
                if let Some(at) = state.expiry(pass) {
                    self.arm(&mut state, at);
                }
                dials = state.needs_dial();
            }
            (acquired, dials)
        };
        if dials {
            self.dial();
        }
        Ok(acquired)
    }

    /// A slot that is free now.
    pub(crate) fn try_acquire(&self, request: &Request) -> Result<Arc<OpenConnection<Arc<Link>>>, CallError> {
        let mut state = self.state.lock();
        self.earlier_failure(&mut state)?;
        state.try_acquire(&request.method)
    }

    fn earlier_failure(&self, state: &mut State<Arc<Link>>) -> Result<(), CallError> {
        match state.take_failure_if(self.settings.errors_from_next_call) {
            Some(error) => Err(CallError::Earlier { source: Box::new(error) }),
            None => Ok(()),
        }
    }

    /// Sends a call with the slot that it was given. The slot is given back if it cannot.
    pub(crate) fn launch(
        &self,
        door: &OpenConnection<Arc<Link>>,
        request: &Request,
        deadline: Option<Deadline>,
    ) -> Result<Arc<PendingCall>, Unsent> {
        let failed = |error| {
            self.give_back();
            Unsent::Failed(error)
        };
        let method = || request.method.clone();
        let flight = PendingCall::new(method(), deadline, request.survival());
        let message = encode(&flight, &request.tree, &door.limits).map_err(failed)?;
        let bytes = message.payload_bytes;
        let mut under_way = None;
        let sent = door.link.call(message, |id| {
            let place = Place { connection: door.connection, id };
            let flight = Arc::new(flight.placed(place));
            under_way = self.state.lock().sent(place, &flight).then_some(flight);
        });
        match (sent, under_way) {
            (Ok(_), Some(flight)) => {
                self.meter.sent(bytes);
                self.arm_for(&flight);
                Ok(flight)
            }
            (Ok(id), None) => {
                self.give_back();
                Err(self.sent_too_late(door, id, method()))
            }
            (Err(SendError::TooManyCalls { max_open_calls }), _) => {
                Err(failed(CallError::Full { method: method(), max_inflight: max_open_calls as usize }))
            }
            (Err(_), _) => {
                self.give_back();
                self.found_over(&door.link);
                Err(Unsent::Again)
            }
        }
    }

    /// A call went to a link after that had told of its end.
    fn sent_too_late(&self, door: &OpenConnection<Arc<Link>>, id: u64, method: Key) -> Unsent {
        match door.link.withdraw(id) {
            Withdrawn::NeverSent => Unsent::Again,
            _ => {
                let here = Arc::new(Closed::Here);
                Unsent::Failed(CallError::lost(method, door.link.closed().unwrap_or(&here), Ran::Maybe))
            }
        }
    }

    /// A link takes nothing any more, though it has not told so yet.
    fn found_over(&self, link: &Arc<Link>) {
        let mut wakers = Wakers::default();
        let here = Arc::new(Closed::Here);
        self.lose(link, link.closed().unwrap_or(&here), &mut wakers);
        wakers.wake_all();
    }

    fn give_back(&self) {
        let mut wakers = Wakers::default();
        self.state.lock().give_back(&mut wakers);
        self.settle(wakers);
    }

    /// A call no longer waits for a slot.
    pub(crate) fn leave(&self, pass: &Arc<crate::calls::slot::SlotWaiter<Arc<Link>>>) {
        let mut wakers = Wakers::default();
        self.state.lock().leave(pass, &mut wakers);
        self.settle(wakers);
    }

    // ---- Waiting ----

    /// **Blocks** until `look` finds something in the state, at most until `until`. In a thread that is killed it does not
    /// return.
    pub(crate) fn wait<T>(
        &self,
        until: Option<Instant>,
        mut look: impl FnMut(&mut State<Arc<Link>>) -> Option<T>,
    ) -> Option<T> {
        block_on_or_unwind(&mut None, until, |cx| self.poll_state(cx, &mut look))
    }

    fn poll_state<T>(
        &self,
        cx: &mut Context<'_>,
        look: impl FnOnce(&mut State<Arc<Link>>) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.state.lock();
        match look(&mut state) {
            Some(found) => Poll::Ready(found),
            None => {
                // Under the lock: who changes the state has it first, and then finds the waker.
                self.watching.lock().push_once(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Has those who wait for a change of the state look at it. Their wakers are those of threads, and take no lock.
    pub(crate) fn notify(&self) {
        let mut watching = mem::take(&mut *self.watching.lock());
        watching.wake_all();
    }

    // ---- Outcomes ----

    /// Hands an outcome to the call's future; where there is none, an error is kept for `check`.
    pub(crate) fn complete(&self, flight: &PendingCall, outcome: Outcome, wakers: &mut Wakers) {
        if let Some(Err(error)) = flight.complete(outcome, &self.waiting, wakers) {
            self.report(error);
        }
    }

    /// Keeps the failure of a call whose future was dropped.
    pub(crate) fn report(&self, error: CallError) {
        tracing::debug!(%error, "a call without a future failed");
        let text = error.to_string();
        if !self.state.lock().report(error) {
            tracing::warn!(error = text, "a call failed, and too many failures wait for `check` to keep it");
        }
    }

    /// Somebody waits for an outcome, or looked for it, and it has not come: what this thread holds back goes, and somebody reads.
    pub(crate) fn awaited(&self, flight: &PendingCall) {
        self.send_for(flight);
        self.look_for_answers();
    }

    /// This thread waits: what it holds back goes, and somebody reads what comes.
    pub(crate) fn look_for_answers(&self) {
        release_held();
        let link = self.state.lock().link();
        if let Some(link) = link {
            link.expect_answers();
        }
    }

    /// Somebody asked for an outcome, or gave it up: a result that waits for memory is taken without, to be read or dropped.
    pub(crate) fn send_for(&self, flight: &PendingCall) {
        if !flight.take_deferred() {
            return;
        }
        let Some(place) = flight.place() else { return };
        let link = self.state.lock().link();
        if let Some(link) = link.filter(|link| link.key() == place.connection) {
            link.want(place.id);
        }
    }

    /// Withdraws a call that was sent. Says whether it may have run; none if it has ended already.
    pub(crate) fn withdraw(&self, flight: &PendingCall) -> Option<Ran> {
        let place = flight.place()?;
        let mut wakers = Wakers::default();
        let given_up = self.state.lock().withdraw(place, &mut wakers)?;
        let ran = match given_up {
            GivenUp::On(door) => self.withdraw_from(&door.link, place, &mut wakers),
            GivenUp::Without(ran) => ran,
        };
        self.settle(wakers);
        Some(ran)
    }

    pub(crate) fn withdraw_from(&self, link: &Arc<Link>, place: Place, wakers: &mut Wakers) -> Ran {
        match link.withdraw(place.id) {
            // A call that did not arrive whole never runs, and gets no answer.
            Withdrawn::NeverSent | Withdrawn::Aborted => {
                self.state.lock().forget(place, wakers);
                Ran::No
            }
            Withdrawn::Requested => Ran::Maybe,
            // Its result may wait for memory: it comes, and is dropped. The link may be reading: it told of this connection.
            Withdrawn::NotOpen => {
                link.want_later(place.id);
                Ran::Maybe
            }
        }
    }

    // ---- Connections ----

    /// A connection is over: fails those of its calls that do not survive it, and connects anew.
    fn lose(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers) {
        // Before the state is locked: a link may take that under its own locks.
        let states = link.call_states().into_iter().collect();
        let (flights, dials) = {
            let mut state = self.state.lock();
            let flights = state.lost(link.key(), reason, &states, Instant::now());
            if flights.is_some()
                && let Some(at) = state.next_expiry()
            {
                self.arm(&mut state, at);
            }
            (flights, state.needs_dial())
        };
        self.notify();
        let Some(flights) = flights else { return };
        tracing::info!(server = link.peer_address(), %reason, failed = flights.len(), "disconnected");
        for (flight, ran) in flights {
            self.complete(&flight, Err(CallError::lost(flight.method.clone(), reason, ran)), wakers);
        }
        if dials {
            self.dial();
        }
        self.end_if_idle(wakers);
    }

    /// Starts the thread that connects. Whoever finds that it is needed has set `dialing`.
    fn dial(&self) {
        let Some(engine) = self.me.upgrade() else { return };
        let Err(error) = (self.settings.dialler)(engine) else { return };
        tracing::error!(%error, "no thread to connect with: it is tried again");
        let mut state = self.state.lock();
        state.not_dialed(AttemptError::System(error));
        // Calls that wait already ask nobody: without this they would wait for ever.
        let at = Instant::now() + state.backoff.wait(backoff::random());
        self.arm(&mut state, at);
    }

    // ---- Time ----

    /// Calls wait for slots, and results for their futures to be read: if one thread does both, it waits for itself.
    fn tell_of_slots(&self) {
        if !self.told_of_slots.swap(true, Ordering::Relaxed) {
            let (address, max_memory) = (&*self.settings.address, self.settings.max_memory);
            tracing::warn!(
                address,
                max_memory,
                "calls wait for slots that results hold which nobody reads: read them before, or raise `max_memory`"
            );
        }
    }

    pub(crate) fn arm(&self, state: &mut State<Arc<Link>>, at: Instant) {
        if state.armed.is_none_or(|armed| at < armed) {
            self.set_alarm(state, at);
        }
    }

    /// Has the clock looked at when the time of a call that was sent is over.
    pub(crate) fn arm_for(&self, flight: &PendingCall) {
        if let Some(deadline) = flight.deadline {
            self.arm(&mut self.state.lock(), deadline.at);
        }
    }

    /// A result is deferred: somebody may come to wait for what is behind it. Kept in the state, since the alarm may be ringing
    /// already, and the budget knows of the result only after this.
    fn be_patient(&self, state: &mut State<Arc<Link>>, now: Instant) {
        // One that lies in the past is what the alarm rings for now, which no longer counts it.
        let until = state.patient_until.filter(|until| *until > now).unwrap_or(now + PATIENCE);
        state.patient_until = Some(until);
        self.arm(state, until);
    }

    fn set_alarm(&self, state: &mut State<Arc<Link>>, at: Instant) {
        let before = state.armed.replace(at);
        let me: Weak<dyn Alarm> = self.me.clone();
        self.timer.set(self.alarm, before, at, me);
    }

    // ---- The end ----

    /// Wakes whom a change concerns, and ends if this client was closed and the last call has ended.
    fn settle(&self, mut wakers: Wakers) {
        self.end_if_idle(&mut wakers);
        wakers.wake_all();
    }

    pub(crate) fn end_if_idle(&self, wakers: &mut Wakers) {
        let (closing, ends) = {
            let state = self.state.lock();
            (state.is_closing(), state.is_closing() && state.is_idle() && !state.is_over())
        };
        if ends {
            self.end(wakers);
        } else if closing {
            self.notify();
        }
    }

    /// Says goodbye. Calls that are still in flight fail.
    fn end(&self, wakers: &mut Wakers) {
        let (door, flights) = self.state.lock().end(wakers);
        self.notify();
        for flight in flights {
            let error = CallError::Closed { method: flight.method.clone(), ran: Ran::Maybe };
            self.complete(&flight, Err(error), wakers);
        }
        if let Some(door) = door {
            door.link.close(None, "", GOODBYE_TIME);
        }
    }

    /// Takes no more calls.
    fn begin_close(&self) {
        // What this thread holds back, on this link or another, is waited for too.
        release_held();
        let mut wakers = Wakers::default();
        let deferred = {
            let mut state = self.state.lock();
            state.begin_close(&mut wakers);
            state.flights()
        };
        wakers.wake_all();
        // They are waited for now, whether or not anyone will read them.
        for flight in deferred {
            flight.expect();
            self.send_for(&flight);
        }
    }

    /// Waits up to `within` for the answers that `wanted` says are still waited for, and no longer in a thread that is killed.
    fn wait_while(&self, within: Duration, wanted: fn(&State<Arc<Link>>) -> bool) -> Result<(), Interrupted> {
        let until = Instant::now().checked_add(within);
        let is_done = |state: &mut State<_>| (state.is_over() || !wanted(state)).then_some(());
        block_on_interruptible(&mut None, until, |cx| self.poll_state(cx, is_done)).map(drop)
    }

    fn end_unless(&self, spare: fn(&State<Arc<Link>>) -> bool) {
        let ends = {
            let state = self.state.lock();
            !state.is_over() && !spare(&state)
        };
        if ends {
            let mut wakers = Wakers::default();
            self.end(&mut wakers);
            wakers.wake_all();
        }
    }

    /// Closes for everyone: waits for all calls in flight. If this thread is interrupted meanwhile, the time is over.
    pub(crate) fn close(&self, within: Duration) -> Result<(), Interrupted> {
        self.begin_close();
        let waited = self.wait_while(within, State::has_calls);
        self.end_unless(|_| false);
        waited
    }

    /// The last client is gone: waits for the calls without a future; those with one go on.
    pub(crate) fn release(&self, within: Duration) {
        self.begin_close();
        match self.wait_while(within, State::has_detached) {
            Ok(()) => self.end_unless(State::has_held),
            Err(_) => self.end_unless(State::has_calls),
        }
    }

    /// As `release`, but calls without a future go on too.
    pub(crate) fn release_at_once(&self) {
        self.begin_close();
        self.end_unless(State::has_calls);
    }
}

/// A call as a message to a server of these limits, with what is left of its time.
pub(crate) fn encode(flight: &PendingCall, tree: &Tree, limits: &Limits) -> Result<Message, CallError> {
    let left = flight.deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
    if let Some(deadline) = flight.deadline.filter(|_| left.is_some_and(|left| left.is_zero())) {
        return Err(deadline.error(&flight.method, Ran::No));
    }
    let (idempotent, resume) = (flight.is_idempotent(), flight.resumes());
    let head = CallHead { deadline: left, idempotent, resume, ..CallHead::new(&flight.method) };
    Message::call(&head, tree, limits).map_err(|error| CallError::encode(flight.method.clone(), error))
}

/// A `Thread` of `teleport-proc` that is killed ends where it waits for a client.
#[cfg(feature = "threads")]
fn let_threads_interrupt_waits() {
    teleport_transport::InterruptHook {
        is_interruptible: teleport_proc::is_interruptible,
        poll_interrupted: teleport_proc::poll_killed,
        unwind: teleport_proc::checkpoint,
    }
    .install();
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Else the timer would keep the memory until then.
        if let Some(at) = self.state.get_mut().armed.filter(|_| self.fork_guard.is_current()) {
            self.timer.unset(self.alarm, at);
        }
    }
}

impl Gate for Engine {
    /// A client answers no calls; the link refuses them before it asks.
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        let text = format!("a client has no methods, and so no {method:?}");
        Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, text))
    }
}

impl Handler for Engine {
    fn opened(&self, link: &Arc<Link>, peer: &Hello) {
        let door = OpenConnection {
            link: link.clone(),
            connection: link.key(),
            limits: peer.limits,
            max_open_calls: peer.max_open_calls as usize,
            server: peer.instance,
        };
        let (opening, last_id) = {
            let mut state = self.state.lock();
            let opening = state.begin(&Arc::new(door), Instant::now());
            if !matches!(opening, Opening::TooLate) {
                // Under the lock: who finds the connection finds it counted.
                self.meter.connected();
            }
            (opening, state.last_id())
        };
        link.number_after(last_id);
        // The thread that connects waits for this, and lets the waiting calls go.
        self.notify();
        if let Opening::TooLate = opening {
            return link.close(None, "", GOODBYE_TIME);
        }
        tracing::info!(server = link.peer_address(), name = peer.name, "connected");
        if let Opening::Resume(resume) = opening {
            self.ask(link, resume);
        }
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.any()
    }

    fn acknowledged(&self, link: &Arc<Link>, ids: &[u64]) {
        self.server_has(link, ids);
    }

    fn resumed(&self, link: &Arc<Link>, calls: Vec<(u64, CallAnswer)>, wakers: &mut Wakers) {
        self.go_on(link, &calls, wakers);
    }

    fn is_awaited(&self, link: &Arc<Link>, id: u64) -> bool {
        let mut state = self.state.lock();
        let flight = state.flight(Place { connection: link.key(), id });
        // Closing waits for all of them.
        let is_awaited = state.is_closing() || flight.is_none_or(|flight| flight.must_come());
        if !is_awaited {
            self.be_patient(&mut state, Instant::now());
        }
        is_awaited
    }

    fn answered(&self, link: &Arc<Link>, id: u64, answer: Result<Reply, RemoteError>, wakers: &mut Wakers) {
        self.meter.received(&answer);
        let (flight, is_kept, closing) = {
            let mut state = self.state.lock();
            let (flight, is_kept) = state.answered(Place { connection: link.key(), id }, wakers);
            // Under the same lock: between the two the client could end, or the next connection ask for what there is.
            let goes_on = |flight: &Arc<PendingCall>| !self.put_off(&mut state, id, flight, &answer);
            (flight.filter(goes_on), is_kept, state.is_closing())
        };
        if is_kept {
            link.acknowledge(id);
        }
        if let Some(flight) = flight {
            let outcome = answer.map_err(|error| CallError::remote(flight.method.clone(), error));
            self.complete(&flight, outcome, wakers);
        }
        if closing {
            self.end_if_idle(wakers);
        }
    }

    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers) {
        self.lose(link, reason, wakers);
    }
}

impl Alarm for Engine {
    fn ring(&self, now: Instant) {
        let mut wakers = Wakers::default();
        let waits_for_memory = self.budget.waiting() > 0;
        let (overdue, in_the_way, dials, link) = {
            let mut state = self.state.lock();
            let overdue = state.expire(now, &mut wakers);
            let in_the_way = if waits_for_memory { state.in_the_way() } else { Vec::new() };
            if waits_for_memory && state.waiting() > 0 {
                self.tell_of_slots();
            }
            let still = state.patient_until.filter(|until| *until > now);
            state.patient_until = still.or(waits_for_memory.then(|| now + PATIENCE));
            match earliest(state.next_expiry(), state.patient_until) {
                Some(at) => self.set_alarm(&mut state, at),
                None => state.armed = None,
            }
            (overdue, in_the_way, state.needs_dial(), state.link())
        };
        if dials {
            self.dial();
        }
        for flight in in_the_way {
            flight.expect();
            self.send_for(&flight);
        }
        for overdue in overdue {
            let flight = match overdue {
                Overdue::Sent(flight) => flight,
                Overdue::Failed(flight, error) => {
                    self.complete(&flight, Err(error), &mut wakers);
                    continue;
                }
            };
            let ran = match (&link, flight.place()) {
                (Some(link), Some(place)) => self.withdraw_from(link, place, &mut wakers),
                _ => Ran::Maybe,
            };
            if let Some(deadline) = flight.deadline {
                self.complete(&flight, Err(deadline.error(&flight.method, ran)), &mut wakers);
            }
        }
        self.settle(wakers);
    }
}

#[cfg(test)]
mod tests;
