//! The rules for received frames: which are legal now, and what each changes.
//!
//! Flow: the decoder -> [`Session`], which lives for one read -> the incomplete messages, the sending half,
//! and events for the layer above. The heads of calls and results are in [`heads`](super::heads). Knows no
//! socket and no clock.
//!
//! The sending half is locked once a read, when the first frame needs it. It is unlocked before anything that
//! takes long, and before rows are taken or dropped: a batcher's lock precedes it.

use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{
    ErrorKind, Goodbye, Header, Hello, Kind, Message, Ran, RemoteError, Resume, ResumeAnswer, Sink,
};

use super::known::Known;
use super::message::Incoming;
use crate::config::Config;
use crate::protocol::error::ProtocolError;
use crate::protocol::event::{Event, Gate, Ids};
use crate::protocol::id_table::IdTable;
use crate::protocol::ledger::ReturnedCredit;
use crate::protocol::send::{Outbound, SharedOutbound};
use crate::role::Role;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the peer's preface and hello.
    Handshake,
    Open,
    /// The peer said goodbye: nothing may follow.
    Finished,
}

/// The incomplete messages of a connection.
#[derive(Debug)]
pub(super) struct Reception {
    pub(super) role: Role,
    pub(super) config: Arc<Config>,
    phase: Phase,
    /// Messages whose payload is incomplete.
    pub(super) messages: IdTable<Incoming>,
    chunk: Chunk,
    /// The leases of eager messages return their bytes here.
    pub(super) credit: Arc<ReturnedCredit>,
    pub(super) known: Known,
    /// Payload bytes that arrived since the connection began.
    pub(super) received_bytes: u64,
    /// Counts the windows of the minimum rate.
    pub(super) window: u32,
    /// A call with a large structure has begun since this was cleared.
    pub(super) has_new_structure: bool,
}

/// The last chunk, which may be incomplete: its message, length and checksum.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    id: u64,
    bytes: usize,
    crc: Option<u32>,
}

impl Reception {
    pub(super) fn new(role: Role, config: Arc<Config>, credit: Arc<ReturnedCredit>) -> Reception {
        Reception {
            role,
            config,
            phase: Phase::Handshake,
            messages: IdTable::default(),
            chunk: Chunk::default(),
            credit,
            known: Known::default(),
            received_bytes: 0,
            window: 0,
            has_new_structure: false,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshake
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Returns the message of the last chunk, if it is incomplete.
    pub(super) fn open_message(&mut self) -> Option<&mut Incoming> {
        self.messages.get_mut(self.chunk.id)
    }

    /// Counts payload of the open chunk that was read in place.
    pub(super) fn on_placed(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
        if let Some(message) = self.open_message() {
            message.on_placed(bytes);
        }
    }

    /// Ends the messages that began before this window. Returns their number.
    pub(super) fn give_up_slow(&mut self, error: &RemoteError, outbound: &impl SharedOutbound) -> usize {
        let mut given_up = 0;
        for (id, message) in self.messages.iter_mut() {
            if message.holds_charge_before(self.window) {
                message.give_up();
                // Fails if the connection closes; then nobody waits for the answer.
                let _ = outbound.with(|outbound| outbound.send_answer(id, Message::error(error)));
                given_up += 1;
            }
        }
        given_up
    }
}

/// The reception and everything that a frame may change, for one read.
pub(super) struct Session<'a, O: SharedOutbound> {
    pub(super) reception: &'a mut Reception,
    pub(super) sending: Sending<'a, O>,
    pub(super) gate: &'a dyn Gate,
    pub(super) events: &'a mut Vec<Event>,
    pub(super) now: Instant,
}

/// The sending half, which stays locked from its first use on, until it is released.
pub(super) struct Sending<'a, O: SharedOutbound> {
    shared: &'a O,
    locked: Option<O::Guard<'a>>,
    /// There was something to write when the half was unlocked.
    has_work: bool,
}

impl<'a, O: SharedOutbound> Sending<'a, O> {
    pub(super) fn new(shared: &'a O) -> Sending<'a, O> {
        Sending { shared, locked: None, has_work: false }
    }

    #[inline]
    pub(super) fn outbound(&mut self) -> &mut Outbound {
        self.locked.get_or_insert_with(|| self.shared.lock_outbound())
    }

    /// Unlocks the half. Returns true if this read has left something to write.
    pub(super) fn release(&mut self) -> bool {
        if let Some(outbound) = self.locked.take() {
            self.has_work |= outbound.has_work();
        }
        self.has_work
    }
}

impl<O: SharedOutbound> Sink for Session<'_, O> {
    type Error = ProtocolError;

