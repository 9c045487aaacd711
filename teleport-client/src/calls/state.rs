//! What a client knows of its calls: which are in flight, which wait, and whether there is a connection.
//!
//! Flow: `acquire` (a slot now, or a place in the line) -> `sent` -> `answered`, `withdraw` or `lost` -> the slot goes to
//! the first in line. Calls that survive their connection keep their slots in [`InDoubtCalls`] (`resuming`). Slots are given in the order in which calls asked, whether they block or are awaited.
//!
//! Pure: no socket, no thread, no clock; a connection is whatever `L` is. Bounds: `max_inflight` calls in flight, fewer
//! if the server allows fewer; `MAX_FAILURES` failures kept. The line is as long as the callers make it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Key, Ran};
use teleport_transport::{IdMap, Wakers};

use crate::calls::in_doubt::{InDoubtCall, InDoubtCalls};
use crate::calls::pending::{Deadline, PendingCall, Place};
use crate::calls::slot::{OpenConnection, SlotWaiter};
use crate::connect::backoff::Backoff;
use crate::error::call::CallError;
use crate::error::connect::AttemptError;

/// Failures of calls without a future that are kept for `check`; later ones are only logged. A loop that never checks
/// must not fill the memory.
const MAX_FAILURES: usize = 64;

/// Whether there is a connection.
#[derive(Debug)]
pub(crate) enum Phase<L> {
    Down { since: Instant },
    Up { door: Arc<OpenConnection<L>>, since: Instant },
    Over,
}

/// What came of asking for a slot.
#[derive(Debug)]
pub(crate) enum Acquired<L> {
    Now(Arc<OpenConnection<L>>),
    Later(Arc<SlotWaiter<L>>),
}

/// What came of giving a call up.
#[derive(Debug)]
pub(crate) enum GivenUp<L> {
    /// It was sent on this connection, which is to withdraw it.
    On(Arc<OpenConnection<L>>),
    /// It waited for a connection.
    Without(Ran),
}

/// A call whose time is over.
#[derive(Debug)]
pub(crate) enum Overdue {
    /// It was sent, and is to be withdrawn.
    Sent(Arc<PendingCall>),
    /// It waited for a connection.
    Failed(Arc<PendingCall>, CallError),
}

#[derive(Debug)]
pub(crate) struct State<L> {
    pub(super) max_inflight: usize,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) address: Arc<str>,
    pub(super) phase: Phase<L>,
    /// Calls that were sent and not answered. None: withdrawn, the answer is still to come.
    pub(super) calls: IdMap<Option<Arc<PendingCall>>>,
    /// Invariant: how many of `calls` are None.
    pub(super) withdrawn: usize,
    /// Calls that wait for a connection.
    pub(super) in_doubt: InDoubtCalls,
    /// A connection that was asked what became of them.
    pub(super) resuming: Option<Arc<OpenConnection<L>>>,
    /// Slots that were given to calls which have not been sent.
    pub(super) given: usize,
    pub(super) waiting: VecDeque<Arc<SlotWaiter<L>>>,
    pub(super) failures: VecDeque<CallError>,
    pub(super) closing: bool,
    pub(crate) backoff: Backoff,
    /// Whether the connection has answered a call.
    pub(super) has_answered: bool,
    /// Whether a thread is connecting.
    pub(crate) dialing: bool,
    /// Attempts to connect that failed since the last connection, and why the last one did.
    pub(crate) attempts: u64,
    pub(crate) last: Option<Arc<AttemptError>>,
    /// For when the timer is set.
    pub(crate) armed: Option<Instant>,
    /// When it is looked whether deferred results are in somebody's way.
    pub(crate) patient_until: Option<Instant>,
}

impl<L> State<L> {
    pub(crate) fn new(
        max_inflight: usize,
        connect_timeout: Option<Duration>,
        address: Arc<str>,
        now: Instant,
    ) -> State<L> {
        State {
            max_inflight: max_inflight.max(1),
            connect_timeout,
            address,
            phase: Phase::Down { since: now },
            calls: IdMap::default(),
            withdrawn: 0,
            in_doubt: InDoubtCalls::default(),
            resuming: None,
            given: 0,
            waiting: VecDeque::new(),
            failures: VecDeque::new(),
            closing: false,
            backoff: Backoff::default(),
            has_answered: false,
            dialing: false,
            attempts: 0,
            last: None,
            armed: None,
            patient_until: None,
        }
    }

    // ---- The connection ----

