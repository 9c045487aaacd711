//! What a client knows of its calls: which are in flight, which wait, and whether there is a connection.
//!
//! Flow: `acquire` (a slot now, or a place in the line) -> `sent` -> `answered`, `withdraw` or `lost` -> the slot goes to
//! the first in line. Slots are given in the order in which calls asked, whether they block or are awaited.
//!
//! Pure: no socket, no thread, no clock; a connection is whatever `L` is. Bounds: `max_inflight` calls in flight, fewer
//! if the server allows fewer; `MAX_FAILURES` failures kept. The line is as long as the callers make it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::Wakers;
use teleport_transport::wire::{Key, Ran};

use crate::backoff::Backoff;
use crate::connect_error::AttemptError;
use crate::error::CallError;
use crate::flight::{Deadline, Flight, Place};
use crate::pass::{Door, Pass};

/// Failures of calls without a future that are kept for `check`; later ones are only logged. A loop that never checks
/// must not fill the memory.
const MAX_FAILURES: usize = 64;

/// Whether there is a connection.
#[derive(Debug)]
pub(crate) enum Phase<L> {
    Down { since: Instant },
    Up { door: Arc<Door<L>>, since: Instant },
    Over,
}

/// What came of asking for a slot.
#[derive(Debug)]
pub(crate) enum Acquired<L> {
    Now(Arc<Door<L>>),
    Later(Arc<Pass<L>>),
}

