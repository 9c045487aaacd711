//! A link and what other threads do with it: send, wait, close.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_wire::{CallAnswer, CallState, ErrorKind, Hello, Limits, Message, Resume};

use super::coalesce::{self, MAX_COALESCED_BYTES};
use super::cork::{self, AnswersTogether};
use super::handler::Handler;
use super::memory::Memory;
use super::port::{Flush, Port};
use super::status::Flag;
use super::writer::Writer;
use crate::config::Config;
use crate::memory::budget::Budget;
use crate::memory::deferred_drop::DropScope;
use crate::net::socket::Socket;
use crate::protocol::{
    self, Closed, Inbound, Quota, Role, SendError, SharedOutbound, UnsentBytes, Withdrawn,
};
use crate::reactor::poller::Poller;
use crate::reactor::source::Request;
use crate::reactor::spin::Spin;

/// A connection that threads share.
pub struct Link {
    peer_address: String,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) port: Port,
    pub(super) receiving: Mutex<Receiving>,
    pub(super) writer: Writer,
    pub(super) memory: Memory,
    /// Of threads that lead.
    pub(super) spin: Spin,
    /// Why the link is over, once it is.
    pub(super) closed: OnceLock<Arc<Closed>>,
}

/// The receiving half. A thread that has its lock reads.
pub(super) struct Receiving {
    pub(super) inbound: Inbound,
    /// How often a thread had begun to lead at the last timeout.
    pub(super) leads_seen: u32,
}

impl Flush for Link {
    fn flush(&self) {
        self.writer.flush(&self.port);
    }

