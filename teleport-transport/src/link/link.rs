//! A link and the operations of other threads on it: send, wait, close.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_wire::{CallAnswer, CallState, Draft, ErrorKind, Hello, Limits, Message, Resume};

use super::coalesce::{self, MAX_COALESCED_BYTES};
use super::cork::{self, AnswersTogether};
use super::handler::Handler;
use super::memory::Memory;
use super::port::{Flush, Port};
use super::status::Flag;
use super::writer::{Sending, Writer};
use crate::config::Config;
use crate::memory::budget::Budget;
use crate::memory::deferred_drop::DropScope;
use crate::net::socket::Socket;
use crate::protocol::{
    self, Closed, Inbound, NewCall, Outbound, Quota, Role, SendError, SharedOutbound, UnsentBytes, Withdrawn,
};
use crate::reactor::mailbox::on_poller_thread;
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
    /// Used by threads that lead.
    pub(super) spin: Spin,
    /// The reason for the end of the link, once it has ended.
    pub(super) closed: OnceLock<Arc<Closed>>,
}

/// The receiving half. A thread that has its lock reads.
pub(super) struct Receiving {
    /// `None` once the link is over.
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) inbound: Inbound,
    /// The number of times that a thread had begun to lead, as of the last timeout.
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
        let (key, socket) = (poller.next_key(), Arc::new(socket));
        Arc::new_cyclic(move |link: &Weak<Link>| {
            let credited = link.clone();
            // If this thread is reading the link, the turn writes the credit.
            let wake = move || {
                if !cork::write_at_end(key)
                    && let Some(link) = credited.upgrade()
                {
                    link.flush();
                }
            };
            let (inbound, outbound) = protocol::halves(role, config, budget.clone(), Instant::now(), wake);
            Link {
                peer_address: socket.peer().to_owned(),
                handler,
                port: Port::new(key, poller, &socket, link.clone()),
                memory: Memory::new(budget, &inbound),
                writer: Writer::new(outbound, socket.clone()),
                receiving: Mutex::new(Receiving { socket: Some(socket), inbound, leads_seen: 0 }),
                spin: Spin::new(config.spin),
                closed: OnceLock::new(),
            }
        })
    }

    /// Returns a number that no other link of this process has or had.
    pub fn key(&self) -> usize {
        self.port.key
    }

    /// Returns the peer's address, for logs: `tcp://127.0.0.1:40000`, or `ipc:///path` with its process.
    pub fn peer_address(&self) -> &str {
        &self.peer_address
    }

    /// Returns the peer's hello, or `None` before it arrived.
    pub fn peer(&self) -> Option<Hello> {
        self.writer.with(|outbound| outbound.peer().cloned())
    }

    /// Returns the limits of messages to the peer, or `None` before its hello arrived.
    pub fn peer_limits(&self) -> Option<Limits> {
        self.writer.with(|outbound| outbound.peer().map(|peer| peer.limits))
    }

    /// Returns the reason for the end of the link, or `None` while it is open.
    pub fn closed(&self) -> Option<&Arc<Closed>> {
        self.closed.get()
    }

    /// Returns the bytes that wait for the socket or for a grant.
    pub fn queued_bytes(&self) -> u64 {
        self.writer.with(|outbound| outbound.ledger().queued_bytes())
    }

    /// Returns the unsent bytes of large results. Takes no lock while there have been none.
    pub fn unsent_bytes(&self) -> UnsentBytes {
        if !self.port.status.has(Flag::CHARGED) {
            return UnsentBytes::default();
        }
        let sending = self.writer.lock();
        let ledger = sending.outbound.ledger();
        if ledger.result_bytes() == 0 && !ledger.is_drain_awaited() {
            self.port.status.clear(Flag::CHARGED);
        }
        ledger.unsent_bytes()
    }

    /// Returns the bytes of arrays that were sent, or are about to be, since the link began.
    pub fn sent_payload_bytes(&self) -> u64 {
        self.writer.with(|outbound| outbound.ledger().staged_payload_bytes())
    }

    // ---- Calls ----

    /// Sends as much of a call as the socket takes now; the event loop sends the rest. `register` gets the
    /// call's id before the call can be answered, and may refuse the call by returning false. It runs under a
    /// lock and must not use the link.
    ///
    /// A small call that is made while others are open may be held back for a few milliseconds, so that later
    /// calls share its write. It is sent when this thread waits with [`block_on`](crate::block_on), when a
    /// thread [expects answers](Link::expect_answers), or when something else is sent on the link. A thread
    /// that waits in another way must call [`flush_coalesced`](crate::flush_coalesced) first.
    ///
    /// # Errors
    /// Fails if the link is not open, if the peer's limit on open calls is reached, or if `register` refuses
    /// the call.
    pub fn call(
        self: &Arc<Self>,
        message: Message,
        register: impl FnOnce(u64) -> bool,
    ) -> Result<u64, SendError> {
        self.queue_call(|outbound| outbound.send_call(message, register))
    }

    /// Does the same for a small call, which is encoded where it is queued: that saves a copy.
    ///
    /// # Errors
    /// Fails as [`call`](Link::call) does, and with [`SendError::Unencoded`] if the call must be encoded
    /// first.
    #[inline]
    pub fn encode_call(self: &Arc<Self>, call: &mut impl NewCall) -> Result<u64, SendError> {
        self.queue_call(|outbound| outbound.encode_call(call))
    }

    #[inline]
    fn queue_call(
        self: &Arc<Self>,
        queue: impl FnOnce(&mut Outbound) -> Result<u64, SendError>,
    ) -> Result<u64, SendError> {
        self.check_fork()?;
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        let id = queue(&mut sending.outbound)?;
        let may_wait = sending.outbound.open_calls() > 1
            && sending.outbound.ledger().queued_bytes() <= MAX_COALESCED_BYTES;
        // While another thread writes or the socket is full, the call shares the next write anyway.
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
            coalesce::flush_other(&other);
        }
        Ok(id)
    }

    /// Checks for a fork. Call this before taking a lock: its holder may not exist in a forked process.
    fn check_fork(&self) -> Result<(), SendError> {
        if self.port.is_current() { Ok(()) } else { Err(SendError::Forked) }
    }

    /// Answers a call with a result or an error. Never blocks: the memory of a large result is charged to the
    /// budget even if there is no room, until all of it is staged. [`await_drain`](Link::await_drain) lets
    /// the layer above start no more calls of a peer that does not fetch its results.
    ///
    /// # Errors
    /// Fails if the link is over, or if the call was answered or withdrawn already.
    pub fn answer(self: &Arc<Self>, id: u64, message: Message) -> Result<(), SendError> {
        self.queue_answer(|outbound| self.memory.queue_answer(&self.port, outbound, id, message))
    }

    /// Does the same for a small result, which is encoded where it is queued: that saves a copy.
    ///
    /// # Errors
    /// Fails as [`answer`](Link::answer) does, and with [`SendError::Unencoded`] if the result must be
    /// encoded first.
    #[inline]
    pub fn encode_answer(self: &Arc<Self>, id: u64, draft: &Draft<'_>) -> Result<(), SendError> {
        self.queue_answer(|outbound| outbound.encode_answer(id, draft))
    }

    #[inline]
    fn queue_answer(
        self: &Arc<Self>,
        queue: impl FnOnce(&mut Outbound) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        self.check_fork()?;
        let _scope = DropScope::enter();
        let mut sending = self.writer.lock();
        queue(&mut sending.outbound)?;
        let may_wait = sending.outbound.ledger().queued_bytes() <= MAX_COALESCED_BYTES;
        if !(may_wait && cork::holds_answer(self.port.key)) {
            self.writer.write(&self.port, sending);
        }
        Ok(())
    }

    /// Withdraws a call as far as that is still possible.
    pub fn withdraw(self: &Arc<Self>, id: u64) -> Withdrawn {
        self.writer.send(&self.port, |sending| sending.outbound.withdraw(id))
    }

    /// Combines the small answers that this thread gives on this link into fewer writes, until the returned
    /// value is dropped. Some are sent earlier, so that the peer can begin with them. For a thread that has
    /// many answers ready and does nothing slow meanwhile.
    pub fn answers_together(self: &Arc<Self>) -> AnswersTogether<'_> {
        AnswersTogether::new(self.port.key, &**self)
    }

    /// Sends the answers that are held back in this turn of reading. A handler calls this before slow work.
    pub fn release_answers(self: &Arc<Self>) {
        cork::release_answers(self.port.key, &**self);
    }

    /// Requests one call of [`Handler::drained`] when the unsent bytes of large results are within `until`,
    /// which may be at once. If several requests are pending, the largest quota counts.
    pub fn await_drain(self: &Arc<Self>, until: Quota) {
        let mut sending = self.writer.lock();
        sending.outbound.ledger_mut().await_drain(until);
        self.port.status.set(Flag::CHARGED);
        if sending.outbound.ledger_mut().poll_drained() {
            self.port.event_loop.request(Request::Drained);
        }
    }

    // ---- Waiting for answers ----

    /// Prepares for a thread's wait for an answer: sends the calls that are held back, and lets the event
    /// loop read the link at once unless a thread reads it.
    pub fn expect_answers(self: &Arc<Self>) {
        self.flush_coalesced();
        if self.port.status.is_unread() {
            self.writer.lock().watch_if_unread(&self.port);
        }
    }

    /// Grants message `id` its memory even if the budget has no room, because a thread waits for the message.
    /// Does nothing if the message has not begun, was granted, or is gone. For a message that begins later,
    /// the link asks [`Handler::is_awaited`].
    ///
    /// Must not be called from a handler, which would deadlock: use [`want_later`](Link::want_later) there.
    pub fn want(self: &Arc<Self>, id: u64) {
        let mut receiving = self.receiving.lock();
        let Some(charge) = self.memory.charge_anyway(&self.port, &receiving.inbound, id) else { return };
        self.memory.grant(&self.port, &self.writer, &mut receiving.inbound, id, charge);
        drop(receiving);
        self.flush();
    }

    /// Does the same as [`want`](Link::want), but soon and on the event loop. For handlers, which run with
    /// the receiving half locked.
    pub fn want_later(self: &Arc<Self>, id: u64) {
        self.port.event_loop.request(Request::Want { id });
    }

    // ---- The end ----

    /// Closes the link: sends everything queued, then a goodbye. If that takes longer than `within`, the rest
    /// is dropped, since it may wait for a grant forever. The peer then has another second to receive the
    /// goodbye.
    pub fn close(self: &Arc<Self>, kind: Option<ErrorKind>, reason: &str, within: Duration) {
        self.writer.send(&self.port, |sending| {
            sending.outbound.send_goodbye(kind, reason);
            sending.linger.close_within(within, &self.port);
        });
    }

    /// Ends the link now, without a goodbye.
    pub fn abort(self: &Arc<Self>) {
        self.port.event_loop.request(Request::Abort);
    }

    // ---- Calls that survive their link ----
    //
    // When a link is lost, `call_states` returns what the server may have received of each call. On the next
    // link, `resume` lists those calls. The server answers with `answer_resume`, and `call_again` sends the
    // calls that it does not have. Meanwhile both sides `acknowledge` what they have received completely. The
    // layer above keeps all messages that may be needed again.

    /// Returns true if both sides can resume, and the client has a session. False before the peer's hello.
    pub fn resumes(&self) -> bool {
        self.writer.with(|outbound| outbound.resumes())
    }

    /// Asks the server for the state of a client's calls of earlier links. The answer goes to
    /// [`Handler::resumed`]. Until then, calls are refused with [`SendError::NotReady`].
    ///
    /// # Errors
    /// Fails if one side cannot resume, or if a call was made on this link already.
    pub fn resume(self: &Arc<Self>, resume: &Resume) -> Result<(), SendError> {
        self.writer.send(&self.port, |sending| sending.outbound.send_resume(resume))
    }

    /// Answers a client's resume, with the same ids in the same order, and sends the answers of calls that
    /// are done. From now on, these calls and the running ones can be answered on this link.
    ///
    /// # Errors
    /// Fails if the link is over, or if the ids differ from those of the resume.
    pub fn answer_resume(
        self: &Arc<Self>,
        calls: Vec<(u64, CallAnswer)>,
        done: Vec<(u64, Message)>,
    ) -> Result<(), SendError> {
        // All are queued before any is written, so that small ones are sent first.
        self.writer.send(&self.port, |Sending { outbound, .. }| {
            outbound.send_resume_answer(calls)?;
            let mut done = done.into_iter();
            done.try_for_each(|(id, message)| self.memory.queue_answer(&self.port, outbound, id, message))
        })
    }

    /// Sends again a client's call, with its old id, that the server reported as missing. Must be called in
    /// the order of the ids and before any new call.
    ///
    /// # Errors
    /// Fails if the link is over.
    pub fn call_again(self: &Arc<Self>, id: u64, message: Message) -> Result<(), SendError> {
        self.writer.send(&self.port, |sending| {
            sending.outbound.send_call_again(id, message)?;
            sending.watch_if_unread(&self.port);
            Ok(())
        })
    }

    /// Continues the numbers of a client's calls after `id`, the last one of its earlier links.
    pub fn number_after(&self, id: u64) {
        self.writer.with(|outbound| outbound.number_after(id));
    }

    /// Returns what the server may have received of each of a client's calls whose answer is incomplete. The
    /// result no longer changes once [`Handler::closed`] is called.
    pub fn call_states(&self) -> Vec<(u64, CallState)> {
        self.writer.with(|outbound| outbound.call_states())
    }

    /// Informs the peer that calls (on a server) or answers (on a client) were received completely. For
    /// handler methods: the event loop sends the acknowledgement after they return. A thread that
    /// [leads](Link::lead) sends it with its next call or before it waits again, and the event loop does so
    /// some 20 ms after the thread has left.
    pub fn acknowledge(&self, ids: &[u64]) {
        self.writer.with(|outbound| ids.iter().for_each(|id| outbound.send_ack(*id)));
        if on_poller_thread() {
            cork::write_at_end(self.port.key);
        } else {
            self.port.status.set(Flag::COALESCED);
        }
    }
}

impl Receiving {
    /// Gives the socket up and frees the memory of incomplete messages, because the link is over. Running
    /// calls may hold the link for long.
    pub(super) fn end(&mut self) {
        self.socket = None;
        self.inbound.discard();
    }
}