    pub(crate) fn door(&self) -> Option<&Arc<OpenConnection<L>>> {
        match &self.phase {
            Phase::Up { door, .. } => Some(door),
            _ => None,
        }
    }

    pub(super) fn is_current(&self, connection: usize) -> bool {
        self.current().is_some_and(|door| door.connection == connection)
    }

    /// The connection's link, as far as there is one.
    pub(crate) fn link(&self) -> Option<L>
    where
        L: Clone,
    {
        self.current().map(|door| door.link.clone())
    }

    /// A connection that was asked for earlier calls, and may have answered.
    pub(crate) fn resuming_door(&self) -> Option<&Arc<OpenConnection<L>>> {
        self.resuming.as_ref()
    }

    /// The connection that calls are on: an open one, or one that is told of earlier calls.
    fn current(&self) -> Option<&Arc<OpenConnection<L>>> {
        self.door().or(self.resuming.as_ref())
    }

    /// Whether a thread must be started that connects. If so, the caller starts it: this is true only once.
    pub(crate) fn needs_dial(&mut self) -> bool {
        let needed = matches!(self.phase, Phase::Down { .. }) && self.wants_connection() && !self.dialing;
        self.dialing |= needed;
        needed
    }

    /// The thread that connects could not be started.
    pub(crate) fn not_dialed(&mut self, error: AttemptError) {
        self.dialing = false;
        self.attempt_failed(error);
    }

    pub(crate) fn attempt_failed(&mut self, error: AttemptError) {
        self.backoff.failed();
        self.attempts += 1;
        self.last = Some(Arc::new(error));
    }

    // ---- Slots ----

    /// The connection, if a slot on it is free.
    fn room(&self) -> Option<&Arc<OpenConnection<L>>> {
        let sent = self.calls.len() + self.given;
        // A server that says it takes none is asked, and refuses the call itself.
        self.door().filter(|door| self.in_flight() < self.max_inflight && sent < door.max_open_calls.max(1))
    }

    /// A slot, or a place in the line for one.
    ///
    /// # Errors
    /// If the client is closed.
    pub(crate) fn acquire(
        &mut self,
        method: &Key,
        deadline: Option<Deadline>,
        now: impl FnOnce() -> Instant,
    ) -> Result<Acquired<L>, CallError> {
        if self.closing {
            return Err(CallError::Closed { method: method.clone(), ran: Ran::No });
        }
        if let Some(door) = self.free_slot() {
            return Ok(Acquired::Now(door));
        }
        let pass = Arc::new(SlotWaiter::new(method.clone(), deadline, now()));
        self.waiting.push_back(pass.clone());
        Ok(Acquired::Later(pass))
    }

    /// A slot that is free now.
    ///
    /// # Errors
    /// If none is, or there is no connection.
    pub(crate) fn try_acquire(&mut self, method: &Key) -> Result<Arc<OpenConnection<L>>, CallError> {
        if self.closing {
            return Err(CallError::Closed { method: method.clone(), ran: Ran::No });
        }
        if let Some(door) = self.free_slot() {
            return Ok(door);
        }
        let Some(door) = self.door() else { return Err(self.not_connected(method, Duration::ZERO)) };
        let max_inflight = self.max_inflight.min(door.max_open_calls);
        Err(CallError::Full { method: method.clone(), max_inflight })
    }

    fn free_slot(&mut self) -> Option<Arc<OpenConnection<L>>> {
        let door = if self.waiting.is_empty() { self.room().cloned() } else { None };
        self.given += usize::from(door.is_some());
        door
    }

    /// Gives free slots to the first in line.
    pub(crate) fn admit(&mut self, wakers: &mut Wakers) {
        while !self.waiting.is_empty()
            && let Some(door) = self.room().cloned()
            && let Some(pass) = self.waiting.pop_front()
        {
            self.given += 1;
            pass.settle(Ok(door), wakers);
        }
    }

    /// A slot that was given is not used.
    pub(crate) fn give_back(&mut self, wakers: &mut Wakers) {
        self.given -= 1;
        self.admit(wakers);
    }

    /// A call no longer waits, whether or not it was given a slot meanwhile.
    pub(crate) fn leave(&mut self, pass: &Arc<SlotWaiter<L>>, wakers: &mut Wakers) {
        self.waiting.retain(|waiting| !Arc::ptr_eq(waiting, pass));
        if pass.revoke() {
            self.give_back(wakers);
        }
    }

    // ---- Calls ----

