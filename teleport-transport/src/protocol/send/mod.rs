//! What a connection will send: one place where all messages wait, and the rule of what goes next.
//!
//! Flow: `push` and the control slots (from any thread, a short lock) -> `stage` (whoever holds the right to write) ->
//! [`WriteBuffer`] -> the socket. Control frames go first and are coalesced: a slot, not a queue. Small messages follow in
//! their order. Large payloads share what is left, a chunk a turn; after `SMALL_BYTES_PER_CHUNK` of small messages one
//! chunk goes all the same, so that neither lane starves the other.
//!
//! Never touches a socket, reads a clock or copies an array, and drops no buffer while a lock is held (see
//! [`waste`](crate::memory::deferred_drop)). Bounds: calls by the peer's `max_open_calls`, answers that have not gone whole by our own,
//! control frames by those two. How many bytes those answers hold is not bounded here: the layer above starts no more calls
//! while too many wait (`await_drain`), and what pays for them is kept in [`Unsent`].

mod control;
pub(super) mod unsent;
pub(super) mod write_buffer;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use teleport_wire::{
    Buffer, CallAnswer, CallState, ErrorKind, Goodbye, Header, Hello, Id128, Kind, Limits, MAX_CHUNK_BYTES,
    Message, Preface, RemoteError, Resume, ResumeAnswer, encode_frame,
};

use self::control::Control;
use self::unsent::Unsent;
use self::write_buffer::WriteBuffer;
use super::calls::{OwnCalls, PeerCalls, Progress, StructureOverrun};
use super::error::{ProtocolError, SendError};
use super::id_map::IdMap;
use super::ledger::ReturnedCredit;
use super::resume::Resuming;
use crate::config::Config;
use crate::memory::budget::Charge;
use crate::memory::deferred_drop::drop_buffer_later;
use crate::role::Role;

/// A payload of up to so many bytes travels in the lane of small messages, whole and in order.
const MAX_SMALL_BYTES: u64 = 64 << 10;

/// After so many bytes of small messages a large transfer gets one chunk.
const SMALL_BYTES_PER_CHUNK: usize = 1 << 20;

/// Small messages staged at once. More would let a later ping or grant wait behind them.
const STAGED_SMALL_BYTES: usize = 256 << 10;

/// A piece of a small message up to this size is copied beside its header: cheaper than a segment of its own.
const MAX_COPIED_BYTES: usize = 2 << 10;

/// Of one message, at most so many bytes are copied beside headers.
const MAX_COPIED_BYTES_PER_MESSAGE: usize = 16 << 10;

/// What came of withdrawing a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// Not a byte of it was sent.
    NeverSent,
    /// It was sent in part; the server was told to forget it and never runs it.
    Aborted,
    /// It was sent whole; the server was asked to drop or stop it and still answers.
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
    /// The unsent results have shrunk to what [`Outbound::await_drain`] waits for. Reported once.
    pub drained: bool,
    /// Calls without an answer, and those of a client whose result is not whole.
    pub open_calls: usize,
}

#[derive(Debug)]
struct Queued {
    id: u64,
    message: Message,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent. Eager: the payload follows at once, paid from the peer's credit.
    Head { eager: bool },
    /// The head was sent and the peer granted the payload, which is small.
    Granted,
}

/// A large payload on its way.
#[derive(Debug)]
struct Transfer {
    id: u64,
    /// Invariant: no buffer is empty, and their lengths are `remaining_bytes`.
    pieces: VecDeque<Buffer>,
    remaining_bytes: u64,
    /// What of it was copied beside headers.
    copied_bytes: usize,
}

#[derive(Debug)]
enum Farewell {
    None,
    /// Goes once everything queued has gone.
    Queued(Goodbye),
    WriteBuffer,
}

