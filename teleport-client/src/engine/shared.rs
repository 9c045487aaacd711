//! The state that all clones of a client, its calls and its futures share.
//!
//! Sending: a call is encoded -> gets a slot and an id -> is queued on the link, which writes as much as the
//! socket takes on the caller's thread. A small call may be held back there, until that thread waits for
//! anything or the poller checks the link. Receiving: the thread that reads the link calls `answered` -> the
//! outcomes are in the table of calls -> their futures take them.
//!
//! Ownership: the poller owns the link, the link its handler, which is the engine. The engine refers to the
//! link weakly. So the engine is dropped with its last handle, future and connection.
//!
//! Locks: `state` is the only lock of a client. It is held for a few instructions, never while a link, a
//! waker or user code runs. A link may take it while it holds its own locks, so no function that takes those
//! is called under it.

use std::io;
use std::mem;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Closed, Withdrawn};
use teleport_transport::wire::{Key, Limits, Ran};
use teleport_transport::{
    Budget, Config, ForkGuard, Link, Poller, ReaderRole, Wakers, block_on_or_unwind, flush_coalesced,
    on_poller_thread,
};

use crate::calls::pending::{Outcome, PendingCall, Released};
use crate::calls::state::{ClientState, GivenUp, is_forgotten};
use crate::calls::table::{Asked, CallTable, Left};
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
}

impl Engine {
    pub(crate) fn new(settings: Settings) -> io::Result<Arc<Engine>> {
        #[cfg(feature = "threads")]
        let_threads_interrupt_waits();
        let Settings { max_inflight, connect_timeout, errors_from_next_call, .. } = settings;
        let address = settings.address.clone();
        let client =
            ClientState::new(max_inflight, connect_timeout, address, errors_from_next_call, Instant::now());
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

    /// Reads or changes the state of calls and connection, under the lock. `change` must not use a link or
    /// run code of the user.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().client)
    }

