//! The state that all clones of a client, its calls and its futures share.
//!
//! Sending: a call gets a slot -> is encoded -> is queued on the link, which writes as much as the socket
//! takes on the caller's thread. A small call may be held back there, until that thread waits for anything or
//! the poller checks the link. Receiving: the thread that reads the link calls `answered` -> the pending call
//! -> its future.
//!
//! Ownership: the poller owns the link, the link its handler, which is the engine. The engine refers to the
//! link weakly. So the engine is dropped with its last handle, future and connection.
//!
//! Locks: `state` is held for a few instructions, never while a link, a waker or user code runs. A link may
//! take it while it holds its own locks, so no function that takes those is called under it.

use std::io;
use std::mem;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Closed, Withdrawn};
use teleport_transport::wire::{Key, Ran};
use teleport_transport::{
    Budget, Config, ForkGuard, Link, Poller, ReaderRole, Wakers, block_on_or_unwind, flush_coalesced,
    on_poller_thread,
};

use crate::calls::pending::{Asked, Outcome, PendingCall, Waiters};
use crate::calls::state::ClientState;
use crate::calls::table::GivenUp;
use crate::connect::backoff;
use crate::connect::resolver::Resolver;
use crate::engine::timer::{self, AlarmClock};
use crate::error::call::CallError;
use crate::error::connect::AttemptError;

/// The settings of a client.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) address: Arc<str>,
    pub(crate) max_inflight: usize,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) close_timeout: Duration,
    pub(crate) errors_from_next_call: bool,
    pub(crate) max_memory: u64,
    pub(crate) resolvers: Vec<Resolver>,
    pub(crate) config: Arc<Config>,
    /// Starts the thread that connects. Tests replace this.
    pub(crate) dialer: fn(Arc<Engine>) -> io::Result<()>,
}

pub(crate) type State = ClientState<Weak<Link>>;

/// The state that the engine's lock protects.
pub(crate) struct Locked {
    pub(crate) client: State,
    /// Rings when a call may have expired, or deferred results must be checked.
    pub(crate) alarm: AlarmClock,
    /// Threads that wait for a change of the state, to connect or to close. Bound: one entry per thread.
    watchers: Wakers,
}

pub(crate) struct Engine {
    me: Weak<Engine>,
    /// The process that has this engine's threads.
    pub(crate) process: ForkGuard,
    pub(crate) settings: Settings,
    pub(crate) poller: Poller,
    pub(crate) state: Mutex<Locked>,
    /// Pays for results that have arrived, or may arrive, and were not read.
    pub(crate) budget: Budget,
    /// Futures that are alive.
    pub(crate) futures: AtomicUsize,
    pub(crate) waiters: Waiters,
}

impl Engine {
    pub(crate) fn new(settings: Settings) -> io::Result<Arc<Engine>> {
        #[cfg(feature = "threads")]
        let_threads_interrupt_waits();
        let Settings { max_inflight, connect_timeout, .. } = settings;
        let client =
            ClientState::new(max_inflight, connect_timeout, settings.address.clone(), Instant::now());
        let poller = Poller::shared()?.clone();
        timer::start()?;
        Ok(Arc::new_cyclic(|me: &Weak<Engine>| Engine {
            me: me.clone(),
            process: ForkGuard::current(),
            budget: Budget::new(settings.max_memory),
            settings,
            poller,
            state: Mutex::new(Locked {
                client,
                alarm: AlarmClock::new(me.clone()),
                watchers: Wakers::default(),
            }),
            futures: AtomicUsize::new(0),
            waiters: Waiters::default(),
        }))
    }

    /// Fails in a process that was forked from the client's. Call this before taking a lock: its holder may
    /// not exist there.
    pub(crate) fn check_process(&self, method: &Key, ran: Ran) -> Result<(), CallError> {
        if self.process.is_current() {
            Ok(())
        } else {
            Err(CallError::Forked { method: method.clone(), ran })
        }
    }