/// The sending half of a connection, without I/O.
#[derive(Debug)]
pub struct Outbound {
    /// Whether payload is sent with a checksum: because this side or the peer wants it.
    checksum: bool,
    /// Whether this side can resume, and the session that it has as a client.
    resume: bool,
    session: Id128,
    /// Whether both sides can.
    resumes: bool,
    /// Preface and hello, until they are staged.
    introduction: Vec<u8>,
    peer: Option<Hello>,
    control: Control,
    small: VecDeque<Queued>,
    large: VecDeque<Transfer>,
    /// Messages whose head was sent and whose payload waits for its grant.
    waiting: IdMap<Message>,
    /// Of a client.
    own_calls: OwnCalls,
    /// Of a server.
    peer_calls: PeerCalls,
    resuming: Resuming,
    /// Eager payload that the peer still accepts.
    credit_bytes: u64,
    /// Eager payload received and not yet given back. Invariant: at most `max_eager_bytes`.
    held_eager_bytes: u64,
    max_eager_bytes: u64,
    returned_credit: Arc<ReturnedCredit>,
    /// Payload and metadata that are queued, in transfer or waiting for a grant.
    queued_bytes: u64,
    /// What pays for large results, and who is to be told when they have gone. Of a server.
    unsent: Unsent,
    /// What pays for the structure of the peer's calls where that is large.
    structure: Option<Charge>,
    /// Payload that was staged since the connection began.
    staged_payload_bytes: u64,
    small_bytes_since_chunk: usize,
    farewell: Farewell,
}

impl Outbound {
    pub(super) fn new(role: Role, config: &Config, returned_credit: Arc<ReturnedCredit>) -> Outbound {
        let mut introduction = Preface::BYTES.to_vec();
        introduction.extend(encode_frame(Kind::Hello, 0, &config.hello(role).encode()));
        Outbound {
            checksum: config.checksum,
            resume: config.resume,
            session: if role == Role::Client { config.session } else { Id128::NONE },
            resumes: false,
            introduction,
            peer: None,
            control: Control::default(),
            small: VecDeque::new(),
            large: VecDeque::new(),
            waiting: IdMap::default(),
            own_calls: OwnCalls::default(),
            peer_calls: PeerCalls::default(),
            resuming: Resuming::default(),
            credit_bytes: 0,
            held_eager_bytes: 0,
            max_eager_bytes: config.eager_credit_bytes,
            returned_credit,
            queued_bytes: 0,
            unsent: Unsent::default(),
            structure: None,
            staged_payload_bytes: 0,
            small_bytes_since_chunk: 0,
            farewell: Farewell::None,
        }
    }

    /// What the peer said of itself; none before its hello came.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Payload and metadata in bytes that wait here, whether for the socket or for a grant.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Calls without an answer, and a client's whose result is not whole.
    pub fn open_calls(&self) -> usize {
        self.own_calls.len() + self.peer_calls.unanswered()
    }

    /// Bytes of payload memory that the peer still accepts without a grant.
    pub fn credit_bytes(&self) -> u64 {
        self.credit_bytes
    }

    /// Whether `stage` would find anything.
    pub fn has_work(&self) -> bool {
        !self.introduction.is_empty()
            || (self.peer.is_some() && self.has_frames())
            || matches!(self.farewell, Farewell::Queued(_))
            || self.unsent.is_drained(self.queued_bytes)
            || self.returned_credit.is_due()
    }

    fn has_frames(&self) -> bool {
        !matches!(self.farewell, Farewell::WriteBuffer)
            && (self.control.has_frames() || !self.small.is_empty() || !self.large.is_empty())
    }

    /// Whether the goodbye was staged: nothing follows it.
    pub fn is_finished(&self) -> bool {
        matches!(self.farewell, Farewell::WriteBuffer)
    }

    // ---- Messages ----

    /// Queues a call and gives its id, which `register` learns before the call can be answered.
    ///
    /// # Errors
    /// Before the peer's hello, after a goodbye, and past the calls that the peer allows at once.
    pub fn push_call(&mut self, message: Message, register: impl FnOnce(u64)) -> Result<u64, SendError> {
        if let Err(error) = self.may_call() {
            drop_message(message);
            return Err(error);
        }
        let id = self.own_calls.begin();
        register(id);
        self.push(id, message);
        Ok(id)
    }

    fn may_call(&mut self) -> Result<(), SendError> {
        let max_open_calls = self.sendable()?.max_open_calls;
        if self.own_calls.len() >= max_open_calls as usize {
            return Err(SendError::TooManyCalls { max_open_calls });
        }
        if self.resuming.call() { Ok(()) } else { Err(SendError::NotReady) }
    }

