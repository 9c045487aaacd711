//! The sending half of a connection: when what may be sent, and the goodbye that ends it.
//!
//! Flow: `send_*` (from any thread, a short lock) -> `poll_write` (by the thread that holds the write
//! token) -> [`WriteBuffer`] -> the socket. Control frames go first; messages follow by their schedule.
//!
//! Its methods are of four kinds, in this order: what is received (`on_*`), what is queued (`send_*`),
//! timers (`handle_timeout`, of the receiving half), and answers (`poll_*`).
//!
//! Never touches a socket, reads a clock or copies an array, and drops no buffer while a lock is held
//! (see [`deferred_drop`](crate::memory::deferred_drop)). Bounds: calls by the peer's `max_open_calls`,
//! answers by our own, control frames by those two. The bytes of answers are not bounded here: the
//! layer above starts no more calls while too many wait (see [`Ledger::await_drain`]).

mod control;
pub(super) mod queue;
mod schedule;
pub(super) mod unsent;
pub(super) mod write_buffer;

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;
use teleport_wire::{
    CallAnswer, CallState, ErrorKind, Goodbye, Hello, Kind, Message, Preface, RemoteError, Resume,
    ResumeAnswer, encode_frame,
};

use self::queue::Queue;
use self::unsent::drop_message;
use self::write_buffer::WriteBuffer;
use super::calls::Progress;
use super::error::{ProtocolError, SendError};
use super::ledger::{Ledger, ReturnedCredit};
use super::resume::Resumption;
use crate::config::Config;
use crate::memory::budget::Budget;
use crate::role::Role;

/// What came of withdrawing a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// Not a byte of it was sent.
    NeverSent,
    /// It was sent in part. The server was told to forget it, and never runs it.
    Aborted,
    /// It was sent whole. The server was asked to drop or stop it, and still answers.
    Requested,
    /// No such call is open.
    NotOpen,
}

/// The state of the send queue after [`Outbound::poll_write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteProgress {
    /// The buffer holds bytes for the socket.
    pub staged: bool,
    /// The goodbye was staged: nothing follows it.
    pub finished: bool,
    /// The unsent results have shrunk to what [`Ledger::await_drain`] waits for. Reported once.
    pub drained: bool,
    /// Calls without an answer, and those of a client whose result is not whole.
    pub open_calls: usize,
}

#[derive(Debug)]
enum Farewell {
    None,
    /// Goes once everything queued has gone.
    Queued(Goodbye),
    Staged,
}