    /// A call goes out on a connection, with a slot that it was given; false if that connection is over.
    pub(crate) fn sent(&mut self, place: Place, flight: &Arc<PendingCall>) -> bool {
        if !self.is_current(place.connection) {
            return false;
        }
        self.given -= 1;
        self.in_doubt.sent(place.id, flight);
        self.calls.insert(place.id, Some(flight.clone()));
        true
    }

    /// A call was answered; none if nobody waits for it any more. Also says whether the server is to be told that the
    /// answer has come.
    pub(crate) fn answered(&mut self, place: Place, wakers: &mut Wakers) -> (Option<Arc<PendingCall>>, bool) {
        if !self.is_current(place.connection) {
            return (None, false);
        }
        let Some(flight) = self.calls.remove(&place.id) else { return (None, false) };
        self.has_answered = true;
        self.withdrawn -= usize::from(flight.is_none());
        self.admit(wakers);
        let is_kept =
            flight.as_ref().map_or_else(|| self.in_doubt.forget(place.id), |flight| flight.resumes());
        (flight, is_kept)
    }

    /// A call that was sent and not answered; none if nobody waits for it any more.
    pub(crate) fn flight(&self, place: Place) -> Option<Arc<PendingCall>> {
        if self.is_current(place.connection) { self.calls.get(&place.id)?.clone() } else { None }
    }

    /// Calls whose results were deferred, and that were sent before one that somebody waits for since the last look.
    pub(crate) fn in_the_way(&self) -> Vec<Arc<PendingCall>> {
        let waits_long = |(id, flight): (&u64, &Option<Arc<PendingCall>>)| {
            flight.as_ref().is_some_and(|flight| flight.waits_long()).then_some(*id)
        };
        // All are looked at, since each look counts for the next.
        let Some(newest) = self.calls.iter().filter_map(waits_long).max() else { return Vec::new() };
        let older =
            self.calls.iter().filter(|(id, _)| **id < newest).filter_map(|(_, flight)| flight.as_ref());
        older.filter(|flight| flight.is_deferred()).cloned().collect()
    }

    /// All calls that were sent and not answered, but for those that were given up.
    pub(crate) fn flights(&self) -> Vec<Arc<PendingCall>> {
        self.calls.values().flatten().cloned().collect()
    }

    /// Gives up a call, and its slot with it; none if it has ended. Its answer may still come.
    pub(crate) fn withdraw(&mut self, place: Place, wakers: &mut Wakers) -> Option<GivenUp<L>> {
        if let Some(held) = self.in_doubt.take(place.id) {
            self.admit(wakers);
            return Some(GivenUp::Without(held.ran()));
        }
        let door = self.current().filter(|door| door.connection == place.connection)?.clone();
        let flight = self.calls.get_mut(&place.id)?.take()?;
        self.in_doubt.withdrawn(place.id, &flight);
        self.withdrawn += 1;
        self.admit(wakers);
        Some(GivenUp::On(door))
    }

    /// No answer will come to a call that was withdrawn.
    pub(crate) fn forget(&mut self, place: Place, wakers: &mut Wakers) {
        if self.is_current(place.connection) && matches!(self.calls.get(&place.id), Some(None)) {
            self.calls.remove(&place.id);
            self.in_doubt.forget(place.id);
            self.withdrawn -= 1;
            self.admit(wakers);
        }
    }

    // ---- Time ----

    /// When a waiting call's time is over.
    pub(crate) fn expiry(&self, pass: &SlotWaiter<L>) -> Option<Instant> {
        let connected_by = match self.phase {
            Phase::Down { since } => {
                self.connect_timeout.and_then(|time| pass.since.max(since).checked_add(time))
            }
            _ => None,
        };
        earliest(pass.deadline.map(|deadline| deadline.at), connected_by)
    }

