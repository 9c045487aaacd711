//! The state of a client: its calls, slots and connection.
//!
//! Flow: `register` (with a free slot, or one from the queue) -> `answered`, `withdraw` or `lost` -> the slot
//! is assigned to the first waiter. [`resume`](crate::calls::resume) handles calls between two connections.
//!
//! Pure: no socket, no thread, no clock. `L` is the type of a connection.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use teleport_transport::protocol::Withdrawn;
use teleport_transport::wire::{Key, Ran};
use teleport_transport::{Answer, Wakers};

use crate::calls::counters::{Counters, answer_bytes};
use crate::calls::deferred_results::DeferredResults;
use crate::calls::failures::Failures;
use crate::calls::pending::{Deadline, PendingCall, Released, Request, Stage};
use crate::calls::slot::{Slots, Waiter};
use crate::calls::table::CallTable;
use crate::connect::status::{OpenConnection, Status};
use crate::error::call::CallError;

/// The outcome of a request for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// A slot on the open connection.
    Slot,
    /// A place in the queue, and the time at which it expires.
    Place(Option<Instant>),
    /// The call is in the queue already.
    Pending,
}

#[derive(Debug)]
pub(crate) struct ClientState<L> {
    pub(crate) connection: Status<L>,
    pub(crate) table: CallTable,
    pub(crate) slots: Slots,
    pub(crate) deferred: DeferredResults,
    pub(crate) failures: Failures,
    pub(crate) counters: Counters,
    /// The client accepts no more calls.
    pub(crate) is_closing: bool,
}

impl<L: Clone> ClientState<L> {
    pub(crate) fn new(
        max_inflight: usize,
        connect_timeout: Option<Duration>,
        address: Arc<str>,
        errors_from_next_call: bool,
        now: Instant,
    ) -> ClientState<L> {
        ClientState {
            connection: Status::new(address, connect_timeout, now),
            table: CallTable::default(),
            slots: Slots::new(max_inflight),
            deferred: DeferredResults::default(),
            failures: Failures::new(errors_from_next_call),
            counters: Counters::new(now),
            is_closing: false,
        }
    }

    /// Returns true if there are, or may be, calls to send. A closing client still waits for calls that
    /// survived their connection.
    pub(crate) fn wants_connection(&self) -> bool {
        let has_earlier = self.table.has_in_doubt() || self.connection.is_resuming();
        !self.connection.is_over() && (!self.is_closing || has_earlier)
    }

    /// Returns true if the caller must start the thread that connects.
    pub(crate) fn needs_dial(&mut self) -> bool {
        self.wants_connection() && self.connection.start_dialing()
    }

    // ---- Slots ----

    /// Returns the connection, if a slot on it is free.
    fn room(&self) -> Option<&OpenConnection<L>> {
        let open = self.table.open_at_server() + self.slots.given;
        // If a server says that it takes no calls, the call is sent anyway, and the server refuses it itself.
        let has_room = |connection: &&OpenConnection<L>| {
            self.in_flight() < self.slots.max_inflight && open < connection.max_open_calls.max(1)
        };
        self.connection.open().filter(has_room)
    }

    /// Returns the error of a call that the client does not accept: because it is closed, or because the call
    /// must report the failure of an earlier one.
    #[inline]
    fn check(&mut self, method: &Key) -> Result<(), CallError> {
        if self.failures.is_due() || self.is_closing {
            return Err(self.not_accepted(method));
        }
        Ok(())
    }

    #[cold]
    fn not_accepted(&mut self, method: &Key) -> CallError {
        match self.failures.take_for_next_call() {
            Some(error) => CallError::Earlier { source: Box::new(error) },
            None => CallError::Closed { method: method.clone(), ran: Ran::No },
        }
    }

