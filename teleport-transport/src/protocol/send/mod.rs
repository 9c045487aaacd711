//! The sending half of a connection: the order of what is sent, and the goodbye that ends it.
//!
//! Flow: `send_*` (from any thread, a short lock) -> `poll_write` (by the thread that holds the write token)
//! -> [`WriteBuffer`] -> the socket. Control frames go first; messages follow by their schedule.
//!
//! Its methods are of four kinds, in this order: received things (`on_*`), queued things (`send_*`), timers
//! (`handle_timeout`, in the receiving half), and answers (`poll_*`).
//!
//! Never touches a socket, reads a clock or copies a large array, and drops no buffer while a lock is held
//! (see [`deferred_drop`](crate::memory::deferred_drop)). Bounds: calls by the peer's `max_open_calls`,
//! answers by this side's, control frames by both. The bytes of answers are not bounded here: the layer above
//! starts no more calls while too many are unsent (see [`Ledger::await_drain`]).

mod control;
mod outgoing;
pub(super) mod payload;
pub(super) mod queue;
mod schedule;
#[cfg(test)]
mod tests;
pub(super) mod write_buffer;

use std::cell::{RefCell, RefMut};
use std::ops::DerefMut;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use teleport_wire::{
    CallAnswer, CallState, Draft, ErrorKind, Goodbye, Hello, Kind, Message, Preface, RemoteError, Resume,
    ResumeAnswer, encode_frame,
};

use self::payload::drop_message;
use self::queue::Queue;
use self::write_buffer::WriteBuffer;
use super::calls::Progress;
use super::error::{ProtocolError, SendError};
use super::ledger::{Ledger, ReturnedCredit};
use super::resume::Resumption;
use crate::config::Config;
use crate::memory::budget::Budget;
use crate::role::Role;

/// A call of the layer above, which is encoded where it is queued.
pub trait NewCall {
    /// Returns the call to be encoded.
    fn draft(&self) -> Draft<'_>;

    /// Gets the id before the call can be answered, and the size of the payload. May refuse the call by
    /// returning false.
    fn register(&mut self, id: u64, payload_bytes: u64) -> bool;
}

/// The outcome of withdrawing a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nothing of it was sent.
    NeverSent,
    /// A part of it was sent. The server was told to forget it and never runs it.
    Aborted,
    /// It was sent completely. The server was asked to drop or stop it, and still answers.
    Requested,
    /// No such call is open.
    NotOpen,
}

#[derive(Debug)]
enum Farewell {
    None,
    /// Sent after everything that is queued.
    Queued(Goodbye),
    Staged,
}

/// The sending half of a connection, without I/O.
#[derive(Debug)]
pub struct Outbound {
    /// Preface and hello, until they are staged.
    introduction: Vec<u8>,
    /// `None` before its hello.
    peer: Option<Hello>,
    pub(super) queue: Queue,
    pub(super) resumption: Resumption,
    farewell: Farewell,
}

impl Outbound {
    pub(super) fn new(
        role: Role,
        config: &Config,
        budget: Option<Budget>,
        credit: Arc<ReturnedCredit>,
    ) -> Outbound {
        let mut introduction = Preface::BYTES.to_vec();
        introduction.extend(encode_frame(Kind::Hello, 0, &config.hello(role).encode()));
        Outbound {
            introduction,
            peer: None,
            queue: Queue::new(role, config, Ledger::new(config.eager_credit_bytes, budget, credit)),
            resumption: Resumption::new(role, config),
            farewell: Farewell::None,
        }
    }

    /// Returns the peer's hello, or `None` before it arrived.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Returns the counts of the connection's memory.
    pub fn ledger(&self) -> &Ledger {
        &self.queue.ledger
    }