    /// When `expire` has something to do; none if never.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let passes = self.waiting.iter().filter_map(|pass| self.expiry(pass));
        let flights = self.calls.values().flatten().filter_map(|flight| Some(flight.deadline?.at));
        let held = self.in_doubt.held().filter_map(|held| self.held_expiry(held));
        passes.chain(flights).chain(held).min()
    }

    /// When the time of a call without a connection is over.
    fn held_expiry(&self, held: &InDoubtCall) -> Option<Instant> {
        let since = match self.phase {
            Phase::Down { since } => held.since.max(since),
            // The server is closing, and soon says goodbye.
            _ => held.since,
        };
        let connected_by = self.connect_timeout.and_then(|time| since.checked_add(time));
        earliest(held.flight.deadline.map(|deadline| deadline.at), connected_by)
    }

    /// Ends the wait of the calls whose time is over, and withdraws those in flight, which it gives.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Wakers) -> Vec<Overdue> {
        for pass in std::mem::take(&mut self.waiting) {
            if self.expiry(&pass).is_none_or(|at| at > now) {
                self.waiting.push_back(pass);
                continue;
            }
            let error = match pass.deadline.filter(|deadline| deadline.at <= now) {
                Some(deadline) => deadline.error(&pass.method, Ran::No),
                None => self.not_connected(&pass.method, now.saturating_duration_since(pass.since)),
            };
            pass.settle(Err(error), wakers);
        }
        let mut overdue = self.expire_held(now);
        for (id, place) in &mut self.calls {
            let is_late =
                |flight: &&Arc<PendingCall>| flight.deadline.is_some_and(|deadline| deadline.at <= now);
            if place.as_ref().filter(is_late).is_some()
                && let Some(flight) = place.take()
            {
                self.in_doubt.withdrawn(*id, &flight);
                self.withdrawn += 1;
                overdue.push(Overdue::Sent(flight));
            }
        }
        self.admit(wakers);
        overdue
    }

    /// Those of the calls without a connection whose time is over.
    fn expire_held(&mut self, now: Instant) -> Vec<Overdue> {
        let mut in_doubt = std::mem::take(&mut self.in_doubt);
        let due = in_doubt.take_if(|held| self.held_expiry(held).is_some_and(|at| at <= now));
        self.in_doubt = in_doubt;
        let failed = |held: InDoubtCall| {
            let (method, ran) = (held.flight.method.clone(), held.ran());
            let error = match held.flight.deadline.filter(|deadline| deadline.at <= now) {
                Some(deadline) => deadline.error(&method, ran),
                None => CallError::lost(method, &held.reason, ran),
            };
            Overdue::Failed(held.flight, error)
        };
        due.into_iter().map(failed).collect()
    }

    pub(crate) fn not_connected(&self, method: &Key, waited: Duration) -> CallError {
        let (address, last) = (self.address.clone(), self.last.clone());
        CallError::Connect { method: method.clone(), address, waited, last }
    }

    // ---- Failures ----

    /// Keeps the failure of a call that nobody waits for; false if there are too many already.
    pub(crate) fn report(&mut self, error: CallError) -> bool {
        let room = self.failures.len() < MAX_FAILURES;
        if room {
            self.failures.push_back(error);
        }
        room
    }

    /// The oldest failure that was not asked for yet.
    pub(crate) fn take_failure(&mut self) -> Option<CallError> {
        self.failures.pop_front()
    }

    /// As `take_failure` where failures come out of the next call.
    pub(crate) fn take_failure_if(&mut self, wanted: bool) -> Option<CallError> {
        if wanted { self.take_failure() } else { None }
    }

    // ---- The end ----

    /// Takes no more calls; those that wait fail.
    pub(crate) fn begin_close(&mut self, wakers: &mut Wakers) {
        self.closing = true;
        for pass in self.waiting.drain(..) {
            pass.settle(Err(CallError::Closed { method: pass.method.clone(), ran: Ran::No }), wakers);
        }
    }

    /// Ends everything. Gives the connection, if there is one, and the calls that were in flight.
    pub(crate) fn end(
        &mut self,
        wakers: &mut Wakers,
    ) -> (Option<Arc<OpenConnection<L>>>, Vec<Arc<PendingCall>>) {
        self.begin_close(wakers);
        let door = self.door().cloned();
        let door = door.or(self.resuming.take());
        self.phase = Phase::Over;
        self.withdrawn = 0;
        let mut flights: Vec<_> = self.calls.drain().filter_map(|(_, flight)| flight).collect();
        flights.extend(self.in_doubt.take_all());
        (door, flights)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether no call is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    /// Whether a call is on its way.
    pub(crate) fn has_calls(&self) -> bool {
        !self.is_idle()
    }

    /// Whether a call is on its way that no future waits for.
    pub(crate) fn has_detached(&self) -> bool {
        self.given > 0 || self.unanswered().any(|flight| !flight.is_held())
    }

    /// Whether a future waits for a call that is on its way.
    pub(crate) fn has_held(&self) -> bool {
        self.unanswered().any(|flight| flight.is_held())
    }

    fn unanswered(&self) -> impl Iterator<Item = &Arc<PendingCall>> {
        self.calls.values().flatten().chain(self.in_doubt.held().map(|held| &held.flight))
    }

    /// Calls that hold a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.len() - self.withdrawn + self.given + self.in_doubt.len()
    }

    /// Calls in the line for a slot.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// The earlier of two times that may never come.
pub(crate) fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