    /// Takes a slot, or a place in the queue for one. The ticket is that of the place.
    ///
    /// # Errors
    /// Fails if the client is closed, or the time is over.
    pub(crate) fn acquire(
        &mut self,
        ticket: &mut Option<u64>,
        method: &Key,
        deadline: Option<Deadline>,
        now: impl FnOnce() -> Instant,
        cx: &Context<'_>,
    ) -> Result<Acquired, CallError> {
        if let Some(place) = *ticket {
            return match self.slots.poll(place, cx) {
                Poll::Pending => Ok(Acquired::Pending),
                Poll::Ready(settled) => {
                    *ticket = None;
                    settled.map(|()| Acquired::Slot)
                }
            };
        }
        self.check(method)?;
        if self.slots.line().is_empty() && self.room().is_some() {
            self.slots.given += 1;
            return Ok(Acquired::Slot);
        }
        let now = now();
        *ticket = Some(self.slots.join(method.clone(), deadline, now, cx));
        Ok(Acquired::Place(self.waiter_expiry(now, deadline)))
    }

    /// Returns the error of a call that does not wait for a slot.
    pub(crate) fn no_slot(&self, method: &Key) -> CallError {
        match self.connection.open() {
            None => self.connection.not_connected(method, Duration::ZERO),
            Some(connection) => {
                let max_inflight = self.slots.max_inflight.min(connection.max_open_calls);
                CallError::Full { method: method.clone(), max_inflight }
            }
        }
    }

    /// Assigns free slots to the first waiters.
    pub(crate) fn admit(&mut self, wakers: &mut Wakers) {
        while !self.slots.line().is_empty() && self.room().is_some() {
            self.slots.admit_first(wakers);
        }
    }

    /// Returns a slot that was assigned but is not used.
    pub(crate) fn give_back(&mut self, wakers: &mut Wakers) {
        self.slots.given -= 1;
        self.admit(wakers);
    }

    /// Removes a call that no longer waits. It may have been assigned a slot meanwhile.
    pub(crate) fn leave(&mut self, ticket: u64, wakers: &mut Wakers) {
        if self.slots.leave(ticket) {
            self.give_back(wakers);
        }
    }

    // ---- Calls ----

    /// Returns the reason why a call that is about to be sent on `connection` cannot be sent.
    #[inline]
    fn refusal(&mut self, connection: usize, has_slot: bool, request: &Request) -> Option<Refused> {
        if !self.connection.is_current(connection) {
            return Some(Refused::Stale);
        }
        if has_slot {
            return None;
        }
        if let Err(error) = self.check(&request.method) {
            return Some(Refused::Failed(Box::new(error)));
        }
        let has_room = self.slots.line().is_empty() && self.room().is_some();
        if has_room { None } else { Some(Refused::Full) }
    }

    /// Adds the call `id`, which is sent on a connection, with an assigned slot or a free one.
    ///
    /// # Errors
    /// Fails if the connection is over. Without an assigned slot, fails too if none is free or the client
    /// accepts no call.
    #[inline]
    pub(crate) fn register(
        &mut self,
        connection: usize,
        id: u64,
        request: &mut Request,
        has_slot: bool,
    ) -> Result<(), Refused> {
        if let Some(refused) = self.refusal(connection, has_slot, request) {
            return Err(refused);
        }
        self.slots.given -= usize::from(has_slot);
        self.table.send(id, request);
        Ok(())
    }

    /// Handles the answer to a call, which it takes. Returns true if the server keeps the answer until it is
    /// acknowledged.
    #[inline]
    pub(crate) fn answered(
        &mut self,
        connection: usize,
        id: u64,
        answer: &mut Option<Answer>,
        wakers: &mut Wakers,
        released: &mut Released,
    ) -> bool {
        self.counters.received(answer.as_ref().map_or(0, answer_bytes));
        if !self.connection.is_current(connection) {
            released.outcomes.extend(answer.take().and_then(Result::ok).map(Ok));
            return false;
        }
        let Some(is_kept) = self.table.answer(id, answer, wakers, released) else { return false };
        self.connection.answered();
        is_kept
    }