/// The sending half of a connection, without I/O.
#[derive(Debug)]
pub struct Outbound {
    /// Preface and hello, until they are staged.
    introduction: Vec<u8>,
    /// None before its hello.
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
            queue: Queue::new(config, Ledger::new(config.eager_credit_bytes, budget, credit)),
            resumption: Resumption::new(role, config),
            farewell: Farewell::None,
        }
    }

    /// What the peer said of itself; none before its hello.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// What the connection's memory costs.
    pub fn ledger(&self) -> &Ledger {
        &self.queue.ledger
    }

    /// What the connection's memory costs, to wait for it.
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.queue.ledger
    }

    /// Calls without an answer, and those of a client whose result is not whole.
    pub fn open_calls(&self) -> usize {
        self.queue.calls.open()
    }

    /// Returns what the server can know of each of a client's calls whose answer has not come whole.
    pub fn call_states(&self) -> Vec<(u64, CallState)> {
        self.queue.calls.states()
    }

    /// Returns true if both sides can resume, and the client has a session.
    pub fn resumes(&self) -> bool {
        self.resumption.is_agreed()
    }

    /// Returns true if [`poll_write`](Outbound::poll_write) would find anything.
    pub fn has_work(&self) -> bool {
        !self.introduction.is_empty()
            || (self.peer.is_some() && !self.is_finished() && self.queue.has_frames())
            || matches!(self.farewell, Farewell::Queued(_))
            || self.queue.ledger.is_drained()
            || self.queue.ledger.returned.is_due()
    }

    /// Returns true if the goodbye was staged: nothing follows it.
    pub fn is_finished(&self) -> bool {
        matches!(self.farewell, Farewell::Staged)
    }

    /// Bytes that are charged to the budget for results and for the structure of calls.
    #[cfg(test)]
    pub(super) fn charged_bytes(&self) -> u64 {
        self.queue
            .calls
            .iter()
            .filter_map(|(_, call)| call.charge.as_ref().map(|charge| charge.bytes()))
            .sum()
    }

    // ---- What is received ----

    pub(super) fn on_hello(&mut self, hello: Hello) {
        self.queue.ledger.on_hello(hello.eager_credit_bytes);
        self.queue.checksum |= hello.features & Hello::CHECKSUM != 0;
        self.resumption.on_hello(&hello);
        self.peer = Some(hello);
    }

    /// The answer to a resume arrived (on a client): the calls that the server has are answered on this
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

    /// Queues a call and returns its id, which `register` learns before the call can be answered.
    ///
    /// # Errors
    /// Before the peer's hello, after a goodbye, and past the calls that the peer allows at once.
    pub fn send_call(&mut self, message: Message, register: impl FnOnce(u64)) -> Result<u64, SendError> {
        if let Err(error) = self.may_call() {
            drop_message(message);
            return Err(error);
        }
        let id = self.queue.calls.next_id();
        register(id);
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

    /// Queues a call of an earlier connection again, under its id, which the server does not know: in
    /// the order of the ids, and before any new call.
    ///
    /// # Errors
    /// If the connection takes nothing any more.
    pub fn send_call_again(&mut self, id: u64, message: Message) -> Result<(), SendError> {
        if let Err(error) = self.sendable() {
            drop_message(message);
            return Err(error);
        }
        self.queue.push_call(id, message);
        Ok(())
    }

    /// Numbers a client's next calls from above `id`, the last one of its earlier connections.
    pub fn number_after(&mut self, id: u64) {
        self.queue.calls.number_after(id);
    }

    /// Queues the answer to a call, a result or an error. Charges a large result to the budget, whether
    /// or not there is room, until it has gone whole.
    ///
    /// # Errors
    /// If the connection takes nothing any more, or the call was answered or withdrawn.
    pub fn send_answer(&mut self, id: u64, message: Message) -> Result<(), SendError> {
        if let Err(error) = self.sendable() {
            drop_message(message);
            return Err(error);
        }
        if self.queue.push_answer(id, message) { Ok(()) } else { Err(SendError::NotOpen { id }) }
    }

    /// Replaces an answer that has not gone whole by an error, because its receiver is too slow or its
    /// memory is needed. Returns false if there is no such answer.
    pub fn replace_answer(&mut self, id: u64, error: &RemoteError) -> bool {
        self.queue.replace_answer(id, error)
    }

    /// Withdraws a client's call, as far as that is still possible.
    pub fn withdraw(&mut self, id: u64) -> Withdrawn {
        self.queue.withdraw(id)
    }

    /// Asks what became of a client's calls of earlier connections. Calls have to wait for the answer.
    ///
    /// # Errors
    /// Before the peer's hello, if one side cannot resume, or after the first call.
    pub fn send_resume(&mut self, resume: &Resume) -> Result<(), SendError> {
        self.sendable()?;
        if !(self.resumes() && self.resumption.ask(&resume.calls)) {
            return Err(SendError::NotReady);
        }
        self.queue.control.resume = encode_frame(Kind::Resume, 0, &resume.encode());
        Ok(())
    }

    /// Answers a client's resume. From now on the calls that are done or running can be answered here.
    ///
    /// # Errors
    /// If the connection takes nothing any more, or the ids are not those of the resume.
    pub fn send_resume_answer(&mut self, calls: Vec<(u64, CallAnswer)>) -> Result<(), SendError> {
        self.sendable()?;
        if !self.resumption.answer(&calls) {
            return Err(SendError::NotReady);
        }
        for (id, answer) in &calls {
            // The client may name them all: it acknowledges that an answer has expired.
            self.queue.calls.know(*id);
            if is_held(*answer) {
                self.queue.calls.adopt(*id, Progress::Unanswered);
            }
        }
        self.queue.control.resume = encode_frame(Kind::ResumeAnswer, 0, &ResumeAnswer { calls }.encode());
        Ok(())
    }

    /// Tells the peer that a call (on a server) or its answer (on a client) has come whole, and is kept
    /// here.
    pub fn send_ack(&mut self, id: u64) {
        if self.resumes() {
            self.queue.control.acks.push(id);
        }
    }

    /// Gives back to the peer the credit of all leases that were dropped, in one frame.
    /// [`poll_write`](Outbound::poll_write) does so once there is enough for a frame.
    pub fn send_credit(&mut self) {
        self.queue.control.credit_bytes += self.queue.ledger.take_returned();
    }

    /// Says goodbye once everything queued has gone. Nothing can be queued from now on.
    pub fn send_goodbye(&mut self, kind: Option<ErrorKind>, reason: &str) {
        if matches!(self.farewell, Farewell::None) {
            self.farewell = Farewell::Queued(Goodbye { kind, reason: reason.to_owned() });
        }
    }

    /// Drops everything queued if a goodbye waits for it. Returns true if so.
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

    /// Drops everything queued and takes nothing more: the connection is gone.
    pub fn end(&mut self) {
        self.discard();
        self.farewell = Farewell::Staged;
    }

    // ---- Answers ----

    /// Moves what goes next into `buffer`, and returns what else a writer has to know.
    pub fn poll_write(&mut self, buffer: &mut WriteBuffer) -> WriteProgress {
        if self.queue.ledger.returned.is_worth_frame() && self.has_work() {
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
        WriteProgress {
            staged: !buffer.is_empty(),
            finished: self.is_finished(),
            drained: self.queue.ledger.poll_drained(),
            open_calls: self.open_calls(),
        }
    }
}

/// Returns true if the server has a call that a resume asked for, and answers it.
fn is_held(answer: CallAnswer) -> bool {
    matches!(answer, CallAnswer::Done | CallAnswer::Running)
}

/// Reaches the sending half from the receiving half, for a moment.
pub trait SharedOutbound {
    /// Runs `change` on the sending half. It must not block.
    fn with<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> T;
}

impl SharedOutbound for Mutex<Outbound> {
    fn with<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> T {
        change(&mut self.lock())
    }
}

impl SharedOutbound for RefCell<Outbound> {
    fn with<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> T {
        change(&mut self.borrow_mut())
    }
}
