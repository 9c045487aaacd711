//! Sending a call: a slot, then the link.
//!
//! Blocking and awaiting use the same poll function, so both wait in the same queue.

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use teleport_transport::protocol::{Closed, SendError};
use teleport_transport::wire::{Limits, Ran};
use teleport_transport::{Link, ReaderRole, Wakers, block_on_or_unwind, on_poller_thread};

use crate::calls::pending::{Deadline, PendingCall, Request};
use crate::calls::state::Acquired;
use crate::connect::status::OpenConnection;
use crate::engine::shared::{Engine, Locked};
use crate::error::call::CallError;

/// A slot, and the connection to use it on.
struct Slot {
    link: Arc<Link>,
    limits: Limits,
}

impl Slot {
    /// Returns `None` if the link is gone.
    fn new(connection: &OpenConnection<Weak<Link>>) -> Option<Slot> {
        Some(Slot { link: connection.link.upgrade()?, limits: connection.limits })
    }
}

/// The reason why a call with a slot was not sent.
enum Unsent {
    /// The connection ended meanwhile, and nothing of the call was sent. It may wait for the next connection.
    Again,
    Failed(CallError),
}

/// A call that waits for a slot. If it is dropped before the call is sent, it leaves the queue.
pub(crate) struct Submission {
    pub(crate) engine: Arc<Engine>,
    request: Request,
    /// Set once the time of the call has started.
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

    /// **Blocks** until the call is sent. If `reads`, takes the read role before that, so that the poller
    /// does not read the answer first.
    pub(crate) fn send(
        &mut self,
        reads: bool,
        reader: &mut Option<ReaderRole>,
    ) -> Result<Arc<PendingCall>, CallError> {
        let first = self.poll_with(&Context::from_waker(Waker::noop()), |link| {
            if reads && !on_poller_thread() {
                *reader = link.lead();
            }
        });
        if let Poll::Ready(sent) = first {
            return sent;
        }
        // Answers free slots, so a thread that waits for a slot reads.
        *reader = self.engine.lead();
        // A poller's thread may send, but must not wait.
        let until = on_poller_thread().then(Instant::now);
        block_on_or_unwind(reader, until, |cx| self.poll(cx))
            .unwrap_or_else(|| Err(CallError::OnPoller { method: self.request.method.clone(), ran: Ran::No }))
    }

    /// Sends the call if a slot is free.
    pub(crate) fn try_send(&mut self) -> Result<Arc<PendingCall>, CallError> {
        match self.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Err(self.engine.state.lock().client.no_slot(&self.request.method)),
        }
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Arc<PendingCall>, CallError>> {
        self.poll_with(cx, |_| ())
    }

    /// Calls `before` with the connection before the call is sent.
    fn poll_with(
        &mut self,
        cx: &Context<'_>,
        mut before: impl FnMut(&Arc<Link>),
    ) -> Poll<Result<Arc<PendingCall>, CallError>> {
        self.engine.check_process(&self.request.method, Ran::No)?;
        loop {
            let slot = ready!(self.poll_slot(cx))?;
            if let Some(slot) = &slot {
                before(&slot.link);
            }
            match self.send_with(slot) {
                Ok(call) => return Poll::Ready(Ok(call)),
                Err(Unsent::Failed(error)) => return Poll::Ready(Err(error)),
                Err(Unsent::Again) => {}
            }
        }
    }

    /// Returns a slot, or `None` for a slot whose link is gone.
    fn poll_slot(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Slot>, CallError>> {
        let (deadline, waited) = (self.deadline(), self.ticket.is_some());
        let (mut slot, mut dials) = (None, false);
        let acquired = {
            let mut state = self.engine.state.lock();
            if !waited {
                self.check_earlier_failure(&mut state)?;
            }
            let Locked { client, alarm, .. } = &mut *state;
            let acquired = client.acquire(&mut self.ticket, &self.request.method, deadline, Instant::now, cx);
            match acquired {
                Ok(Acquired::Slot) => slot = client.connection.open().and_then(Slot::new),
                Ok(Acquired::Place(expiry)) => {
                    expiry.into_iter().for_each(|at| alarm.ring_by(at));
                    dials = client.needs_dial();
                }
                Ok(Acquired::Pending) | Err(_) => {}
            }
            acquired
        };
        match (waited, self.ticket.is_some()) {
            // Answers free slots, and a call in the queue waits for one.
            (false, true) => self.engine.waiters.join(),
            (true, false) => self.engine.waiters.leave(),
            _ => {}
        }
        if dials {
            self.engine.dial();
        }
        if acquired? == Acquired::Slot {
            return Poll::Ready(Ok(slot));
        }
        self.engine.expect_answers();
        Poll::Pending
    }

    /// Returns the deadline of the call. Its time starts at the first call of this.
    fn deadline(&mut self) -> Option<Deadline> {
        let time = self.request.time;
        *self.deadline.get_or_insert_with(|| time.and_then(|time| Deadline::after(time, Instant::now())))
    }

    /// Returns the failure of an earlier call, if this call must report it.
    fn check_earlier_failure(&self, state: &mut Locked) -> Result<(), CallError> {
        let reports = self.engine.settings.errors_from_next_call;
        match if reports { state.client.failures.take() } else { None } {
            Some(error) => Err(CallError::Earlier { source: Box::new(error) }),
            None => Ok(()),
        }
    }

    /// Sends the call with its assigned slot. Returns the slot if that fails.
    fn send_with(&mut self, slot: Option<Slot>) -> Result<Arc<PendingCall>, Unsent> {
        let sent = slot.map_or(Err(Unsent::Again), |slot| self.send_on(&slot.link, &slot.limits));
        if sent.is_err() {
            self.engine.update(|client, wakers| client.give_back(wakers));
        }
        sent
    }

    fn send_on(&mut self, link: &Arc<Link>, limits: &Limits) -> Result<Arc<PendingCall>, Unsent> {
        let deadline = self.deadline();
        let call = PendingCall::new(&self.request, deadline);
        let message = call.encode(&self.request.tree, limits).map_err(Unsent::Failed)?;
        let (engine, method, bytes) = (&self.engine, &self.request.method, message.payload_bytes());
        let call = Arc::new(call);
        let sent = link.call(message, |id| {
            call.set_id(id);
            let mut state = engine.state.lock();
            let is_current = state.sent(link.key(), id, &call);
            if is_current {
                state.client.counters.sent(bytes);
            }
            is_current
        });
        match sent {
            Ok(_) => Ok(call),
            Err(SendError::TooManyCalls { max_open_calls }) => {
                let (method, max_inflight) = (method.clone(), max_open_calls as usize);
                Err(Unsent::Failed(CallError::Full { method, max_inflight }))
            }
            // The connection is over.
            Err(SendError::Refused) => Err(Unsent::Again),
            Err(_) => {
                // The link is over, but the engine has not been informed yet.
                let closed = link.closed().cloned().unwrap_or_else(|| Arc::new(Closed::Here));
                let mut wakers = Wakers::default();
                engine.lose(link, &closed, &mut wakers);
                wakers.wake_all();
                Err(Unsent::Again)
            }
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        self.engine.waiters.leave();
        if self.engine.process.is_current() {
            self.engine.update(|client, wakers| client.leave(ticket, wakers));
        }
    }
}