    fn preface(&mut self) -> Result<(), ProtocolError> {
        Ok(())
    }

    /// Refuses an illegal frame before its body is collected.
    fn header(&mut self, header: &Header) -> Result<(), ProtocolError> {
        let kind = header.kind;
        match self.reception.phase {
            Phase::Handshake if matches!(kind, Kind::Hello | Kind::Goodbye) => Ok(()),
            Phase::Handshake => Err(ProtocolError::BeforeHello { kind }),
            Phase::Open => Ok(()),
            Phase::Finished => Err(ProtocolError::AfterGoodbye { kind }),
        }
    }

    fn frame(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        let id = header.id;
        match (header.kind, self.reception.role) {
            (Kind::Hello, _) if self.reception.is_handshaking() => self.on_hello(body)?,
            (Kind::Goodbye, _) => {
                self.reception.phase = Phase::Finished;
                self.events.push(Event::Goodbye(Goodbye::decode(header, body)?));
            }
            (Kind::Error, Role::Client) => self.on_error(id, body)?,
            (Kind::Cancel, Role::Server) => self.on_cancel(id)?,
            (Kind::Abort, _) => self.on_abort(id)?,
            (Kind::Ping, _) => self.sending.outbound().queue.control.add().pong = Some(id),
            (Kind::Pong, _) => {}
            (Kind::Credit, _) => self.sending.outbound().queue.ledger.on_credit(id)?,
            (Kind::Grant, _) => {
                let mut ids = teleport_wire::decode_ids(body)?;
                let queue = &mut self.sending.outbound().queue;
                ids.try_for_each(|id| queue.on_grant(id))?;
            }
            (Kind::Ack, _) if self.resumes() => {
                let ids: Ids = teleport_wire::decode_ids(body)?.collect();
                self.sending.outbound().queue.on_ack(&ids)?;
                self.events.push(Event::Acknowledged { ids });
            }
            (kind @ Kind::Resume, Role::Server) if self.resumes() => {
                let resume = Resume::decode(body)?;
                if !self.sending.outbound().resumption.ask(&resume.calls) {
                    return Err(ProtocolError::OutOfTurn { kind });
                }
                self.events.push(Event::Resume(resume));
            }
            (Kind::ResumeAnswer, Role::Client) if self.resumes() => {
                let ResumeAnswer { calls } = ResumeAnswer::decode(body)?;
                self.sending.outbound().on_resume_answer(&calls)?;
                self.events.push(Event::Resumed { calls });
            }
            (kind, role) => return Err(ProtocolError::NotAllowed { kind, role }),
        }
        Ok(())
    }

    fn message(&mut self, header: &Header, metadata: &[u8], payload: &[u8]) -> Result<(), ProtocolError> {
        let is_complete = match (header.kind, self.reception.role) {
            (Kind::Call, Role::Server) => self.on_call(header, metadata, payload)?,
            (Kind::Result, Role::Client) => self.on_result(header, metadata, payload)?,
            (kind, role) => return Err(ProtocolError::NotAllowed { kind, role }),
        };
        if is_complete || payload.is_empty() { Ok(()) } else { self.on_inline(header, payload) }
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), ProtocolError> {
        self.header(header)?;
        // Memory is taken and payload copied without it.
        self.sending.release();
        let (id, kind, role) = (header.id, Kind::Data, self.reception.role);
        if header.is_shared() {
            // The hello of this side offers no shared memory.
            return Err(ProtocolError::NotAllowed { kind, role });
        }
        let Some(message) = self.reception.messages.get_mut(id) else {
            return Err(ProtocolError::UnknownId { kind, id });
        };
        if !message.is_admitted() {
            return Err(ProtocolError::NotGranted { id });
        }
        if !message.announce(header.length) {
            let bytes = message.payload_bytes();
            return Err(ProtocolError::TooMuchData { id, bytes });
        }
        if let Err(error) = message.find_place(self.gate, &self.reception.config) {
            self.drop_message(id, error);
        }
        let crc = header.has_checksum().then_some(header.body_crc);
        self.reception.chunk = Chunk { id, bytes: header.length as usize, crc };
        Ok(())
    }

