//! Sending a call: a slot, then the link.
//!
//! Every call first tries to send with a free slot. If there is none, or no connection, it becomes a
//! [`Submission`], which waits in the queue for slots. Blocking and awaiting callers wait in the same queue.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use teleport_transport::protocol::{Closed, SendError};
use teleport_transport::wire::{Key, Ran};
use teleport_transport::{Link, ReaderRole, Wakers, block_on_or_unwind, on_poller_thread};

use crate::calls::pending::{Deadline, Request};
use crate::calls::state::{Acquired, Refused};
use crate::engine::shared::{Engine, Locked};
use crate::error::call::CallError;

/// A call that was sent, and its place in the table of calls.
pub(crate) struct Sent {
    pub(crate) engine: Arc<Engine>,
    pub(crate) method: Key,
    /// The first id of the call.
    pub(crate) id: u64,
}

/// The reason why a call was not sent.
enum Unsent {
    /// There is no free slot, or no connection. The call may wait in the queue.
    NoSlot,
    Failed(CallError),
}

impl Engine {
    /// Sends a call with the assigned slot, or with a free one. Calls `before` with the connection before the
    /// call is sent. If this fails, the assigned slot is given back.
    fn send(
        &self,
        request: &mut Request,
        deadline: Option<Deadline>,
        has_slot: bool,
        before: impl FnMut(&Arc<Link>),
    ) -> Result<u64, Unsent> {
        let sent = self.try_send(request, deadline, has_slot, before);
        if has_slot && sent.is_err() {
            self.update(|client, wakers| client.give_back(wakers));
        }
        sent
    }

    fn try_send(
        &self,
        request: &mut Request,
        deadline: Option<Deadline>,
        has_slot: bool,
        mut before: impl FnMut(&Arc<Link>),
    ) -> Result<u64, Unsent> {
        // Without a wait for a slot, all of the time is left.
        let mut left = deadline.map(|deadline| deadline.time).filter(|_| !has_slot);
        let mut last = self.last_link();
        loop {
            let is_last = last.is_some();
            let Some((link, limits)) = last.take().or_else(|| self.open_link()) else {
                return Err(Unsent::NoSlot);
            };
            before(&link);
            let rest = || deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
            let left = left.take().or_else(rest).unwrap_or_default();
            let message = request.encode(deadline, left, &limits).map_err(Unsent::Failed)?;
            let (bytes, mut refused) = (message.payload_bytes(), None);
            let sent = link.call(message, |id| {
                let mut state = self.state.lock();
                refused = state.register(link.key(), id, request, deadline, has_slot, bytes).err();
                refused.is_none()
            });
            match (sent, refused) {
                (Ok(id), _) => {
                    if !is_last {
                        self.set_last_link(&link, limits);
                    }
                    return Ok(id);
                }
                (Err(_), Some(Refused::Full)) => return Err(Unsent::NoSlot),
                (Err(_), Some(Refused::Failed(error))) => return Err(Unsent::Failed(error)),
                // Another connection may be there.
                (Err(_), Some(Refused::Stale)) => {}
                (Err(SendError::TooManyCalls { max_open_calls }), None) => {
                    let (method, max_inflight) = (request.method.clone(), max_open_calls as usize);
                    return Err(Unsent::Failed(CallError::Full { method, max_inflight }));
                }
                (Err(_), None) => {
                    // The link is over, but the engine has not been informed yet.
                    let closed = link.closed().cloned().unwrap_or_else(|| Arc::new(Closed::Here));
                    let mut wakers = Wakers::default();
                    self.lose(&link, &closed, &mut wakers);
                    wakers.wake_all();
                }
            }
        }
    }
}

impl Locked {
    /// Adds a call that is sent on a connection.
    fn register(
        &mut self,
        connection: usize,
        id: u64,
        request: &mut Request,
        deadline: Option<Deadline>,
        has_slot: bool,
        bytes: u64,
    ) -> Result<(), Refused> {
        self.client.register(connection, id, request, deadline, has_slot)?;
        self.client.counters.sent(bytes);
        if let Some(deadline) = deadline {
            self.alarm.ring_by(deadline.at);
        }
        Ok(())
    }
}