    /// Changes the state and runs the wakers. Ends the client if it is closing and the last call has ended.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State, &mut Wakers)) {
        let mut wakers = Wakers::default();
        let is_closing = {
            let client = &mut self.state.lock().client;
            change(client, &mut wakers);
            client.is_closing
        };
        if is_closing {
            self.end_if_idle(&mut wakers);
        }
        wakers.wake_all();
    }

    // ---- Waiting ----

    /// Takes the read role of the connection, if no other thread has it. A thread that waits for an answer
    /// reads it itself.
    pub(crate) fn lead(&self) -> Option<ReaderRole> {
        if on_poller_thread() || !self.process.is_current() {
            return None;
        }
        let link = self.state.lock().client.connection.open().and_then(|open| open.link.upgrade());
        link.and_then(|link| link.lead())
    }

    /// **Blocks** until `look` returns a value from the state, at most until `until`. Unwinds a thread that
    /// is interrupted.
    pub(crate) fn wait<T>(
        &self,
        until: Option<Instant>,
        mut look: impl FnMut(&mut Locked) -> Option<T>,
    ) -> Option<T> {
        block_on_or_unwind(&mut None, until, |cx| self.poll_state(cx, &mut look))
    }

    pub(crate) fn poll_state<T>(
        &self,
        cx: &Context<'_>,
        look: impl FnOnce(&mut Locked) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.state.lock();
        match look(&mut state) {
            Some(found) => Poll::Ready(found),
            None => {
                state.watchers.push_once(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Wakes the threads that wait for a change of the state. Their wakers take no lock.
    pub(crate) fn notify(&self) {
        let mut watchers = mem::take(&mut self.state.lock().watchers);
        watchers.wake_all();
    }

    /// Returns the current connection, which may be resuming.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.state.lock().client.connection.current()?.link.upgrade()
    }

    /// Prepares for a wait: sends the calls that this thread holds back, and lets answers be read.
    pub(crate) fn expect_answers(&self) {
        flush_coalesced();
        if let Some(link) = self.link() {
            link.expect_answers();
        }
    }

    /// Fetches a deferred result, to be read or dropped: it is accepted without memory for it.
    pub(crate) fn fetch(&self, deferred: Option<u64>) {
        if let Some(id) = deferred
            && let Some(link) = self.link()
        {
            link.want(id);
        }
    }

    /// Handles a request for an outcome, which may be waited for now. If the caller does not read the
    /// connection, another thread must.
    pub(crate) fn asked<T>(&self, asked: Asked<T>, reads: bool) -> Poll<T> {
        match asked {
            Asked::Ready(outcome) => Poll::Ready(outcome),
            Asked::Pending { deferred } => {
                self.fetch(deferred);
                if !reads {
                    self.expect_answers();
                }
                Poll::Pending
            }
        }
    }

    /// Fetches the result of a call if it was deferred.
    pub(crate) fn fetch_now(&self, call: &PendingCall) {
        if let Asked::Pending { deferred } = call.ask() {
            self.fetch(deferred);
        }
    }

    // ---- Outcomes ----

    /// Passes an outcome to the call's future. Without a future, keeps an error for `check`.
    pub(crate) fn complete(&self, call: &PendingCall, outcome: Outcome, wakers: &mut Wakers) {
        if let Some(Err(error)) = call.complete(outcome, &self.waiters, wakers) {
            self.report(error);
        }
    }

    /// Keeps the failure of a call whose future was dropped.
    pub(crate) fn report(&self, error: CallError) {
        tracing::debug!(%error, "a call without a future failed");
        let text = error.to_string();
        if !self.state.lock().client.failures.report(error) {
            tracing::warn!(error = text, "a call failed, and too many failures wait for `check` to keep it");
        }
    }

    /// Withdraws a call that was sent. Returns whether it may have run, or `None` if it has ended already.
    pub(crate) fn withdraw(&self, call: &PendingCall) -> Option<Ran> {
        let (id, mut wakers) = (call.id(), Wakers::default());
        let given_up = self.state.lock().client.withdraw(id, &mut wakers)?;
        let ran = self.give_up(&given_up, &mut wakers);
        self.end_if_idle(&mut wakers);
        wakers.wake_all();
        Some(ran)
    }

    /// Withdraws from its connection a call that the state has given up. Returns whether it may have run.
    pub(crate) fn give_up(&self, given_up: &GivenUp, wakers: &mut Wakers) -> Ran {
        match given_up {
            GivenUp::InDoubt(in_doubt) => in_doubt.ran(),
            GivenUp::Sent(id, _) => {
                self.link().map_or(Ran::Maybe, |link| self.withdraw_from(&link, *id, wakers))
            }
        }
    }

    /// Lets the link withdraw a call that the state has given up.
    pub(crate) fn withdraw_from(&self, link: &Arc<Link>, id: u64, wakers: &mut Wakers) -> Ran {
        match link.withdraw(id) {
            // A call that did not arrive completely never runs and gets no answer.
            Withdrawn::NeverSent | Withdrawn::Aborted => {
                self.state.lock().client.forget(link.key(), id, wakers);
                Ran::No
            }
            Withdrawn::Requested => Ran::Maybe,
            // Its result may be deferred: fetch it, to be dropped. The link may be reading, so the poller
            // requests it.
            Withdrawn::NotOpen => {
                link.want_later(id);
                Ran::Maybe
            }
        }
    }

    // ---- Connections ----

    /// Handles the end of a connection. Fails its calls that do not survive it, and reconnects.
    pub(crate) fn lose(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers) {
        // Before the state is locked: a link may take that lock under its own ones.
        let states = link.call_states().into_iter().collect();
        let (failed, dials) = {
            let mut state = self.state.lock();
            let failed = state.client.lost(link.key(), reason, &states, Instant::now());
            if failed.is_some() {
                state.ring_at_next_expiry();
            }
            (failed, state.client.needs_dial())
        };
        self.notify();
        let Some(failed) = failed else { return };
        tracing::info!(server = link.peer_address(), %reason, failed = failed.len(), "disconnected");
        for (call, ran) in failed {
            self.complete(&call, Err(CallError::lost(call.method.clone(), reason, ran)), wakers);
        }
        if dials {
            self.dial();
        }
        self.end_if_idle(wakers);
    }

    /// Starts the thread that connects. The caller has checked that it is needed.
    pub(crate) fn dial(&self) {
        let Some(engine) = self.me.upgrade() else { return };
        let Err(error) = (self.settings.dialer)(engine) else { return };
        tracing::error!(%error, "no thread to connect with: another attempt follows");
        let mut state = self.state.lock();
        state.client.connection.is_dialing = false;
        state.client.connection.attempt_failed(AttemptError::System(error));
        // Without an alarm, calls that already wait would wait forever.
        let at = Instant::now() + state.client.connection.pause(backoff::random());
        state.alarm.ring_by(at);
    }
}

impl Locked {
    /// Adds a call that is sent on a connection. Returns false if the connection is over.
    pub(crate) fn sent(&mut self, connection: usize, id: u64, call: &Arc<PendingCall>) -> bool {
        let is_current = self.client.sent(connection, id, call);
        if let Some(deadline) = call.deadline.filter(|_| is_current) {
            self.alarm.ring_by(deadline.at);
        }
        is_current
    }

    /// Rings when a call expires, or earlier.
    pub(crate) fn ring_at_next_expiry(&mut self) {
        if let Some(at) = self.client.next_expiry() {
            self.alarm.ring_by(at);
        }
    }
}

/// Lets a killed `Thread` of `teleport-proc` unwind while it waits for a client.
#[cfg(feature = "threads")]
fn let_threads_interrupt_waits() {
    teleport_transport::InterruptHook {
        is_interruptible: teleport_proc::is_interruptible,
        poll_interrupted: teleport_proc::poll_killed,
        unwind: teleport_proc::checkpoint,
    }
    .install();
}

#[cfg(test)]
mod tests;
