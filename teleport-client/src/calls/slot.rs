//! Slots: the calls that may be in flight at once, and the line for them.
//!
//! Slots are given in the order in which calls asked, whether they block or are awaited. Flow of a waiter: queued in
//! [`Slots`] -> `settle` (when a slot is free, or its time is over) -> `poll` (by the call). Never runs a waker under its
//! lock. Bound: `max_inflight` slots. The line is as long as the callers make it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::Wakers;
use teleport_transport::wire::Key;

use crate::calls::pending::{Deadline, keep_waker};
use crate::connect::status::OpenConnection;
use crate::error::call::CallError;

#[derive(Debug)]
pub(crate) struct Slots<L> {
    pub(crate) max_inflight: usize,
    /// Slots of calls that have not been sent.
    pub(crate) given: usize,
    pub(crate) line: VecDeque<Arc<SlotWaiter<L>>>,
}

/// What a waiter gets: a slot on this connection, or the reason why it gets none.
pub(crate) type Admitted<L> = Result<OpenConnection<L>, CallError>;

/// A call in the line for a slot.
#[derive(Debug)]
pub(crate) struct SlotWaiter<L> {
    pub(crate) method: Key,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) since: Instant,
    cell: Mutex<Admission<L>>,
}

#[derive(Debug)]
struct Admission<L> {
    admitted: Option<Admitted<L>>,
    waker: Option<Waker>,
}

impl<L> SlotWaiter<L> {
    pub(crate) fn new(method: Key, deadline: Option<Deadline>, since: Instant) -> SlotWaiter<L> {
        SlotWaiter { method, deadline, since, cell: Mutex::new(Admission { admitted: None, waker: None }) }
    }

    /// Ends the wait. Called once, by the thread that takes the waiter out of the line.
    pub(crate) fn settle(&self, admitted: Admitted<L>, wakers: &mut Wakers) {
        let mut cell = self.cell.lock();
        cell.admitted = Some(admitted);
        if let Some(waker) = cell.waker.take() {
            wakers.push(waker);
        }
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Admitted<L>> {
        let mut cell = self.cell.lock();
        match cell.admitted.take() {
            Some(admitted) => Poll::Ready(admitted),
            None => {
                keep_waker(&mut cell.waker, cx);
                Poll::Pending
            }
        }
    }

    /// Takes a slot back that the call has not taken. Returns true if there was one.
    pub(crate) fn revoke(&self) -> bool {
        matches!(self.cell.lock().admitted.take(), Some(Ok(_)))
    }
}