    /// Queues the answer to a call, a result or an error.
    ///
    /// # Errors
    /// If the connection takes nothing any more, or the call has been answered or withdrawn.
    pub fn push_answer(&mut self, id: u64, message: Message) -> Result<(), SendError> {
        let may_answer = self.sendable().map(drop).and_then(|()| {
            if self.peer_calls.answered(id) { Ok(()) } else { Err(SendError::NotOpen { id }) }
        });
        match may_answer {
            Ok(()) => self.push(id, message),
            Err(_) => drop_message(message),
        }
        may_answer
    }

    /// Ends an answer with an error instead, if it has not gone whole: for a result whose receiver is too slow, or whose
    /// memory is needed. True if it did.
    pub fn replace_answer(&mut self, id: u64, error: &RemoteError) -> bool {
        if !self.drop_unsent_head(id) {
            if !self.drop_unsent_payload(id) {
                return false;
            }
            self.control.aborts.push(id);
        }
        self.unsent.release(id);
        self.push(id, Message::error(error));
        true
    }

    fn sendable(&self) -> Result<&Hello, SendError> {
        if !matches!(self.farewell, Farewell::None) {
            return Err(SendError::Closed);
        }
        self.peer.as_ref().ok_or(SendError::NotReady)
    }

    fn push(&mut self, id: u64, message: Message) {
        let eager = message.payload_bytes > 0 && message.memory_bytes <= self.credit_bytes;
        if eager {
            self.credit_bytes -= message.memory_bytes;
        }
        self.queued_bytes += message.payload_bytes + message.metadata.len() as u64;
        self.small.push_back(Queued { id, message, stage: Stage::Head { eager } });
    }

    /// Withdraws a client's call as far as that is still possible.
    pub fn withdraw(&mut self, id: u64) -> Withdrawn {
        match self.own_calls.progress(id) {
            None => Withdrawn::NotOpen,
            Some(Progress::Whole) => {
                self.control.cancels.push(id);
                Withdrawn::Requested
            }
            Some(Progress::Queued) => {
                self.own_calls.withdrawn(id);
                self.drop_unsent_head(id);
                Withdrawn::NeverSent
            }
            Some(Progress::Begun) => {
                self.own_calls.withdrawn(id);
                self.drop_unsent_payload(id);
                self.control.aborts.push(id);
                Withdrawn::Aborted
            }
        }
    }

    fn drop_unsent_head(&mut self, id: u64) -> bool {
        let unsent = |queued: &Queued| queued.id == id && matches!(queued.stage, Stage::Head { .. });
        let Some(index) = self.small.iter().position(unsent) else { return false };
        if let Some(queued) = self.small.remove(index) {
            if queued.stage == (Stage::Head { eager: true }) {
                self.credit_bytes += queued.message.memory_bytes;
            }
            self.queued_bytes -= queued.message.payload_bytes + queued.message.metadata.len() as u64;
            drop_message(queued.message);
        }
        true
    }

    /// Forgets a payload that was not sent to its end; true if there was one.
    fn drop_unsent_payload(&mut self, id: u64) -> bool {
        if let Some(message) = self.waiting.remove(&id) {
            self.queued_bytes -= message.payload_bytes;
            drop_message(message);
            return true;
        }
        let position = self.large.iter().position(|transfer| transfer.id == id);
        if let Some(transfer) = position.and_then(|index| self.large.remove(index)) {
            self.queued_bytes -= transfer.remaining_bytes;
            transfer.pieces.into_iter().for_each(drop_buffer_later);
            return true;
        }
        let position = self.small.iter().position(|queued| queued.id == id);
        if let Some(queued) = position.and_then(|index| self.small.remove(index)) {
            self.queued_bytes -= queued.message.payload_bytes;
            drop_message(queued.message);
            return true;
        }
        false
    }

    // ---- Calls of earlier connections ----

    /// Whether both sides can resume, and the client has a session.
    pub fn resumes(&self) -> bool {
        self.resumes
    }

    /// Asks what became of a client's calls of earlier connections. Calls have to wait for the answer.
    ///
    /// # Errors
    /// Before the peer's hello, where one side cannot resume, or after the first call.
    pub fn resume(&mut self, resume: &Resume) -> Result<(), SendError> {
        self.sendable()?;
        if !self.resumes {
            return Err(SendError::NotReady);
        }
        self.resuming.ask(&resume.calls)?;
        self.control.resume = encode_frame(Kind::Resume, 0, &resume.encode());
        Ok(())
    }