    /// Returns the call, if it is on this connection and its outcome is wanted.
    pub(crate) fn pending(&mut self, connection: usize, id: u64) -> Option<&mut PendingCall> {
        if self.connection.is_current(connection) { self.table.sent_mut(id) } else { None }
    }

    /// Gives up the call `id` with the error that `error` returns, or leaves it if there is none. A call that
    /// was sent must first be withdrawn from its connection: `withdrawn` says how that went on which one.
    pub(crate) fn give_up(
        &mut self,
        id: u64,
        withdrawn: Option<(usize, Withdrawn)>,
        error: impl Fn(&PendingCall, Ran) -> Option<CallError>,
        wakers: &mut Wakers,
        released: &mut Released,
    ) -> GivenUp<L> {
        let Some(call) = self.table.in_flight_call(id) else { return GivenUp::Ended };
        let withdrawn = match (&call.stage, self.connection.current()) {
            (Stage::Sent, Some(connection)) => match withdrawn {
                Some((key, withdrawn)) if key == connection.key => Some(withdrawn),
                _ => {
                    let Some(error) = error(call, Ran::Maybe) else { return GivenUp::Ended };
                    let connection = connection.clone();
                    if matches!(error, CallError::Deadline { .. }) {
                        self.table.time_is_over(id);
                    }
                    return GivenUp::Withdraw(connection);
                }
            },
            // It is not on a connection any more.
            _ => withdrawn.map(|(_, withdrawn)| withdrawn).filter(|withdrawn| is_forgotten(*withdrawn)),
        };
        let ran = match &call.stage {
            _ if withdrawn.is_some_and(is_forgotten) => Ran::No,
            Stage::InDoubt(in_doubt) => in_doubt.ran(),
            _ => Ran::Maybe,
        };
        let Some(error) = error(call, ran) else { return GivenUp::Ended };
        let is_answered = matches!(call.stage, Stage::Sent) && ran == Ran::Maybe;
        let stage = if is_answered { Stage::Withdrawn } else { Stage::Over };
        self.table.end(id, stage, Err(error), wakers, released);
        self.admit(wakers);
        GivenUp::Done(ran)
    }

    /// Ends a call that is not sent again. Does nothing if it has ended.
    pub(crate) fn fail(
        &mut self,
        id: u64,
        error: impl FnOnce(&PendingCall) -> CallError,
        wakers: &mut Wakers,
        released: &mut Released,
    ) {
        if let Some(call) = self.table.in_flight_call(id) {
            let error = error(call);
            self.table.end(id, Stage::Over, Err(error), wakers, released);
            self.admit(wakers);
        }
    }

    /// Forgets a withdrawn call that will get no answer.
    pub(crate) fn forget(
        &mut self,
        connection: usize,
        id: u64,
        wakers: &mut Wakers,
        released: &mut Released,
    ) {
        if self.connection.is_current(connection) && self.table.forget(id, released).is_some() {
            self.admit(wakers);
        }
    }

