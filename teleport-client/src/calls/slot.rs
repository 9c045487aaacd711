//! One call that waits for a free slot, or for a connection.
//!
//! Flow: queued in [`State`](crate::calls::state::State) -> `settle` (by whoever frees a slot, or when the time is over) ->
//! `poll` (from the call). Never runs a waker under its lock.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::Wakers;
use teleport_transport::wire::{Id128, Key, Limits};

use crate::calls::pending::{Deadline, keep_waker};
use crate::error::call::CallError;

/// An open connection, with what the server said it accepts.
#[derive(Debug)]
pub(crate) struct OpenConnection<L> {
    pub(crate) link: L,
    pub(crate) connection: usize,
    pub(crate) limits: Limits,
    pub(crate) max_open_calls: usize,
    /// What tells this server from another at the same address.
    pub(crate) server: Id128,
}

/// What a waiting call gets: a slot on a connection, or the reason why it gets none.
pub(crate) type Admitted<L> = Result<Arc<OpenConnection<L>>, CallError>;

/// A place in the line for slots.
#[derive(Debug)]
pub(crate) struct SlotWaiter<L> {
    pub(crate) method: Key,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) since: Instant,
    cell: Mutex<Cell<L>>,
}

#[derive(Debug)]
struct Cell<L> {
    admitted: Option<Admitted<L>>,
    waker: Option<Waker>,
}

impl<L> SlotWaiter<L> {
    pub(crate) fn new(method: Key, deadline: Option<Deadline>, since: Instant) -> SlotWaiter<L> {
        SlotWaiter { method, deadline, since, cell: Mutex::new(Cell { admitted: None, waker: None }) }
    }

    /// Ends the wait. Called once, by whoever takes the pass out of the line.
    pub(crate) fn settle(&self, admitted: Admitted<L>, wakers: &mut Wakers) {
        let mut cell = self.cell.lock();
        cell.admitted = Some(admitted);
        if let Some(waker) = cell.waker.take() {
            wakers.push(waker);
        }
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Admitted<L>> {
        let mut cell = self.cell.lock();
        match cell.admitted.take() {
            Some(admitted) => Poll::Ready(admitted),
            None => {
                keep_waker(&mut cell.waker, cx);
                Poll::Pending
            }
        }
    }

    /// Whether it was given a slot that nobody took; nobody can afterwards.
    pub(crate) fn revoke(&self) -> bool {
        matches!(self.cell.lock().admitted.take(), Some(Ok(_)))
    }
}