    /// Numbers a client's next calls from above `id`, the last one of its earlier connections.
    pub fn number_after(&mut self, id: u64) {
        self.own_calls.number_after(id);
    }

    /// Sends a call again, under the id that it had, which the server does not know: in the order of their ids, and
    /// before any new call.
    ///
    /// # Errors
    /// If the connection takes nothing any more.
    pub fn push_call_again(&mut self, id: u64, message: Message) -> Result<(), SendError> {
        if let Err(error) = self.sendable() {
            drop_message(message);
            return Err(error);
        }
        self.own_calls.begin_again(id);
        self.push(id, message);
        Ok(())
    }

    /// What the server can know of each of a client's calls whose answer has not come whole.
    pub fn call_states(&self) -> Vec<(u64, CallState)> {
        self.own_calls.states()
    }

    /// Answers a client's resume. From now on the calls that are done or running can be answered here.
    ///
    /// # Errors
    /// If the connection takes nothing any more, or the ids are not those of the resume.
    pub fn answer_resume(&mut self, calls: Vec<(u64, CallAnswer)>) -> Result<(), SendError> {
        self.sendable()?;
        self.resuming.answer(&calls)?;
        for (id, answer) in &calls {
            // Of those that are over too: that one has expired is acknowledged.
            self.peer_calls.know(*id);
            if is_held(*answer) {
                self.peer_calls.adopt(*id);
            }
        }
        self.control.resume = encode_frame(Kind::ResumeAnswer, 0, &ResumeAnswer { calls }.encode());
        Ok(())
    }

    /// Tells the peer that a call (on a server) or its answer (on a client) has come whole, and is kept here.
    pub fn acknowledge(&mut self, id: u64) {
        if self.resumes {
            self.control.acks.push(id);
        }
    }

    // ---- What the peer's frames change ----

    pub(super) fn peer_hello(&mut self, hello: Hello) {
        self.credit_bytes = hello.eager_credit_bytes;
        self.checksum |= hello.features & Hello::CHECKSUM != 0;
        let has_session = !(self.session.is_none() && hello.session.is_none());
        self.resumes = self.resume && has_session && hello.features & Hello::RESUME != 0;
        self.peer = Some(hello);
    }

    /// The head of a call arrived (on a server). With an overrun, it is to be refused.
    pub(super) fn call_arrived(
        &mut self,
        id: u64,
        structure_bytes: u64,
        config: &Config,
    ) -> Result<Option<StructureOverrun>, ProtocolError> {
        self.peer_calls.arrived(id, structure_bytes, config)
    }

    /// A call may arrive (on a server), unless it comes before the answer to a resume.
    pub(super) fn call_in_turn(&mut self) -> Result<(), ProtocolError> {
        if self.resuming.call() { Ok(()) } else { Err(ProtocolError::OutOfTurn { kind: Kind::Call }) }
    }

    /// A client's list of earlier calls arrived (on a server).
    pub(super) fn resume_arrived(&mut self, resume: &Resume) -> Result<(), ProtocolError> {
        self.resuming.asked(&resume.calls)
    }

    /// The answer to the list arrived (on a client): what the server has will be answered here.
    pub(super) fn resume_answered(&mut self, calls: &[(u64, CallAnswer)]) -> Result<(), ProtocolError> {
        self.resuming.answered(calls)?;
        for (id, _) in calls.iter().filter(|(_, answer)| is_held(*answer)) {
            self.own_calls.adopt(*id);
        }
        Ok(())
    }

    /// The peer has messages whole.
    pub(super) fn acknowledged(&mut self, ids: &[u64]) -> Result<(), ProtocolError> {
        for id in ids {
            if !self.is_known(*id) {
                return Err(ProtocolError::UnknownId { kind: Kind::Ack, id: *id });
            }
            self.own_calls.acknowledged(*id);
        }
        Ok(())
    }

    /// An error arrived (on a client): whatever is left of the call's payload is not sent. True if somebody waits for it.
    pub(super) fn error_arrived(&mut self, id: u64) -> Result<bool, ProtocolError> {
        let (is_awaited, progress) = self.own_calls.error_arrived(id)?;
        if progress == Progress::Begun && self.drop_unsent_payload(id) {
            self.control.aborts.push(id);
        }
        Ok(is_awaited)
    }

