//! The state of a client: its calls, slots and connection.
//!
//! Flow: `acquire` (a slot, or a place in the queue) -> `sent` -> `answered`, `withdraw` or `lost` -> the
//! slot is assigned to the first waiter. [`resume`](crate::calls::resume) handles calls between two
//! connections.
//!
//! Pure: no socket, no thread, no clock. `L` is the type of a connection.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use teleport_transport::Wakers;
use teleport_transport::wire::{Key, Ran};

use crate::calls::counters::Counters;
use crate::calls::deferred_results::DeferredResults;
use crate::calls::failures::Failures;
use crate::calls::pending::{Deadline, PendingCall};
use crate::calls::slot::{Slots, Waiter};
use crate::calls::table::{CallTable, Entry, GivenUp};
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
        now: Instant,
    ) -> ClientState<L> {
        ClientState {
            connection: Status::new(address, connect_timeout, now),
            table: CallTable::default(),
            slots: Slots::new(max_inflight),
            deferred: DeferredResults::default(),
            failures: Failures::default(),
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
        if self.is_closing {
            return Err(CallError::Closed { method: method.clone(), ran: Ran::No });
        }
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

    /// Adds a call that is sent on a connection with its assigned slot. Returns false if the connection is
    /// over.
    pub(crate) fn sent(&mut self, connection: usize, id: u64, call: &Arc<PendingCall>) -> bool {
        let is_current = self.connection.is_current(connection);
        if is_current {
            self.slots.given -= 1;
            self.table.insert(id, call.clone());
        }
        is_current
    }

    /// Handles the answer to a call. Returns the call if its outcome is wanted, and true if the server keeps
    /// the answer until it is acknowledged.
    pub(crate) fn answered(
        &mut self,
        connection: usize,
        id: u64,
        wakers: &mut Wakers,
    ) -> (Option<Arc<PendingCall>>, bool) {
        let is_current = self.connection.is_current(connection);
        let entry = if is_current { self.table.take_answered(id) } else { None };
        let answered = match entry {
            None | Some(Entry::InDoubt(_)) => return (None, false),
            Some(Entry::Withdrawn { is_kept }) => (None, is_kept),
            Some(Entry::Sent(call)) => {
                let is_kept = call.resumes;
                (Some(call), is_kept)
            }
        };
        self.connection.answered();
        self.admit(wakers);
        answered
    }

    /// Returns the call, if it is on this connection and its outcome is wanted.
    pub(crate) fn pending(&self, connection: usize, id: u64) -> Option<&Arc<PendingCall>> {
        if self.connection.is_current(connection) { self.table.get(id) } else { None }
    }

    /// Gives up a call and its slot. Returns `None` if it has ended. Its answer may still arrive.
    pub(crate) fn withdraw(&mut self, id: u64, wakers: &mut Wakers) -> Option<GivenUp> {
        let given_up = self.table.give_up(id)?;
        self.admit(wakers);
        Some(given_up)
    }

    /// Forgets a withdrawn call that will get no answer.
    pub(crate) fn forget(&mut self, connection: usize, id: u64, wakers: &mut Wakers) {
        if self.connection.is_current(connection) && self.table.forget(id) {
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
    fn entry_expiry(&self, entry: &Entry) -> Option<Instant> {
        let (call, gives_up) = match entry {
            Entry::Sent(call) => (call, None),
            Entry::InDoubt(in_doubt) => (&in_doubt.call, self.connection.gives_up_at(in_doubt.since)),
            Entry::Withdrawn { .. } => return None,
        };
        earliest(call.deadline.map(|deadline| deadline.at), gives_up)
    }

    /// Returns the time at which `expire` is needed next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let waiters = self.slots.line().values();
        let waiters = waiters.filter_map(|waiter| self.waiter_expiry(waiter.since, waiter.deadline));
        waiters.chain(self.table.entries().filter_map(|(_, entry)| self.entry_expiry(entry))).min()
    }

    /// Gives up the expired calls. Those in the queue fail, the others are returned.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Wakers) -> Vec<GivenUp> {
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
        let entries = self.table.entries().filter(|(_, entry)| is_over(self.entry_expiry(entry)));
        let ids: Vec<_> = entries.map(|(id, _)| id).collect();
        let given_up = ids.into_iter().filter_map(|id| self.table.give_up(id)).collect();
        self.admit(wakers);
        given_up
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

    /// Ends everything. Returns the connection, if there is one, and the calls that were in flight.
    pub(crate) fn end(&mut self, wakers: &mut Wakers) -> (Option<OpenConnection<L>>, Vec<Arc<PendingCall>>) {
        self.begin_close(wakers);
        (self.connection.end(), self.table.take_all())
    }
}

/// Returns the earlier of two times, either of which may be missing.
pub(crate) fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
