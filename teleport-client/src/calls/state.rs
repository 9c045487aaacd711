//! The state of a client: its calls, slots and connection.
//!
//! Flow: `acquire` (a slot, or a place in the line) -> `sent` -> `answered`, `withdraw` or `lost` -> the slot goes to the
//! first in the line. What becomes of calls between connections is in [`resume`](crate::calls::resume).
//!
//! Pure: no socket, no thread, no clock. A connection is whatever `L` is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::Wakers;
use teleport_transport::wire::{Key, Ran};

use crate::calls::counters::Counters;
use crate::calls::deferred_results::DeferredResults;
use crate::calls::failures::Failures;
use crate::calls::in_doubt::InDoubtCall;
use crate::calls::pending::{Deadline, PendingCall};
use crate::calls::slot::{SlotWaiter, Slots};
use crate::calls::table::{CallTable, Entry};
use crate::connect::status::{OpenConnection, Status};
use crate::error::call::CallError;

/// The outcome of asking for a slot.
#[derive(Debug)]
pub(crate) enum Acquired<L> {
    /// A slot on the open connection.
    Slot,
    /// A place in the line.
    Waiter(Arc<SlotWaiter<L>>),
}

/// Where a call was that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// It was sent on the current connection, which has to withdraw it.
    Sent,
    /// It waited for a connection.
    InDoubt(Ran),
}

/// A call whose time is over.
#[derive(Debug)]
pub(crate) enum Overdue {
    /// It was sent under this id, and has to be withdrawn.
    Sent(u64, Arc<PendingCall>),
    /// It waited for a connection.
    Failed(Arc<PendingCall>, CallError),
}