    fn flush_coalesced(&self) {
        if self.port.status.has(Flag::COALESCED) {
            self.flush();
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peer = &self.peer_address;
        f.debug_struct("Link").field("key", &self.port.key).field("peer", peer).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new<H: Handler>(
        poller: &Poller,
        socket: Socket,
        role: Role,
        config: &Arc<Config>,
        budget: Option<Budget>,
        handler: Arc<H>,
    ) -> Arc<Link> {
        let key = poller.next_key();
        Arc::new_cyclic(|link: &Weak<Link>| {
            let credited = link.clone();
            // A thread that reads the link writes at the end of its turn, or earlier.
            let wake = move || {
                if !cork::is_in_turn(key)
                    && let Some(link) = credited.upgrade()
                {
                    link.flush();
                }
            };
            let (inbound, outbound) = protocol::halves(role, config, budget.clone(), Instant::now(), wake);
            Link {
                peer_address: socket.peer().to_owned(),
                handler,
                port: Port::new(key, poller, socket, link.clone()),
                memory: Memory::new(budget, &inbound),
                receiving: Mutex::new(Receiving { inbound, leads_seen: 0 }),
                writer: Writer::new(outbound),
                spin: Spin::new(config.spin),
                closed: OnceLock::new(),
            }
        })
    }

    /// Returns a number that no other link of this process has, or had.
    pub fn key(&self) -> usize {
        self.port.key
    }

    /// Returns the peer's address, for logs: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process.
    pub fn peer_address(&self) -> &str {
        &self.peer_address
    }

    /// Returns what the peer said of itself, or `None` before its hello came.
    pub fn peer(&self) -> Option<Hello> {
        self.writer.with(|outbound| outbound.peer().cloned())
    }

    /// Returns the limits of messages to the peer, or `None` before its hello came.
    pub fn peer_limits(&self) -> Option<Limits> {
        self.writer.with(|outbound| outbound.peer().map(|peer| peer.limits))
    }

    /// Returns why the link is over, or `None` while it is open.
    pub fn closed(&self) -> Option<&Arc<Closed>> {
        self.closed.get()
    }

    /// Returns the bytes that wait for the socket, or for the peer to grant them.
    pub fn queued_bytes(&self) -> u64 {
        self.writer.with(|outbound| outbound.ledger().queued_bytes())
    }

    /// Returns what is left to be sent of large results.
    pub fn unsent_bytes(&self) -> UnsentBytes {
        self.writer.with(|outbound| outbound.ledger().unsent_bytes())
    }

    /// Returns the bytes of arrays that were sent, or are about to be, since the link began.
    pub fn sent_payload_bytes(&self) -> u64 {
        self.writer.with(|outbound| outbound.ledger().staged_payload_bytes())
    }

    // ---- Calls ----

    /// Sends a call, as far as the socket takes it now; the event loop sends the rest. `register` learns the
    /// call's id before it can be answered. It runs under a lock and must not use the link.
    ///
    /// A small call that is made while others are open may be held back, so that more go with it: until this
    /// thread waits with [`block_on`](crate::block_on), a thread [expects answers](Link::expect_answers), or
    /// something else is sent on the link, and for a few milliseconds at most. A thread that waits in another
    /// way calls [`flush_coalesced`](crate::flush_coalesced) first.
    ///
    /// # Errors
    /// Fails if the link is not open, or if the peer allows no more calls at once.
    pub fn call(self: &Arc<Self>, message: Message, register: impl FnOnce(u64)) -> Result<u64, SendError> {
        self.check_fork()?;
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        let id = sending.outbound.send_call(message, register)?;
        let may_wait = sending.outbound.open_calls() > 1
            && sending.outbound.ledger().queued_bytes() <= MAX_COALESCED_BYTES;
        // While somebody writes, or the socket is full, it goes with what goes next as it is: there is
        // nothing to save.
        let (is_held, other) = if may_wait && sending.is_idle() {
            coalesce::hold(&self.port, &mut sending, || Arc::downgrade(self) as _)
        } else {
            (false, None)
        };
        if is_held {
            drop(sending);
        } else {
            coalesce::leave_unread(&self.port, &mut sending, || self.handler.is_waited_for());
            self.writer.write(&self.port, sending);
        }
        if let Some(other) = other {
            other.flush();
        }
        Ok(id)
    }

    /// Before any lock: its holder may not exist in a process that was forked.
    fn check_fork(&self) -> Result<(), SendError> {
        if self.port.is_current() { Ok(()) } else { Err(SendError::Forked) }
    }

    /// Answers a call with a result or an error. Never blocks: the memory of a large result is charged to the
    /// budget, whether or not there is room, until the last of it is on its way. Use
    /// [`await_drain`](Link::await_drain) to keep a connection that does not fetch its results from making
    /// more of them.
    ///
    /// # Errors
    /// Fails if the link is over, or if the call was answered or withdrawn. Nobody waits for the answer then.
    pub fn answer(self: &Arc<Self>, id: u64, message: Message) -> Result<(), SendError> {
        self.check_fork()?;
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        self.memory.queue_answer(&self.port, &mut sending.outbound, id, message)?;
        let may_wait = sending.outbound.ledger().queued_bytes() <= MAX_COALESCED_BYTES;
        if !(may_wait && cork::holds_answer(self.port.key)) {
            self.writer.write(&self.port, sending);
        }
        Ok(())
    }

    /// Withdraws a call as far as that is still possible.
    pub fn withdraw(self: &Arc<Self>, id: u64) -> Withdrawn {
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        let withdrawn = sending.outbound.withdraw(id);
        self.writer.write(&self.port, sending);
        withdrawn
    }

    /// Has the small answers that this thread gives on this link go together, with fewer system calls, until
    /// the returned value is dropped. Some leave before that, so that the peer can begin with them. For a
    /// thread that has many answers ready: it does nothing else meanwhile that takes long.
    pub fn answers_together(self: &Arc<Self>) -> AnswersTogether<'_> {
        AnswersTogether::new(self.port.key, &**self)
    }

    /// Sends the answers that wait for others of this turn of reading. A handler calls it before it does what
    /// takes long.
    pub fn release_answers(self: &Arc<Self>) {
        cork::release_answers(self.port.key, &**self);
    }

    /// Has [`Handler::drained`] called, once, when no more of large results is left to be sent than `until`
    /// allows, which may be at once. If several ask before that, the most that any of them allows counts.
    pub fn await_drain(self: &Arc<Self>, until: Quota) {
        let mut sending = self.writer.lock();
        sending.outbound.ledger_mut().await_drain(until);
        if sending.outbound.ledger_mut().poll_drained() {
            self.port.event_loop.request(Request::Drained);
        }
    }

    // ---- Waiting for answers ----

    /// A thread waits for an answer: sends the calls that are held back, since that call may be among them,
    /// and has the event loop read the link at once, unless a thread does.
    pub fn expect_answers(self: &Arc<Self>) {
        self.flush_coalesced();
        if self.port.status.is_unread() {
            self.writer.lock().watch_if_unread(&self.port);
        }
    }

    /// Grants message `id` its memory although the budget has no room, since a thread waits for it. Changes
    /// nothing for a message that has not begun, was granted, or is gone. One that begins later asks
    /// [`Handler::is_awaited`].
    ///
    /// Never call it from a handler, which would wait for itself: see [`want_later`](Link::want_later).
    pub fn want(self: &Arc<Self>, id: u64) {
        let mut receiving = self.receiving.lock();
        let Some(charge) = self.memory.charge_anyway(&self.port, &receiving.inbound, id) else { return };
        self.memory.grant(&self.port, &self.writer, &mut receiving.inbound, id, charge);
        drop(receiving);
        self.flush();
    }

    /// As [`want`](Link::want), but on the event loop, soon: for handlers, which are called with the
    /// receiving half locked.
    pub fn want_later(self: &Arc<Self>, id: u64) {
        self.port.event_loop.request(Request::Want { id });
    }

    // ---- The end ----

    /// Says goodbye once everything queued has gone, and closes. When `within` is over, what has not gone is
    /// dropped, since it may wait for a grant for as long as the peer likes, and the peer has another second
    /// to take the goodbye.
    pub fn close(self: &Arc<Self>, kind: Option<ErrorKind>, reason: &str, within: Duration) {
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        sending.outbound.send_goodbye(kind, reason);
        sending.linger.close_within(within, &self.port);
        self.writer.write(&self.port, sending);
    }

    /// Ends the link now, without a goodbye.
    pub fn abort(self: &Arc<Self>) {
        self.port.event_loop.request(Request::Abort);
    }

    // ---- Calls that survive their link ----
    //
    // A link is lost -> `call_states` says what the server can have -> on the next link `resume` lists them
    // -> the server answers with `answer_resume`, and `call_again` sends what it does not have. In between,
    // both sides `acknowledge` what they have whole. Whatever is kept meanwhile, the layer above keeps.

    /// Returns true if both sides can resume, and the client has a session. False before the peer's hello.
    pub fn resumes(&self) -> bool {
        self.writer.with(|outbound| outbound.resumes())
    }

    /// Asks the server what became of a client's calls of earlier links. [`Handler::resumed`] gets the
    /// answer. Calls are refused with [`SendError::NotReady`] until then.
    ///
    /// # Errors
    /// Fails if one side cannot resume, or if calls were made on this link already.
    pub fn resume(self: &Arc<Self>, resume: &Resume) -> Result<(), SendError> {
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        sending.outbound.send_resume(resume)?;
        self.writer.write(&self.port, sending);
        Ok(())
    }

    /// Answers a client's resume, the same ids in the same order, and sends the answers of calls that are
    /// done. Those, and the ones that run, can be answered on this link from now on.
    ///
    /// # Errors
    /// Fails if the link is over, or if the ids are not those of the resume.
    pub fn answer_resume(
        self: &Arc<Self>,
        calls: Vec<(u64, CallAnswer)>,
        done: Vec<(u64, Message)>,
    ) -> Result<(), SendError> {
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        let outbound = &mut sending.outbound;
        outbound.send_resume_answer(calls)?;
        // All before any is written, so that small ones go first.
        let mut done = done.into_iter();
        let queued =
            done.try_for_each(|(id, message)| self.memory.queue_answer(&self.port, outbound, id, message));
        self.writer.write(&self.port, sending);
        queued
    }

    /// Sends a client's call again under its old id, which the server said is missing: in the order of the
    /// ids, and before any new call.
    ///
    /// # Errors
    /// Fails if the link is over.
    pub fn call_again(self: &Arc<Self>, id: u64, message: Message) -> Result<(), SendError> {
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        sending.outbound.send_call_again(id, message)?;
        sending.watch_if_unread(&self.port);
        self.writer.write(&self.port, sending);
        Ok(())
    }

    /// Numbers a client's calls from above `id`, the last one of its earlier links.
    pub fn number_after(&self, id: u64) {
        self.writer.with(|outbound| outbound.number_after(id));
    }

    /// Returns what the server can know of each of a client's calls whose answer has not come whole. Does not
    /// change any more once [`Handler::closed`] is called.
    pub fn call_states(&self) -> Vec<(u64, CallState)> {
        self.writer.with(|outbound| outbound.call_states())
    }

    /// Tells the peer that a call (on a server) or an answer (on a client) has come whole. For handlers,
    /// while they are told of what arrived: it goes out when they return.
    pub fn acknowledge(&self, id: u64) {
        self.writer.with(|outbound| outbound.send_ack(id));
    }
}