/// Sends a call, and **blocks** until there is a slot. If `reads`, takes the read role before the call is
/// sent, so that the poller does not read the answer first.
pub(crate) fn send(
    engine: Arc<Engine>,
    mut request: Request,
    reads: bool,
    reader: &mut Option<ReaderRole>,
) -> Result<Sent, CallError> {
    engine.check_process(&request.method, Ran::No)?;
    let deadline = request.deadline();
    let sent = engine.send(&mut request, deadline, false, |link| {
        if reads && !on_poller_thread() {
            *reader = link.lead();
        }
    });
    match sent {
        Ok(id) => Ok(Sent { engine, method: request.method, id }),
        Err(Unsent::Failed(error)) => Err(error),
        Err(Unsent::NoSlot) => {
            Submission { engine, request, deadline: Some(deadline), ticket: None }.wait(reader)
        }
    }
}

/// Sends a call if a slot is free.
pub(crate) fn try_send(engine: Arc<Engine>, mut request: Request) -> Result<Sent, CallError> {
    engine.check_process(&request.method, Ran::No)?;
    let deadline = request.deadline();
    match engine.send(&mut request, deadline, false, |_| ()) {
        Ok(id) => Ok(Sent { engine, method: request.method, id }),
        Err(Unsent::Failed(error)) => Err(error),
        Err(Unsent::NoSlot) => Err(engine.with(|client| client.no_slot(&request.method))),
    }
}

/// A call that was not sent and may wait for a slot. If it is dropped before it is sent, it leaves the queue.
pub(crate) struct Submission {
    engine: Arc<Engine>,
    request: Request,
    /// Set once the time of the call has started and there was no free slot for it.
    deadline: Option<Option<Deadline>>,
    /// The ticket of its place in the queue for slots.
    ticket: Option<u64>,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = self.ticket.is_some();
        f.debug_struct("Submission").field("method", &self.request.method).field("waits", &waits).finish()
    }
}

impl Submission {
    pub(crate) fn new(engine: Arc<Engine>, request: Request) -> Submission {
        Submission { engine, request, deadline: None, ticket: None }
    }

    /// **Blocks** until the call is sent.
    fn wait(mut self, reader: &mut Option<ReaderRole>) -> Result<Sent, CallError> {
        // Answers free slots, so a thread that waits for a slot reads.
        if reader.is_none() && !on_poller_thread() {
            *reader = self.engine.open_link().and_then(|(link, _)| link.lead());
        }
        // A poller's thread may send, but must not wait.
        let until = on_poller_thread().then(Instant::now);
        block_on_or_unwind(reader, until, |cx| self.poll(cx))
            .unwrap_or_else(|| Err(CallError::OnPoller { method: self.request.method.clone(), ran: Ran::No }))
    }

    /// Sends the call, or waits for a slot. A new call first looks for a free slot.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Sent, CallError>> {
        self.engine.check_process(&self.request.method, Ran::No)?;
        let mut waits = self.deadline.is_some();
        let deadline = *self.deadline.get_or_insert_with(|| self.request.deadline());
        loop {
            if waits {
                ready!(self.poll_slot(deadline, cx))?;
            }
            match self.engine.send(&mut self.request, deadline, waits, |_| ()) {
                Ok(id) => {
                    let (engine, method) = (self.engine.clone(), self.request.method.clone());
                    return Poll::Ready(Ok(Sent { engine, method, id }));
                }
                Err(Unsent::Failed(error)) => return Poll::Ready(Err(error)),
                Err(Unsent::NoSlot) => waits = true,
            }
        }
    }

    /// Waits for a slot.
    fn poll_slot(&mut self, deadline: Option<Deadline>, cx: &Context<'_>) -> Poll<Result<(), CallError>> {
        let (acquired, dials) = {
            let mut state = self.engine.state.lock();
            let Locked { client, alarm, .. } = &mut *state;
            let acquired =
                client.acquire(&mut self.ticket, &self.request.method, deadline, Instant::now, cx)?;
            let is_new = matches!(acquired, Acquired::Place(_));
            if let Acquired::Place(Some(expiry)) = acquired {
                alarm.ring_by(expiry);
            }
            (acquired, is_new && client.needs_dial())
        };
        if dials {
            self.engine.dial();
        }
        if acquired == Acquired::Slot {
            return Poll::Ready(Ok(()));
        }
        self.engine.expect_answers();
        Poll::Pending
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket
            && self.engine.process.is_current()
        {
            self.engine.update(|client, wakers| client.leave(ticket, wakers));
        }
    }
}