#[derive(Debug)]
pub(crate) struct ClientState<L> {
    pub(crate) connection: Status<L>,
    pub(crate) table: CallTable,
    pub(crate) slots: Slots<L>,
    pub(crate) deferred: DeferredResults,
    pub(crate) failures: Failures,
    pub(crate) counters: Counters,
    /// The client takes no more calls.
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
            slots: Slots { max_inflight, given: 0, line: VecDeque::new() },
            deferred: DeferredResults::default(),
            failures: Failures::default(),
            counters: Counters::new(now),
            is_closing: false,
        }
    }

    /// Returns true if there are, or may be, calls to send. A closing client still waits for calls that survived their
    /// connection.
    pub(crate) fn wants_connection(&self) -> bool {
        let has_earlier = self.table.has_in_doubt() || self.connection.is_resuming();
        !self.connection.is_over() && (!self.is_closing || has_earlier)
    }

    /// Returns true if the caller has to start the thread that connects.
    pub(crate) fn needs_dial(&mut self) -> bool {
        self.wants_connection() && self.connection.start_dialing()
    }

    // ---- Slots ----

    /// The connection, if a slot on it is free.
    fn room(&self) -> Option<&OpenConnection<L>> {
        let open = self.table.open_at_server() + self.slots.given;
        // A server that says it takes no calls is asked, and refuses the call itself.
        let has_room = |connection: &&OpenConnection<L>| {
            self.in_flight() < self.slots.max_inflight && open < connection.max_open_calls.max(1)
        };
        self.connection.open().filter(has_room)
    }

    fn take_slot(&mut self) -> bool {
        let is_free = self.slots.line.is_empty() && self.room().is_some();
        self.slots.given += usize::from(is_free);
        is_free
    }

    /// Gives a slot, or a place in the line for one.
    ///
    /// # Errors
    /// If the client is closed.
    pub(crate) fn acquire(
        &mut self,
        method: &Key,
        deadline: Option<Deadline>,
        now: impl FnOnce() -> Instant,
    ) -> Result<Acquired<L>, CallError> {
        if self.is_closing {
            return Err(CallError::Closed { method: method.clone(), ran: Ran::No });
        }
        if self.take_slot() {
            return Ok(Acquired::Slot);
        }
        let waiter = Arc::new(SlotWaiter::new(method.clone(), deadline, now()));
        self.slots.line.push_back(waiter.clone());
        Ok(Acquired::Waiter(waiter))
    }

    /// Gives a slot that is free now.
    ///
    /// # Errors
    /// If none is, or there is no connection.
    pub(crate) fn try_acquire(&mut self, method: &Key) -> Result<(), CallError> {
        if self.is_closing {
            return Err(CallError::Closed { method: method.clone(), ran: Ran::No });
        }
        if self.take_slot() {
            return Ok(());
        }
        let Some(connection) = self.connection.open() else {
            return Err(self.connection.not_connected(method, Duration::ZERO));
        };
        let max_inflight = self.slots.max_inflight.min(connection.max_open_calls);
        Err(CallError::Full { method: method.clone(), max_inflight })
    }

    /// Gives free slots to the first in the line.
    pub(crate) fn admit(&mut self, wakers: &mut Wakers) {
        while !self.slots.line.is_empty()
            && let Some(connection) = self.room().cloned()
            && let Some(waiter) = self.slots.line.pop_front()
        {
            self.slots.given += 1;
            waiter.settle(Ok(connection), wakers);
        }
    }

    /// A slot that was given is not used.
    pub(crate) fn give_back(&mut self, wakers: &mut Wakers) {
        self.slots.given -= 1;
        self.admit(wakers);
    }

    /// A call no longer waits. It may have been given a slot meanwhile.
    pub(crate) fn leave(&mut self, waiter: &Arc<SlotWaiter<L>>, wakers: &mut Wakers) {
        self.slots.line.retain(|other| !Arc::ptr_eq(other, waiter));
        if waiter.revoke() {
            self.give_back(wakers);
        }
    }

    // ---- Calls ----

    /// A call goes out on a connection, with a slot that it was given. Returns false if the connection is over.
    pub(crate) fn sent(&mut self, connection: usize, id: u64, call: &Arc<PendingCall>) -> bool {
        let is_current = self.connection.is_current(connection);
        if is_current {
            self.slots.given -= 1;
            self.table.insert(id, call.clone());
        }
        is_current
    }

    /// A call was answered. Returns the call if somebody wants its outcome, and true if the server keeps the answer until it
    /// is acknowledged.
    pub(crate) fn answered(
        &mut self,
        connection: usize,
        id: u64,
        wakers: &mut Wakers,
    ) -> (Option<Arc<PendingCall>>, bool) {
        let entry = if self.connection.is_current(connection) { self.table.remove(id) } else { None };
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

    /// The call, if it is on this connection and somebody wants its outcome.
    pub(crate) fn pending(&self, connection: usize, id: u64) -> Option<&Arc<PendingCall>> {
        if self.connection.is_current(connection) { self.table.get(id) } else { None }
    }

    /// Gives up a call, and its slot with it. Returns `None` if it has ended. Its answer may still come.
    pub(crate) fn withdraw(&mut self, id: u64, wakers: &mut Wakers) -> Option<GivenUp> {
        let given_up = match self.table.take_in_doubt(id) {
            Some(in_doubt) => GivenUp::InDoubt(in_doubt.ran()),
            None => self.table.withdraw(id).map(|_| GivenUp::Sent)?,
        };
        self.admit(wakers);
        Some(given_up)
    }

    /// No answer will come to a call that was withdrawn.
    pub(crate) fn forget(&mut self, connection: usize, id: u64, wakers: &mut Wakers) {
        if self.connection.is_current(connection) && self.table.forget(id) {
            self.admit(wakers);
        }
    }

    /// The number of calls that hold a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.table.in_flight() + self.slots.given
    }

    // ---- Time ----

    /// When the time of a call in the line is over.
    pub(crate) fn waiter_expiry(&self, waiter: &SlotWaiter<L>) -> Option<Instant> {
        let deadline = waiter.deadline.map(|deadline| deadline.at);
        let is_open = self.connection.open().is_some();
        earliest(deadline, if is_open { None } else { self.connection.gives_up_at(waiter.since) })
    }

    /// When the time of a call in doubt is over. If a connection is open, its server is closing and soon says goodbye.
    fn in_doubt_expiry(&self, in_doubt: &InDoubtCall) -> Option<Instant> {
        let deadline = in_doubt.call.deadline.map(|deadline| deadline.at);
        earliest(deadline, self.connection.gives_up_at(in_doubt.since))
    }

    /// When `expire` next has something to do.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let waiters = self.slots.line.iter().filter_map(|waiter| self.waiter_expiry(waiter));
        let sent = self.table.sent().filter_map(|(_, call)| Some(call.deadline?.at));
        let in_doubt = self.table.in_doubt().filter_map(|(_, in_doubt)| self.in_doubt_expiry(in_doubt));
        waiters.chain(sent).chain(in_doubt).min()
    }

    /// Ends the wait of calls whose time is over. Returns those that were sent.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Wakers) -> Vec<Overdue> {
        for waiter in std::mem::take(&mut self.slots.line) {
            if self.waiter_expiry(&waiter).is_none_or(|at| at > now) {
                self.slots.line.push_back(waiter);
                continue;
            }
            let error = match waiter.deadline.filter(|deadline| deadline.at <= now) {
                Some(deadline) => deadline.error(&waiter.method, Ran::No),
                None => {
                    self.connection.not_connected(&waiter.method, now.saturating_duration_since(waiter.since))
                }
            };
            waiter.settle(Err(error), wakers);
        }
        let is_due = |in_doubt| self.in_doubt_expiry(in_doubt).is_some_and(|at| at <= now);
        let in_doubt: Vec<_> =
            self.table.in_doubt().filter(|(_, in_doubt)| is_due(in_doubt)).map(|(id, _)| id).collect();
        let sent: Vec<_> =
            self.table.sent().filter(|(_, call)| call.is_late(now)).map(|(id, _)| id).collect();
        let in_doubt = in_doubt.into_iter().filter_map(|id| self.table.take_in_doubt(id)).map(|in_doubt| {
            let error = match in_doubt.call.deadline.filter(|deadline| deadline.at <= now) {
                Some(deadline) => deadline.error(&in_doubt.call.method, in_doubt.ran()),
                None => in_doubt.error(),
            };
            Overdue::Failed(in_doubt.call, error)
        });
        let mut overdue: Vec<_> = in_doubt.collect();
        overdue.extend(sent.into_iter().filter_map(|id| Some(Overdue::Sent(id, self.table.withdraw(id)?))));
        self.admit(wakers);
        overdue
    }

    // ---- The end ----

    /// Takes no more calls. Those that wait for a slot fail.
    pub(crate) fn begin_close(&mut self, wakers: &mut Wakers) {
        self.is_closing = true;
        for waiter in self.slots.line.drain(..) {
            waiter.settle(Err(CallError::Closed { method: waiter.method.clone(), ran: Ran::No }), wakers);
        }
    }

    /// Ends everything. Returns the connection, if there is one, and the calls that were in flight.
    pub(crate) fn end(&mut self, wakers: &mut Wakers) -> (Option<OpenConnection<L>>, Vec<Arc<PendingCall>>) {
        self.begin_close(wakers);
        (self.connection.end(), self.table.take_all())
    }
}

/// The earlier of two times that may never come.
pub(crate) fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests;