    /// The head of a result arrived (on a client). True if somebody waits for it.
    pub(super) fn result_arrived(&mut self, id: u64) -> Result<bool, ProtocolError> {
        self.own_calls.result_arrived(id)
    }

    /// A result is whole (on a client).
    pub(super) fn result_completed(&mut self, id: u64) {
        self.own_calls.result_completed(id);
    }

    /// The peer gave up a result that it had begun (on a client).
    pub(super) fn result_aborted(&mut self, id: u64, is_awaited: bool) {
        self.forget_grant(id);
        self.own_calls.result_aborted(id, is_awaited);
    }

    /// A grant that was not sent is for nothing now. Kept, they could pile up behind a peer that does not read.
    fn forget_grant(&mut self, id: u64) {
        self.control.grants.retain(|granted| *granted != id);
    }

    /// The peer withdrew a call that it had not sent whole (on a server).
    pub(super) fn call_aborted(&mut self, id: u64) {
        self.forget_grant(id);
        if self.peer_calls.aborted(id) {
            self.drop_unsent_head(id);
            self.unsent.release(id);
        }
    }

    /// Whether the peer may name `id`: a frame for a message that is gone may have crossed something of ours.
    pub(super) fn is_known(&self, id: u64) -> bool {
        self.own_calls.is_known(id) || self.peer_calls.is_known(id)
    }

    pub(super) fn eager_arrived(&mut self, bytes: u64) -> Result<(), ProtocolError> {
        if bytes > self.max_eager_bytes - self.held_eager_bytes {
            return Err(ProtocolError::CreditOverrun { bytes, max_bytes: self.max_eager_bytes });
        }
        self.held_eager_bytes += bytes;
        Ok(())
    }

    pub(super) fn credited(&mut self, bytes: u64) -> Result<(), ProtocolError> {
        let most = self.peer.as_ref().map_or(0, |peer| peer.eager_credit_bytes);
        let credit_bytes = self.credit_bytes.saturating_add(bytes);
        if credit_bytes > most {
            return Err(ProtocolError::TooMuchCredit { bytes, max_bytes: most });
        }
        self.credit_bytes = credit_bytes;
        Ok(())
    }

    pub(super) fn granted(&mut self, id: u64) -> Result<(), ProtocolError> {
        if !self.is_known(id) {
            return Err(ProtocolError::UnknownId { kind: Kind::Grant, id });
        }
        // A message that was withdrawn meanwhile may still be granted: the frames crossed.
        let Some(message) = self.waiting.remove(&id) else { return Ok(()) };
        if message.payload_bytes <= MAX_SMALL_BYTES {
            self.small.push_back(Queued { id, message, stage: Stage::Granted });
        } else {
            self.large.push_back(Transfer::new(id, message));
        }
        Ok(())
    }

    // ---- Control slots ----

    pub(super) fn ping(&mut self, token: u64) {
        self.control.ping = Some(token);
    }

    pub(super) fn pong(&mut self, token: u64) {
        self.control.pong = Some(token);
    }

    /// Tells the peer that a message which waits for memory may come.
    pub fn grant(&mut self, id: u64) {
        self.control.grants.push(id);
    }

    /// Gives back to the peer the eager credit of all leases dropped so far, in one frame. [`poll_write`](Outbound::poll_write)
    /// does so once there is enough for a frame.
    pub fn send_credit(&mut self) {
        let bytes = self.returned_credit.take();
        self.held_eager_bytes = self.held_eager_bytes.saturating_sub(bytes);
        self.control.credit_bytes += bytes;
    }

    /// Says goodbye once everything queued has gone. Nothing can be queued from now on.
    pub fn finish(&mut self, kind: Option<ErrorKind>, reason: &str) {
        if matches!(self.farewell, Farewell::None) {
            self.farewell = Farewell::Queued(Goodbye { kind, reason: reason.to_owned() });
        }
    }

    /// Has a goodbye that waits for what is queued go at once, and drops that; false if none waits.
    pub fn hurry(&mut self) -> bool {
        let waits = matches!(self.farewell, Farewell::Queued(_));
        if waits {
            self.discard();
        }
        waits
    }

    /// Says goodbye at once and drops everything queued.
    pub fn finish_now(&mut self, kind: Option<ErrorKind>, reason: &str) {
        self.discard();
        self.finish(kind, reason);
    }