#[derive(Debug)]
pub(crate) struct State<L> {
    max_inflight: usize,
    connect_timeout: Option<Duration>,
    address: Arc<str>,
    phase: Phase<L>,
    /// Calls that were sent and not answered. None: withdrawn, the answer is still to come.
    calls: HashMap<u64, Option<Arc<Flight>>>,
    /// Invariant: how many of `calls` are None.
    withdrawn: usize,
    /// Slots that were given to calls which have not been sent.
    given: usize,
    waiting: VecDeque<Arc<Pass<L>>>,
    failures: VecDeque<CallError>,
    closing: bool,
    pub(crate) backoff: Backoff,
    /// Whether a thread is connecting.
    pub(crate) dialing: bool,
    /// Attempts to connect that failed since the last connection, and why the last one did.
    pub(crate) attempts: u64,
    pub(crate) last: Option<Arc<AttemptError>>,
    /// For when the timer is set.
    pub(crate) armed: Option<Instant>,
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
            calls: HashMap::new(),
            withdrawn: 0,
            given: 0,
            waiting: VecDeque::new(),
            failures: VecDeque::new(),
            closing: false,
            backoff: Backoff::default(),
            dialing: false,
            attempts: 0,
            last: None,
            armed: None,
        }
    }

    // ---- The connection ----

    pub(crate) fn door(&self) -> Option<&Arc<Door<L>>> {
        match &self.phase {
            Phase::Up { door, .. } => Some(door),
            _ => None,
        }
    }

    fn is_current(&self, connection: usize) -> bool {
        self.door().is_some_and(|door| door.connection == connection)
    }

    /// A connection is open; false if it comes too late. [`admit`](State::admit) lets the waiting calls use it.
    pub(crate) fn opened(&mut self, door: Arc<Door<L>>, now: Instant) -> bool {
        if self.closing || matches!(self.phase, Phase::Over) {
            return false;
        }
        self.phase = Phase::Up { door, since: now };
        self.attempts = 0;
        true
    }

    /// A connection is over. Gives the calls that were in flight on it; none if it is not the current one.
    pub(crate) fn lost(&mut self, connection: usize, now: Instant) -> Option<Vec<Arc<Flight>>> {
        match &self.phase {
            Phase::Up { door, since } if door.connection == connection => {
                self.backoff.ended(now.saturating_duration_since(*since));
            }
            _ => return None,
        }
        self.phase = Phase::Down { since: now };
        self.withdrawn = 0;
        Some(self.calls.drain().filter_map(|(_, flight)| flight).collect())
    }

    /// Whether a thread must be started that connects. If so, the caller starts it: this is true only once.
    pub(crate) fn needs_dial(&mut self) -> bool {
        let needed = matches!(self.phase, Phase::Down { .. }) && !self.closing && !self.dialing;
        self.dialing |= needed;
        needed
    }

    // ---- Slots ----

    /// The connection, if a slot on it is free.
    fn room(&self) -> Option<&Arc<Door<L>>> {
        let sent = self.calls.len() + self.given;
        // A server that says it takes none is asked, and refuses the call itself.
        self.door()
            .filter(|door| sent - self.withdrawn < self.max_inflight && sent < door.max_open_calls.max(1))
    }

    /// A slot, or a place in the line for one.
    ///
    /// # Errors
    /// If the client is closed.
    pub(crate) fn acquire(
        &mut self,
        method: &Key,
        deadline: Option<Deadline>,
        now: Instant,
    ) -> Result<Acquired<L>, CallError> {
        if self.closing {
            return Err(CallError::Closed { method: method.clone(), ran: Ran::No });
        }
        if let Some(door) = self.free_slot() {
            return Ok(Acquired::Now(door));
        }
        let pass = Arc::new(Pass::new(method.clone(), deadline, now));
        self.waiting.push_back(pass.clone());
        Ok(Acquired::Later(pass))
    }

    /// A slot that is free now.
    ///
    /// # Errors
    /// If none is, or there is no connection.
    pub(crate) fn try_acquire(&mut self, method: &Key) -> Result<Arc<Door<L>>, CallError> {
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

    fn free_slot(&mut self) -> Option<Arc<Door<L>>> {
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
    pub(crate) fn leave(&mut self, pass: &Arc<Pass<L>>, wakers: &mut Wakers) {
        self.waiting.retain(|waiting| !Arc::ptr_eq(waiting, pass));
        if pass.revoke() {
            self.give_back(wakers);
        }
    }

    // ---- Calls ----

    /// A call goes out on a connection, with a slot that it was given; false if that connection is over.
    pub(crate) fn sent(&mut self, place: Place, flight: &Arc<Flight>) -> bool {
        if !self.is_current(place.connection) {
            return false;
        }
        self.given -= 1;
        self.calls.insert(place.id, Some(flight.clone()));
        true
    }

    /// A call was answered; none if nobody waits for it any more.
    pub(crate) fn answered(&mut self, place: Place, wakers: &mut Wakers) -> Option<Arc<Flight>> {
        if !self.is_current(place.connection) {
            return None;
        }
        let flight = self.calls.remove(&place.id)?;
        self.withdrawn -= usize::from(flight.is_none());
        self.admit(wakers);
        flight
    }

    /// A call that was sent and not answered; none if nobody waits for it any more.
    pub(crate) fn flight(&self, place: Place) -> Option<Arc<Flight>> {
        if self.is_current(place.connection) { self.calls.get(&place.id)?.clone() } else { None }
    }

    /// Calls whose results were deferred, and that were sent before one that somebody waits for since the last look.
    pub(crate) fn in_the_way(&self) -> Vec<Arc<Flight>> {
        let waits_long = |(id, flight): (&u64, &Option<Arc<Flight>>)| {
            flight.as_ref().is_some_and(|flight| flight.waits_long()).then_some(*id)
        };
        // All are looked at, since each look counts for the next.
        let Some(newest) = self.calls.iter().filter_map(waits_long).max() else { return Vec::new() };
        let older =
            self.calls.iter().filter(|(id, _)| **id < newest).filter_map(|(_, flight)| flight.as_ref());
        older.filter(|flight| flight.is_deferred()).cloned().collect()
    }

    /// All calls that were sent and not answered, but for those that were given up.
    pub(crate) fn flights(&self) -> Vec<Arc<Flight>> {
        self.calls.values().flatten().cloned().collect()
    }

    /// Gives up a call, and its slot with it; none if it has ended. Its answer may still come.
    pub(crate) fn withdraw(&mut self, place: Place, wakers: &mut Wakers) -> Option<Arc<Flight>> {
        if !self.is_current(place.connection) {
            return None;
        }
        let flight = self.calls.get_mut(&place.id)?.take()?;
        self.withdrawn += 1;
        self.admit(wakers);
        Some(flight)
    }

    /// No answer will come to a call that was withdrawn.
    pub(crate) fn forget(&mut self, place: Place, wakers: &mut Wakers) {
        if self.is_current(place.connection) && matches!(self.calls.get(&place.id), Some(None)) {
            self.calls.remove(&place.id);
            self.withdrawn -= 1;
            self.admit(wakers);
        }
    }

    // ---- Time ----

    /// When a waiting call's time is over.
    pub(crate) fn expiry(&self, pass: &Pass<L>) -> Option<Instant> {
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
        passes.chain(flights).min()
    }

    /// Ends the wait of the calls whose time is over, and withdraws those in flight, which it gives.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Wakers) -> Vec<Arc<Flight>> {
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
        let mut overdue = Vec::new();
        for flight in self.calls.values_mut() {
            if flight.as_ref().and_then(|flight| flight.deadline).is_some_and(|deadline| deadline.at <= now) {
                overdue.extend(flight.take());
            }
        }
        self.withdrawn += overdue.len();
        self.admit(wakers);
        overdue
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
    pub(crate) fn end(&mut self, wakers: &mut Wakers) -> (Option<Arc<Door<L>>>, Vec<Arc<Flight>>) {
        self.begin_close(wakers);
        let door = self.door().cloned();
        self.phase = Phase::Over;
        self.withdrawn = 0;
        (door, self.calls.drain().filter_map(|(_, flight)| flight).collect())
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

    /// Whether a call is on its way that no future waits for.
    pub(crate) fn has_detached(&self) -> bool {
        self.given > 0 || self.calls.values().flatten().any(|flight| !flight.is_held())
    }

    /// Whether a future waits for a call that is on its way.
    pub(crate) fn has_held(&self) -> bool {
        self.calls.values().flatten().any(|flight| flight.is_held())
    }

    /// Calls that hold a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.calls.len() - self.withdrawn + self.given
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