    /// Changes the state and runs the wakers. Ends the client if it is closing and the last call has ended.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State, &mut Wakers)) {
        let mut wakers = Wakers::default();
        let is_closing = self.with(|client| {
            change(client, &mut wakers);
            client.is_closing
        });
        if is_closing {
            self.end_if_idle(&mut wakers);
        }
        wakers.wake_all();
    }

    // ---- Waiting ----

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

    /// Returns the link of the open connection and the limits of its server.
    pub(crate) fn open_link(&self) -> Option<(Arc<Link>, Limits)> {
        self.with(|client| {
            let open = client.connection.open()?;
            Some((open.link.upgrade()?, open.limits))
        })
    }

    /// Prepares for a wait for a slot: sends the calls that this thread holds back, and lets answers be read.
    pub(crate) fn expect_answers(&self) {
        flush_coalesced();
        if let Some(link) = self.with(current_link) {
            link.expect_answers();
        }
    }

    /// Asks the table for an outcome, which may be waited for from now on. Unless the caller `reads` the
    /// connection and polls again by itself, another thread must read it.
    pub(crate) fn ask(&self, reads: bool, ask: impl FnOnce(&mut CallTable) -> Asked) -> Poll<()> {
        match self.ask_with_link(reads, ask) {
            Ok(()) => Poll::Ready(()),
            Err(link) => {
                if !reads {
                    flush_coalesced();
                    link.iter().for_each(|link| link.expect_answers());
                }
                Poll::Pending
            }
        }
    }

    /// Asks the table for an outcome, which this thread is about to wait for. If there is none, takes the
    /// read role of the connection, unless another thread has it.
    #[inline]
    pub(crate) fn ask_or_lead(
        &self,
        ask: impl FnOnce(&mut CallTable) -> Asked,
    ) -> Result<(), Option<ReaderRole>> {
        self.ask_with_link(false, ask).map_err(|link| link.filter(|_| !on_poller_thread())?.lead())
    }

    /// Asks the table for an outcome. If there is none, returns the link if there is one and the caller needs
    /// it.
    #[inline]
    fn ask_with_link(
        &self,
        reads: bool,
        ask: impl FnOnce(&mut CallTable) -> Asked,
    ) -> Result<(), Option<Arc<Link>>> {
        let pending = self.with(|client| match ask(&mut client.table) {
            Asked::Ready => None,
            Asked::Pending { deferred, earlier } => {
                let needs_link = !reads || deferred.is_some();
                Some((deferred, earlier, if needs_link { current_link(client) } else { None }))
            }
        });
        let Some((deferred, earlier, link)) = pending else { return Ok(()) };
        drop(earlier);
        if let (Some(id), Some(link)) = (deferred, &link) {
            link.want(id);
        }
        Err(link)
    }

    /// Fetches deferred results, to be read or dropped: they are accepted without memory for them.
    pub(crate) fn fetch(&self, deferred: impl IntoIterator<Item = u64>) {
        let mut deferred = deferred.into_iter().peekable();
        if deferred.peek().is_none() {
            return;
        }
        if let Some(link) = self.with(current_link) {
            deferred.for_each(|id| link.want(id));
        }
    }

    // ---- Outcomes ----

    /// Drops what the state has released, and keeps the failures of calls without a future for `check`.
    pub(crate) fn dispose(&self, mut released: Released) {
        released.outcomes.drain(..).filter_map(Result::err).for_each(|error| self.report(error));
    }

    /// Keeps the failure of a call whose future was dropped.
    pub(crate) fn report(&self, error: CallError) {
        tracing::debug!(%error, "a call without a future failed");
        let text = error.to_string();
        if !self.with(|client| client.failures.report(error)) {
            tracing::warn!(error = text, "a call failed, and too many failures wait for `check` to keep it");
        }
    }

    /// Gives up a call with the error that `error` returns, and withdraws it from its connection. Returns
    /// whether it may have run, or `None` if it has ended already or there is no error.
    pub(crate) fn give_up(
        &self,
        id: u64,
        error: impl Fn(&PendingCall, Ran) -> Option<CallError>,
        wakers: &mut Wakers,
    ) -> Option<Ran> {
        let (mut withdrawn, mut released) = (None, Released::new());
        let ran = loop {
            let given_up = self.with(|client| client.give_up(id, withdrawn, &error, wakers, &mut released));
            match given_up {
                GivenUp::Ended => break None,
                GivenUp::Done(ran) => break Some(ran),
                GivenUp::Withdraw(connection) => {
                    let how =
                        connection.link.upgrade().map_or(Withdrawn::NotOpen, |link| withdraw(&link, id));
                    withdrawn = Some((connection.key, how));
                }
            }
        };
        self.dispose(released);
        ran
    }

    /// Gives up the call of a future that is not read any more. Returns whether it may have run, or `None` if
    /// it has ended already.
    pub(crate) fn cancel(&self, first_id: u64, method: &Key) -> Option<Ran> {
        let id = self.with(|client| client.table.current_id(first_id));
        let mut wakers = Wakers::default();
        let error = |_: &PendingCall, ran| Some(CallError::Cancelled { method: method.clone(), ran });
        let ran = self.give_up(id, error, &mut wakers);
        self.end_if_idle(&mut wakers);
        wakers.wake_all();
        ran
    }

    /// Releases the call of a future that is dropped. Returns its outcome, if it has arrived.
    pub(crate) fn drop_future(&self, first_id: u64) -> Option<Outcome> {
        let Left { outcome, deferred, waker } = self.with(|client| client.table.release(first_id));
        drop(waker);
        self.fetch(deferred);
        outcome
    }

    /// Withdraws from its link a call that nobody wants and that the server still has.
    pub(crate) fn withdraw_unwanted(&self, link: &Arc<Link>, id: u64, wakers: &mut Wakers) {
        if is_forgotten(withdraw(link, id)) {
            let mut released = Released::new();
            self.with(|client| client.forget(link.key(), id, wakers, &mut released));
            self.dispose(released);
        }
    }

    // ---- Connections ----

    /// Handles the end of a connection. Fails its calls that do not survive it, and reconnects.
    pub(crate) fn lose(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers) {
        // Before the state is locked: a link may take that lock under its own ones.
        let (states, mut released) = (link.call_states(), Released::new());
        let (failed, dials) = {
            let mut state = self.state.lock();
            let now = Instant::now();
            let failed = state.client.lost(link.key(), reason, &states, now, wakers, &mut released);
            if failed.is_some() {
                state.ring_at_next_expiry();
            }
            (failed, state.client.needs_dial())
        };
        self.notify();
        let Some(failed) = failed else { return };
        tracing::info!(server = link.peer_address(), %reason, failed, "disconnected");
        self.dispose(released);
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
    /// Rings when a call expires, or earlier.
    pub(crate) fn ring_at_next_expiry(&mut self) {
        if let Some(at) = self.client.next_expiry() {
            self.alarm.ring_by(at);
        }
    }
}

/// Returns the link of the current connection, which may be resuming.
fn current_link(client: &mut State) -> Option<Arc<Link>> {
    client.connection.current()?.link.upgrade()
}

/// Lets the link withdraw a call that is given up.
fn withdraw(link: &Arc<Link>, id: u64) -> Withdrawn {
    let withdrawn = link.withdraw(id);
    if withdrawn == Withdrawn::NotOpen {
        // Its result may be deferred: fetch it, to be dropped. The link may be reading, so the poller
        // requests it.
        link.want_later(id);
    }
    withdrawn
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