    /// Drops everything queued and takes nothing more: the connection is gone.
    pub fn end(&mut self) {
        self.discard();
        self.farewell = Farewell::WriteBuffer;
    }

    /// Drops everything queued.
    pub fn discard(&mut self) {
        self.control = Control::default();
        self.small.drain(..).for_each(|queued| drop_message(queued.message));
        self.large.drain(..).flat_map(|transfer| transfer.pieces).for_each(drop_buffer_later);
        self.waiting.drain().for_each(|(_, message)| drop_message(message));
        self.unsent.release_all();
        self.structure = None;
        self.queued_bytes = 0;
    }

    // ---- Staging ----

    /// Moves what goes next into `buffer`, and says what else a writer has to know: one visit for each write.
    pub fn poll_write(&mut self, buffer: &mut WriteBuffer) -> WriteProgress {
        if self.returned_credit.is_worth_frame() && self.has_work() {
            self.send_credit();
        }
        self.stage(buffer);
        WriteProgress {
            staged: !buffer.is_empty(),
            finished: self.is_finished(),
            drained: self.take_drained(),
            open_calls: self.open_calls(),
        }
    }

    /// Moves what goes next into `staged`: control frames, then small messages, then at most one large chunk.
    fn stage(&mut self, staged: &mut WriteBuffer) {
        if !self.introduction.is_empty() {
            staged.append(&std::mem::take(&mut self.introduction));
        }
        if self.peer.is_some() && !self.is_finished() {
            self.control.stage(staged);
            self.stage_small(staged);
            let is_turn = self.small.is_empty() || self.small_bytes_since_chunk >= SMALL_BYTES_PER_CHUNK;
            // Behind metadata as long as a chunk, it goes next time: a ping that comes now waits for two chunks at most.
            if is_turn && staged.remaining_bytes() < STAGED_SMALL_BYTES {
                self.stage_chunk(staged);
            }
        }
        if self.small.is_empty() && self.large.is_empty() && self.waiting.is_empty() {
            self.stage_farewell(staged);
        }
    }

    fn stage_small(&mut self, staged: &mut WriteBuffer) {
        let before = staged.remaining_bytes();
        while staged.remaining_bytes() - before < STAGED_SMALL_BYTES {
            if !self.large.is_empty() && self.small_bytes_since_chunk >= SMALL_BYTES_PER_CHUNK {
                break;
            }
            let Some(queued) = self.small.pop_front() else { break };
            let start = staged.remaining_bytes();
            self.stage_message(queued, staged);
            self.small_bytes_since_chunk += staged.remaining_bytes() - start;
        }
        if self.large.is_empty() {
            self.small_bytes_since_chunk = 0;
        }
    }

    fn stage_message(&mut self, queued: Queued, staged: &mut WriteBuffer) {
        let Queued { id, message, stage } = queued;
        let mut payload_follows = message.payload_bytes > 0;
        if let Stage::Head { eager } = stage {
            staged.append(&message.header(id, eager));
            staged.append(&message.metadata);
            self.queued_bytes -= message.metadata.len() as u64;
            payload_follows &= eager;
        }
        let is_small = message.payload_bytes <= MAX_SMALL_BYTES;
        self.note_sent(id, message.payload_bytes == 0 || (payload_follows && is_small));
        if payload_follows && is_small {
            self.queued_bytes -= message.payload_bytes;
            self.staged_payload_bytes += message.payload_bytes;
            stage_data(id, message.payload_bytes, &mut message.payload.into(), &mut 0, self.checksum, staged);
        } else if payload_follows {
            self.large.push_back(Transfer::new(id, message));
        } else if message.payload_bytes > 0 {
            self.waiting.insert(id, message);
        }
    }

    /// The head of a message was staged, or all that is left of it.
    fn note_sent(&mut self, id: u64, is_whole: bool) {
        self.own_calls.advance(id, if is_whole { Progress::Whole } else { Progress::Begun });
        if is_whole {
            self.peer_calls.answer_sent(id);
            self.unsent.release(id);
        }
    }