    /// Returns the counts of the connection's memory, to wait for a change.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.queue.ledger
    }

    /// Returns the number of calls without an answer, including a client's calls whose result is incomplete.
    pub fn open_calls(&self) -> usize {
        self.queue.calls.open()
    }

    /// Returns what the server may have received of each of a client's calls whose answer is incomplete.
    pub fn call_states(&self) -> Vec<(u64, CallState)> {
        self.queue.calls.states()
    }

    /// Returns true if both sides can resume, and the client has a session.
    pub fn resumes(&self) -> bool {
        self.resumption.is_agreed()
    }

    /// Returns true if [`poll_write`](Outbound::poll_write) may stage something.
    #[inline]
    pub fn has_work(&self) -> bool {
        !self.introduction.is_empty()
            || (self.peer.is_some() && !self.is_finished() && self.queue.has_frames())
            || matches!(self.farewell, Farewell::Queued(_))
            || self.queue.ledger.is_drained()
            || self.queue.ledger.is_credit_due()
    }

    /// Returns the bytes after which a turn of writing should end: one chunk.
    pub fn turn_bytes(&self) -> usize {
        self.queue.chunk_bytes() as usize
    }

    /// Returns true if the goodbye was staged. Nothing follows it.
    pub fn is_finished(&self) -> bool {
        matches!(self.farewell, Farewell::Staged)
    }

    /// Returns the bytes that are charged to the budget for results and for the structure of calls.
    #[cfg(test)]
    pub(super) fn charged_bytes(&self) -> u64 {
        self.queue.calls.charged_bytes() + self.queue.ledger.result_bytes()
    }

    // ---- What is received ----

    pub(super) fn on_hello(&mut self, hello: Hello) {
        self.queue.ledger.on_hello(hello.eager_credit_bytes);
        self.queue.checksum |= hello.features & Hello::CHECKSUM != 0;
        self.resumption.on_hello(&hello);
        self.peer = Some(hello);
    }

    /// The answer to a resume arrived (on a client). The calls that the server has will be answered on this
    /// connection.
    pub(super) fn on_resume_answer(&mut self, calls: &[(u64, CallAnswer)]) -> Result<(), ProtocolError> {
        if !self.resumption.answer(calls) {
            return Err(ProtocolError::OutOfTurn { kind: Kind::ResumeAnswer });
        }
        for (id, _) in calls.iter().filter(|(_, answer)| is_held(*answer)) {
            self.queue.calls.adopt(*id, Progress::Sent);
        }
        Ok(())
    }

    // ---- What is queued ----

    /// Encodes a small call where it is queued, and returns its id.
    ///
    /// # Errors
    /// Fails as [`send_call`](Outbound::send_call) does, and with [`SendError::Unencoded`] if the call must
    /// be encoded first.
    #[inline]
    pub fn encode_call(&mut self, call: &mut impl NewCall) -> Result<u64, SendError> {
        self.may_call()?;
        let id = self.queue.calls.next_id();
        self.queue.encode_call(id, call)?;
        Ok(id)
    }

    /// Queues a call and returns its id. `register` gets the id before the call can be answered, and may
    /// refuse the call by returning false.
    ///
    /// # Errors
    /// Fails before the peer's hello, after a goodbye, if the peer's limit on open calls is reached, and if
    /// `register` refuses the call.
    pub fn send_call(
        &mut self,
        message: Message,
        register: impl FnOnce(u64) -> bool,
    ) -> Result<u64, SendError> {
        let id = self.queue.calls.next_id();
        let may_call =
            self.may_call().and_then(|()| if register(id) { Ok(()) } else { Err(SendError::Refused) });
        if let Err(error) = may_call {
            drop_message(message);
            return Err(error);
        }
        self.queue.push_call(id, message);
        Ok(id)
    }

    fn may_call(&mut self) -> Result<(), SendError> {
        let max_open_calls = self.sendable()?.max_open_calls;
        if self.queue.calls.open() >= max_open_calls as usize {
            return Err(SendError::TooManyCalls { max_open_calls });
        }
        if self.resumption.begin_call() { Ok(()) } else { Err(SendError::NotReady) }
    }

    fn sendable(&self) -> Result<&Hello, SendError> {
        if !matches!(self.farewell, Farewell::None) {
            return Err(SendError::Closed);
        }
        self.peer.as_ref().ok_or(SendError::NotReady)
    }

    /// Queues again, under its old id, a call of an earlier connection that the server does not have. Must be
    /// called in the order of the ids and before any new call.
    ///
    /// # Errors
    /// Fails if the connection accepts no more messages.
    pub fn send_call_again(&mut self, id: u64, message: Message) -> Result<(), SendError> {
        if let Err(error) = self.sendable() {
            drop_message(message);
            return Err(error);
        }
        self.queue.push_call(id, message);
        Ok(())
    }

    /// Continues the ids of a client's calls after `id`, the last one of its earlier connections.
    pub fn number_after(&mut self, id: u64) {
        self.queue.calls.number_after(id);
    }

    /// Encodes a small result where it is queued.
    ///
    /// # Errors
    /// Fails as [`send_answer`](Outbound::send_answer) does, and with [`SendError::Unencoded`] if the result
    /// must be encoded first.
    #[inline]
    pub fn encode_answer(&mut self, id: u64, draft: &Draft<'_>) -> Result<(), SendError> {
        self.sendable()?;
        self.queue.encode_answer(id, draft)
    }

    /// Queues the answer to a call, a result or an error. Charges a large result to the budget, even if there
    /// is no room, until it is staged completely.
    ///
    /// # Errors
    /// Fails if the connection accepts no more messages, or if the call was answered or withdrawn.
    pub fn send_answer(&mut self, id: u64, message: Message) -> Result<(), SendError> {
        if let Err(error) = self.sendable() {
            drop_message(message);
            return Err(error);
        }
        if self.queue.push_answer(id, message) { Ok(()) } else { Err(SendError::NotOpen { id }) }
    }

    /// Replaces an answer that is not staged completely by an error, because its receiver is too slow or its
    /// memory is needed. Returns false if there is no such answer.
    pub fn replace_answer(&mut self, id: u64, error: &RemoteError) -> bool {
        self.queue.replace_answer(id, error)
    }

    /// Withdraws a client's call as far as that is still possible.
    pub fn withdraw(&mut self, id: u64) -> Withdrawn {
        self.queue.withdraw(id)
    }

    /// Asks the server for the state of a client's calls of earlier connections. Calls must wait for the
    /// answer.
    ///
    /// # Errors
    /// Fails before the peer's hello, if one side cannot resume, or after the first call.
    pub fn send_resume(&mut self, resume: &Resume) -> Result<(), SendError> {
        self.sendable()?;
        if !(self.resumes() && self.resumption.ask(&resume.calls)) {
            return Err(SendError::NotReady);
        }
        self.queue.control.add().resume = encode_frame(Kind::Resume, 0, &resume.encode());
        Ok(())
    }

    /// Answers a client's resume. From now on, the calls that are done or running can be answered here.
    ///
    /// # Errors
    /// Fails if the connection accepts no more messages, or if the ids differ from those of the resume.
    pub fn send_resume_answer(&mut self, calls: Vec<(u64, CallAnswer)>) -> Result<(), SendError> {
        self.sendable()?;
        if !self.resumption.answer(&calls) {
            return Err(SendError::NotReady);
        }
        for (id, answer) in &calls {
            // The client may name all of them: it also acknowledges expired answers.
            self.queue.calls.know(*id);
            if is_held(*answer) {
                self.queue.calls.adopt(*id, Progress::Unanswered);
            }
        }
        self.queue.control.add().resume =
            encode_frame(Kind::ResumeAnswer, 0, &ResumeAnswer { calls }.encode());
        Ok(())
    }

    /// Informs the peer that a call (on a server) or its answer (on a client) was received completely and is
    /// kept here.
    pub fn send_ack(&mut self, id: u64) {
        if self.resumes() {
            self.queue.control.add().acks.push(id);
        }
    }

    /// Returns the credit of all dropped leases to the peer, in one frame.
    /// [`poll_write`](Outbound::poll_write) does so once there is enough for a frame.
    pub fn send_credit(&mut self) {
        let returned_bytes = self.queue.ledger.take_returned();
        if returned_bytes > 0 {
            self.queue.control.add().credit_bytes += returned_bytes;
        }
    }

    /// Queues a goodbye behind everything else. Nothing can be queued from now on.
    pub fn send_goodbye(&mut self, kind: Option<ErrorKind>, reason: &str) {
        if matches!(self.farewell, Farewell::None) {
            self.farewell = Farewell::Queued(Goodbye { kind, reason: reason.to_owned() });
        }
    }

    /// Drops everything queued before a goodbye. Returns true if a goodbye was queued.
    pub fn hurry_goodbye(&mut self) -> bool {
        let waits = matches!(self.farewell, Farewell::Queued(_));
        if waits {
            self.discard();
        }
        waits
    }

    /// Drops everything queued.
    pub fn discard(&mut self) {
        self.queue.discard();
    }

    /// Drops everything queued and accepts nothing more, because the connection is gone.
    pub fn end(&mut self) {
        self.discard();
        self.farewell = Farewell::Staged;
    }

    // ---- Answers ----

    /// Moves the next frames into `buffer`, if there are any. A writer asks again until it stays empty.
    /// Returns true, once, if the unsent results are within the quota of [`Ledger::await_drain`].
    #[inline]
    pub fn poll_write(&mut self, buffer: &mut WriteBuffer) -> bool {
        self.has_work() && self.stage(buffer)
    }

    fn stage(&mut self, buffer: &mut WriteBuffer) -> bool {
        if self.queue.ledger.is_credit_worth_frame() {
            self.send_credit();
        }
        if !self.introduction.is_empty() {
            buffer.append(&std::mem::take(&mut self.introduction));
        }
        if self.peer.is_some() && !self.is_finished() {
            self.queue.stage(buffer);
        }
        if self.queue.is_empty()
            && let Farewell::Queued(goodbye) = &self.farewell
        {
            buffer.append(&goodbye.encode_frame());
            self.farewell = Farewell::Staged;
        }
        self.queue.ledger.poll_drained()
    }
}

/// Returns true if the server has a call of a resume and will answer it.
fn is_held(answer: CallAnswer) -> bool {
    matches!(answer, CallAnswer::Done | CallAnswer::Running)
}

/// Access to the sending half from the receiving half.
pub trait SharedOutbound {
    /// The locked sending half.
    type Guard<'a>: DerefMut<Target = Outbound>
    where
        Self: 'a;

    /// Locks the sending half.
    fn lock_outbound(&self) -> Self::Guard<'_>;

    /// Runs `change` on the sending half. It must not block.
    fn with<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> T {
        change(&mut self.lock_outbound())
    }
}

impl SharedOutbound for Mutex<Outbound> {
    type Guard<'a> = MutexGuard<'a, Outbound>;

    fn lock_outbound(&self) -> MutexGuard<'_, Outbound> {
        self.lock()
    }
}

impl SharedOutbound for RefCell<Outbound> {
    type Guard<'a> = RefMut<'a, Outbound>;

    fn lock_outbound(&self) -> RefMut<'_, Outbound> {
        self.borrow_mut()
    }
}
