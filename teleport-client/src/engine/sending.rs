//! Sending a call: a slot, then the link, which encodes a small call where it queues it.
//!
//! Every call first tries to send with a free slot. If there is none, or no connection, it becomes a
//! [`Submission`], which waits in the queue for slots. Blocking and awaiting callers wait in the same queue.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use teleport_transport::protocol::{Closed, NewCall, SendError};
use teleport_transport::wire::{Draft, Key, Limits, Ran};
use teleport_transport::{Link, ReaderRole, Wakers, block_on_or_unwind, on_poller_thread};

use crate::calls::pending::Request;
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
pub(crate) enum Unsent {
    /// There is no free slot, or no connection. The call may wait in the queue.
    NoSlot,
    Failed(Box<CallError>),
}

impl Engine {
    /// Sends a call if a slot is free, and returns its id. With a `reader`, takes the read role before the
    /// call is sent, so that the poller does not read the answer first.
    pub(crate) fn send(
        &self,
        request: &mut Request,
        reader: Option<&mut Option<ReaderRole>>,
    ) -> Result<u64, Unsent> {
        self.send_with(request, false, reader)
    }

    /// Sends a call if a slot is free.
    pub(crate) fn try_send(&self, request: &mut Request) -> Result<u64, CallError> {
        match self.send_with(request, false, None) {
            Ok(id) => Ok(id),
            Err(Unsent::Failed(error)) => Err(*error),
            Err(Unsent::NoSlot) => Err(self.with(|client| client.no_slot(&request.method))),
        }
    }

    /// Sends a call with the assigned slot, or with a free one.
    fn send_with(
        &self,
        request: &mut Request,
        has_slot: bool,
        mut reader: Option<&mut Option<ReaderRole>>,
    ) -> Result<u64, Unsent> {
        let left = request.start().or_else(|| request.left());
        let (link, limits) = match self.last_link() {
            Some(last) => last,
            None => self.find_link(request)?,
        };
        if let Some(reader) = &mut reader
            && !on_poller_thread()
        {
            **reader = link.lead();
        }
        request.check_time(left).map_err(Unsent::Failed)?;
        let refused = None;
        let mut sending = Sending { engine: self, link: &link, limits, left, request, has_slot, refused };
        let sent = match link.encode_call(&mut sending) {
            Err(SendError::Unencoded) => sending.send_encoded()?,
            sent => sent,
        };
        let refused = sending.refused;
        match sent {
            Ok(id) => Ok(id),
            Err(error) => {
                self.not_sent(&link, request, error, refused)?;
                self.send_with(request, has_slot, reader)
            }
        }
    }

    /// Returns the open connection, and notes it as that of this thread's last call.
    #[cold]
    fn find_link(&self, request: &Request) -> Result<(Arc<Link>, Limits), Unsent> {
        let checked = self.check_process(&request.method, Ran::No);
        checked.map_err(|error| Unsent::Failed(Box::new(error)))?;
        let (link, limits) = self.open_link().ok_or(Unsent::NoSlot)?;
        self.set_last_link(Some((&link, limits)));
        Ok((link, limits))
    }

    /// Returns without an error if another connection may be there.
    #[cold]
    fn not_sent(
        &self,
        link: &Arc<Link>,
        request: &Request,
        error: SendError,
        refused: Option<Refused>,
    ) -> Result<(), Unsent> {
        let method = request.method.clone();
        let error = match (refused, error) {
            (Some(Refused::Full), _) => return Err(Unsent::NoSlot),
            (Some(Refused::Failed(error)), _) => error,
            (Some(Refused::Stale), _) => {
                self.set_last_link(None);
                return Ok(());
            }
            (None, SendError::Forked) => Box::new(CallError::Forked { method, ran: Ran::No }),
            (None, SendError::TooManyCalls { max_open_calls }) => {
                Box::new(CallError::Full { method, max_inflight: max_open_calls as usize })
            }
            (None, _) => {
                // The link is over, but the engine has not been informed yet.
                let closed = link.closed().cloned().unwrap_or_else(|| Arc::new(Closed::Here));
                let mut wakers = Wakers::default();
                self.lose(link, &closed, &mut wakers);
                wakers.wake_all();
                self.set_last_link(None);
                return Ok(());
            }
        };
        Err(Unsent::Failed(error))
    }
}

/// A call while it is sent.
struct Sending<'a> {
    engine: &'a Engine,
    link: &'a Arc<Link>,
    limits: Limits,
    /// The rest of its time.
    left: Option<Duration>,
    request: &'a mut Request,
    has_slot: bool,
    refused: Option<Refused>,
}

impl NewCall for Sending<'_> {
    #[inline]
    fn draft(&self) -> Draft<'_> {
        self.request.draft(self.left, &self.limits)
    }

    #[inline]
    fn register(&mut self, id: u64, bytes: u64) -> bool {
        let mut state = self.engine.state.lock();
        let registered = state.register(self.link.key(), id, self.request, self.has_slot, bytes);
        drop(state);
        self.refused = registered.err();
        self.refused.is_none()
    }
}

impl Sending<'_> {
    /// Encodes the call before it is sent, because it is large or has a new shape.
    #[inline(never)]
    fn send_encoded(&mut self) -> Result<Result<u64, SendError>, Unsent> {
        let message = self.request.encode(self.left, &self.limits).map_err(Unsent::Failed)?;
        let bytes = message.payload_bytes();
        Ok(self.link.call(message, |id| self.register(id, bytes)))
    }
}

impl Locked {
    /// Adds a call that is sent on a connection.
    #[inline]
    fn register(
        &mut self,
        connection: usize,
        id: u64,
        request: &mut Request,
        has_slot: bool,
        bytes: u64,
    ) -> Result<(), Refused> {
        self.client.register(connection, id, request, has_slot)?;
        self.client.counters.sent(bytes);
        if let Some(deadline) = &request.deadline {
            self.alarm.ring_by(deadline.at);
        }
        Ok(())
    }
}

/// A call that was not sent and may wait for a slot. If it is dropped before it is sent, it leaves the queue.
pub(crate) struct Submission {
    engine: Arc<Engine>,
    request: Request,
    /// There was no free slot for it.
    waits: bool,
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
        Submission { engine, request, waits: false, ticket: None }
    }

    /// **Blocks** until the call is sent, for which there was no free slot.
    pub(crate) fn wait(mut self, reader: &mut Option<ReaderRole>) -> Result<Sent, CallError> {
        self.waits = true;
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
        loop {
            if self.waits {
                ready!(self.poll_slot(cx))?;
            }
            let sent = self.engine.send_with(&mut self.request, self.waits, None);
            if self.waits && sent.is_err() {
                self.engine.update(|client, wakers| client.give_back(wakers));
            }
            match sent {
                Ok(id) => {
                    let (engine, method) = (self.engine.clone(), self.request.method.clone());
                    return Poll::Ready(Ok(Sent { engine, method, id }));
                }
                Err(Unsent::Failed(error)) => return Poll::Ready(Err(*error)),
                Err(Unsent::NoSlot) => self.waits = true,
            }
        }
    }

    /// Waits for a slot.
    fn poll_slot(&mut self, cx: &Context<'_>) -> Poll<Result<(), CallError>> {
        let (acquired, dials) = {
            let mut state = self.engine.state.lock();
            let Locked { client, alarm, .. } = &mut *state;
            let Request { method, deadline, .. } = &self.request;
            let acquired = client.acquire(&mut self.ticket, method, *deadline, Instant::now, cx)?;
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