    fn chunk_bytes(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.reception.received_bytes += bytes.len() as u64;
        if let Some(message) = self.reception.open_message() {
            message.copy(bytes);
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), ProtocolError> {
        let Chunk { id, bytes, crc } = self.reception.chunk;
        let Some(message) = self.reception.messages.get_mut(id) else { return Ok(()) };
        let is_complete = message.is_complete();
        if let Some(expected) = crc
            && message.checksum_of_last(bytes).is_some_and(|found| found != expected)
        {
            let text = "the payload's checksum does not match: bytes were changed on the way";
            self.drop_message(id, RemoteError::new(ErrorKind::Checksum, Ran::No, text));
        }
        if is_complete && let Some(message) = self.reception.messages.remove(id) {
            self.complete(id, message);
        }
        Ok(())
    }
}

impl<O: SharedOutbound> Session<'_, O> {
    /// The inline payload of a message that is refused or not wanted, or whose checksum is wrong. It is one
    /// chunk.
    #[cold]
    fn on_inline(&mut self, header: &Header, payload: &[u8]) -> Result<(), ProtocolError> {
        self.begin_chunk(&Header::data(header.id, payload.len() as u64, header.payload_crc()))?;
        self.chunk_bytes(payload)?;
        self.end_chunk()
    }

    fn on_hello(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        let hello = Hello::decode(body)?;
        self.reception.phase = Phase::Open;
        self.sending.outbound().on_hello(hello.clone());
        self.events.push(Event::Open(hello));
        Ok(())
    }

    /// Returns true if both sides can resume.
    fn resumes(&mut self) -> bool {
        self.sending.outbound().resumes()
    }

    pub(super) fn answer(&mut self, id: u64, error: &RemoteError) {
        // Fails only if the call is gone or the connection closes; then nobody waits for the answer.
        let _ = self.sending.outbound().send_answer(id, Message::error(error));
    }

    /// Drops the payload of a message that was admitted, and sends its caller the reason.
    fn drop_message(&mut self, id: u64, error: RemoteError) {
        self.sending.release();
        if let Some(message) = self.reception.messages.get_mut(id) {
            message.drop_payload();
        }
        self.fail(id, error);
    }

    /// Sends the caller of a message the reason why its payload is dropped.
    pub(super) fn fail(&mut self, id: u64, error: RemoteError) {
        match self.reception.role {
            Role::Server => self.answer(id, &error),
            Role::Client => {
                let ran = Ran::Yes;
                self.events.push(Event::Answer { id, answer: Err(RemoteError { ran, ..error }) });
            }
        }
    }

    fn on_error(&mut self, id: u64, body: &[u8]) -> Result<(), ProtocolError> {
        let error = RemoteError::decode(body)?;
        if self.sending.outbound().queue.on_error(id)? {
            self.events.push(Event::Answer { id, answer: Err(error) });
        }
        Ok(())
    }

    fn on_cancel(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.sending.outbound().queue.check_known(Kind::Cancel, id)?;
        // An incomplete call is withdrawn by an abort.
        if self.reception.messages.get(id).is_none() {
            self.events.push(Event::Cancel { id });
        }
        Ok(())
    }

    /// The sender gave up a message that it had begun.
    fn on_abort(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.sending.outbound().queue.check_known(Kind::Abort, id)?;
        let Some(message) = self.reception.messages.remove(id) else { return Ok(()) };
        let is_awaited = !message.is_dropped();
        let queue = &mut self.sending.outbound().queue;
        queue.ledger.return_unleased(message.unleased_bytes());
        match self.reception.role {
            Role::Server => queue.on_call_abort(id),
            Role::Client => queue.on_result_abort(id, is_awaited),
        }
        if is_awaited && !message.is_admitted() {
            self.events.push(Event::Withdrawn { id });
        }
        self.sending.release();
        drop(message);
        Ok(())
    }

    fn complete(&mut self, id: u64, message: Incoming) {
        let queue = &mut self.sending.outbound().queue;
        queue.ledger.return_unleased(message.unleased_bytes());
        if self.reception.role == Role::Client {
            queue.calls.on_result_whole(id);
        }
        self.sending.release();
        message.finish(self.events, id);
    }
}