    fn stage_chunk(&mut self, staged: &mut WriteBuffer) {
        let Some(mut transfer) = self.large.pop_front() else { return };
        let (id, bytes) = (transfer.id, transfer.remaining_bytes.min(MAX_CHUNK_BYTES));
        stage_data(id, bytes, &mut transfer.pieces, &mut transfer.copied_bytes, self.checksum, staged);
        transfer.remaining_bytes -= bytes;
        self.staged_payload_bytes += bytes;
        self.queued_bytes -= bytes;
        self.small_bytes_since_chunk = 0;
        if transfer.remaining_bytes > 0 {
            self.large.push_back(transfer);
        } else {
            self.note_sent(transfer.id, true);
        }
    }

    fn stage_farewell(&mut self, staged: &mut WriteBuffer) {
        if let Farewell::Queued(goodbye) = &self.farewell {
            staged.append(&goodbye.encode_frame());
            self.farewell = Farewell::WriteBuffer;
        }
    }

    /// The limits that messages to the peer must keep: `None` before its hello.
    pub fn peer_limits(&self) -> Option<Limits> {
        self.peer.as_ref().map(|peer| peer.limits)
    }
}

/// Drops a message when no lock is held any more: its buffers may have owners of the user's.
fn drop_message(message: Message) {
    message.payload.into_iter().for_each(drop_buffer_later);
}

/// Whether the server has a call that a resume asked for, and answers it.
fn is_held(answer: CallAnswer) -> bool {
    matches!(answer, CallAnswer::Done | CallAnswer::Running)
}

impl Transfer {
    fn new(id: u64, message: Message) -> Transfer {
        let remaining_bytes = message.payload_bytes;
        let pieces = message.payload.into_iter().filter(|piece| !piece.is_empty()).collect();
        Transfer { id, pieces, remaining_bytes, copied_bytes: 0 }
    }
}

/// Stages one data frame with the next `bytes` bytes of `pieces`, and removes them from there. `copied_bytes` counts what
/// was copied of the whole message.
fn stage_data(
    id: u64,
    bytes: u64,
    pieces: &mut VecDeque<Buffer>,
    copied_bytes: &mut usize,
    checksum: bool,
    staged: &mut WriteBuffer,
) {
    let crc = checksum.then(|| checksum_of_first(pieces, bytes as usize));
    staged.append(&Header::data(id, bytes, crc).encode());
    let mut left = bytes as usize;
    while left > 0 {
        let Some(mut piece) = pieces.pop_front() else { break };
        if piece.len() > left {
            pieces.push_front(piece.slice(left..));
            piece = piece.slice(..left);
        }
        left -= piece.len();
        if piece.len() <= MAX_COPIED_BYTES && *copied_bytes + piece.len() <= MAX_COPIED_BYTES_PER_MESSAGE {
            *copied_bytes += piece.len();
            staged.append(&piece);
            drop_buffer_later(piece);
        } else {
            staged.share(piece);
        }
    }
}

/// The checksum of the first `bytes` bytes of `pieces`.
fn checksum_of_first(pieces: &VecDeque<Buffer>, mut bytes: usize) -> u32 {
    let mut crc = 0;
    for piece in pieces {
        // Not to walk over all pieces of the message for each of its chunks.
        if bytes == 0 {
            break;
        }
        let counted = piece.len().min(bytes);
        bytes -= counted;
        crc = teleport_wire::checksum(crc, &piece[..counted]);
    }
    crc
}

/// Reaches the sending half from the receiving one, for a moment.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_message_of_small_pieces_little_is_copied_however_many_chunks_it_has() {
        let mut pieces: VecDeque<Buffer> = (0..4096).map(|_| Buffer::zeroed(1024)).collect();
        let (mut copied_bytes, mut staged) = (0, WriteBuffer::default());
        for _ in 0..4 {
            stage_data(1, MAX_CHUNK_BYTES, &mut pieces, &mut copied_bytes, false, &mut staged);
        }
        assert!(pieces.is_empty());
        assert_eq!(copied_bytes, MAX_COPIED_BYTES_PER_MESSAGE);
        assert_eq!(staged.remaining_bytes(), (4 << 20) + 4 * Header::BYTES);
    }

    #[test]
    fn the_checksum_of_a_chunk_is_that_of_its_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        let pieces: VecDeque<Buffer> = bytes.chunks(100).map(Buffer::copy_from).collect();
        for n in [0, 1, 99, 100, 101, 200, 255, 256] {
            assert_eq!(checksum_of_first(&pieces, n), teleport_wire::checksum(0, &bytes[..n]), "{n}");
        }
    }
}
