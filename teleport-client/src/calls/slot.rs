//! Slots: they bound the calls that may be in flight. Calls wait for them in a queue.
//!
//! Slots are assigned in the order of requests, for blocking and awaiting callers alike. Flow of a waiter:
//! `join` -> `settle` (a slot is free, or its time is over) -> `poll` (by the call). Bound: `max_inflight`
//! slots. The callers bound the length of the queue.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use teleport_transport::Wakers;
use teleport_transport::wire::Key;

use crate::calls::pending::Deadline;
use crate::error::call::CallError;

/// A call in the queue for a slot.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) method: Key,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) since: Instant,
    waker: Waker,
}

#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) max_inflight: usize,
    /// Slots of calls that are not sent yet.
    pub(crate) given: usize,
    /// By ticket. Tickets count up, so the oldest waiter is first.
    line: BTreeMap<u64, Waiter>,
    last_ticket: u64,
    /// Waiters that have left the queue, with a slot or an error.
    settled: BTreeMap<u64, Result<(), CallError>>,
}

impl Slots {
    pub(crate) fn new(max_inflight: usize) -> Slots {
        Slots { max_inflight, given: 0, line: BTreeMap::new(), last_ticket: 0, settled: BTreeMap::new() }
    }

    /// Returns the waiters in the queue, by ticket.
    pub(crate) fn line(&self) -> &BTreeMap<u64, Waiter> {
        &self.line
    }

    /// Appends a call to the queue. Returns its ticket.
    pub(crate) fn join(
        &mut self,
        method: Key,
        deadline: Option<Deadline>,
        since: Instant,
        cx: &Context<'_>,
    ) -> u64 {
        self.last_ticket += 1;
        self.line.insert(self.last_ticket, Waiter { method, deadline, since, waker: cx.waker().clone() });
        self.last_ticket
    }

    pub(crate) fn poll(&mut self, ticket: u64, cx: &Context<'_>) -> Poll<Result<(), CallError>> {
        if let Some(waiter) = self.line.get_mut(&ticket) {
            waiter.waker.clone_from(cx.waker());
        }
        self.settled.remove(&ticket).map_or(Poll::Pending, Poll::Ready)
    }

    /// Assigns a slot to the first waiter.
    pub(crate) fn admit_first(&mut self, wakers: &mut Wakers) {
        if let Some((ticket, _)) = self.line.first_key_value() {
            self.given += 1;
            self.settle(*ticket, |_| Ok(()), wakers);
        }
    }

    /// Removes a waiter from the queue.
    pub(crate) fn settle(
        &mut self,
        ticket: u64,
        result: impl FnOnce(&Waiter) -> Result<(), CallError>,
        wakers: &mut Wakers,
    ) {
        if let Some(waiter) = self.line.remove(&ticket) {
            self.settled.insert(ticket, result(&waiter));
            wakers.push(waiter.waker);
        }
    }

    /// Removes a call that no longer waits. Returns true if it was assigned a slot that it has not taken.
    pub(crate) fn leave(&mut self, ticket: u64) -> bool {
        self.line.remove(&ticket);
        matches!(self.settled.remove(&ticket), Some(Ok(())))
    }
}