    /// Returns the number of calls that hold a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.table.in_flight() + self.slots.given
    }

    // ---- Time ----

    /// Returns the time at which a call in the queue expires.
    fn waiter_expiry(&self, since: Instant, deadline: Option<Deadline>) -> Option<Instant> {
        let is_open = self.connection.open().is_some();
        let gives_up = if is_open { None } else { self.connection.gives_up_at(since) };
        earliest(deadline.map(|deadline| deadline.at), gives_up)
    }

    /// Returns the time at which a call that was sent expires. If it is in doubt while a connection is open,
    /// its server is closing and will soon say goodbye.
    fn call_expiry(&self, call: &PendingCall) -> Option<Instant> {
        let gives_up = match &call.stage {
            Stage::InDoubt(in_doubt) => self.connection.gives_up_at(in_doubt.since),
            Stage::Sent | Stage::Withdrawn | Stage::Over => None,
        };
        earliest(call.deadline.map(|deadline| deadline.at), gives_up)
    }

    fn expiries(&self) -> impl Iterator<Item = Instant> {
        let waiters = self.slots.line().values();
        let waiters = waiters.filter_map(|waiter| self.waiter_expiry(waiter.since, waiter.deadline));
        waiters.chain(self.table.in_flight_calls().filter_map(|(_, call)| self.call_expiry(call)))
    }

    /// Returns the time at which `expire` is needed next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries().min()
    }

    /// Does the same after `expire` has returned the calls that expired until `now`.
    pub(crate) fn next_expiry_after(&self, now: Instant) -> Option<Instant> {
        self.expiries().filter(|at| *at > now).min()
    }

    /// Lets the expired calls in the queue fail. Returns the others, to be given up with `expiry_error`.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Wakers) -> Vec<u64> {
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let line = self.slots.line().iter();
        let waiters: Vec<_> = line
            .filter(|(_, waiter)| is_over(self.waiter_expiry(waiter.since, waiter.deadline)))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in waiters {
            let connection = &self.connection;
            let error = |waiter: &Waiter| match waiter.deadline.filter(|deadline| deadline.at <= now) {
                Some(deadline) => Err(deadline.error(&waiter.method, Ran::No)),
                None => {
                    Err(connection.not_connected(&waiter.method, now.saturating_duration_since(waiter.since)))
                }
            };
            self.slots.settle(ticket, error, wakers);
        }
        let calls = self.table.in_flight_calls().filter(|(_, call)| is_over(self.call_expiry(call)));
        calls.map(|(id, _)| id).collect()
    }

    // ---- The end ----

    /// Accepts no more calls. Those that wait for a slot fail.
    pub(crate) fn begin_close(&mut self, wakers: &mut Wakers) {
        self.is_closing = true;
        while let Some((ticket, _)) = self.slots.line().first_key_value() {
            let closed =
                |waiter: &Waiter| Err(CallError::Closed { method: waiter.method.clone(), ran: Ran::No });
            self.slots.settle(*ticket, closed, wakers);
        }
    }

    /// Ends everything. Calls that are in flight fail. Returns the connection, if there is one.
    pub(crate) fn end(&mut self, wakers: &mut Wakers, released: &mut Released) -> Option<OpenConnection<L>> {
        self.begin_close(wakers);
        let calls: Vec<_> =
            self.table.in_flight_calls().map(|(id, call)| (id, call.method.clone())).collect();
        for (id, method) in calls {
            let error = CallError::Closed { method, ran: Ran::Maybe };
            self.table.end(id, Stage::Over, Err(error), wakers, released);
        }
        self.table.forget_withdrawn(released);
        self.connection.end()
    }
}

/// The next step with a call that is given up.
#[derive(Debug)]
pub(crate) enum GivenUp<L> {
    /// The call has ended before, or is not to be given up.
    Ended,
    /// The call must be withdrawn from this connection.
    Withdraw(OpenConnection<L>),
    /// The call is given up. It is known whether it ran.
    Done(Ran),
}

/// The reason why a call that was about to be sent is refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The connection is over.
    Stale,
    /// No slot is free, or other calls wait for one.
    Full,
    Failed(Box<CallError>),
}

/// Returns true if the call did not arrive completely: it never runs and gets no answer.
pub(crate) fn is_forgotten(withdrawn: Withdrawn) -> bool {
    matches!(withdrawn, Withdrawn::NeverSent | Withdrawn::Aborted)
}

/// Returns the error of a call whose time is over: that of its deadline, or that in which it waited for the
/// next connection. Returns `None` if its time is not over.
pub(crate) fn expiry_error(call: &PendingCall, ran: Ran, now: Instant) -> Option<CallError> {
    match (call.deadline.filter(|deadline| deadline.at <= now), &call.stage) {
        (Some(deadline), _) => Some(deadline.error(&call.method, ran)),
        (None, Stage::InDoubt(in_doubt)) => Some(in_doubt.error(&call.method)),
        (None, _) => None,
    }
}

/// Returns the earlier of two times, either of which may be missing.
pub(crate) fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
