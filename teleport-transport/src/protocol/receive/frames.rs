//! The rules for received frames: which are legal now, and what each changes.
//!
//! Flow: the decoder -> [`Session`], which lives for one read -> the incomplete messages, the sending half,
//! and events for the layer above. Knows no socket and no clock.

use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{
    CallMetadata, ErrorKind, Goodbye, Header, Hello, Kind, Message, Order, Ran, RemoteError, ResultMetadata,
    Resume, ResumeAnswer, Signature, Sink,
};

use super::message::{Head, HeadKind, Incoming};
use super::signature_cache::SignatureCache;
use crate::config::{Config, MAX_TIME};
use crate::protocol::calls::LARGE_STRUCTURE_BYTES;
use crate::protocol::error::ProtocolError;
use crate::protocol::event::{Event, Gate};
use crate::protocol::id_table::IdTable;
use crate::protocol::ledger::ReturnedCredit;
use crate::protocol::send::SharedOutbound;
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
    role: Role,
    config: Arc<Config>,
    phase: Phase,
    /// Messages whose payload is incomplete.
    pub(super) messages: IdTable<Incoming>,
    chunk: Chunk,
    /// The leases of eager messages return their bytes here.
    credit: Arc<ReturnedCredit>,
    signatures: SignatureCache,
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
            signatures: SignatureCache::default(),
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
pub(super) struct Session<'a, O> {
    pub(super) reception: &'a mut Reception,
    pub(super) outbound: &'a O,
    pub(super) gate: &'a dyn Gate,
    pub(super) events: &'a mut Vec<Event>,
    pub(super) now: Instant,
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
            (Kind::Call, Role::Server) => self.on_call(header, body)?,
            (Kind::Result, Role::Client) => self.on_result(header, body)?,
            (Kind::Error, Role::Client) => self.on_error(id, body)?,
            (Kind::Cancel, Role::Server) => self.on_cancel(id)?,
            (Kind::Abort, _) => self.on_abort(id)?,
            (Kind::Ping, _) => self.outbound.with(|outbound| outbound.queue.control.pong = Some(id)),
            (Kind::Pong, _) => {}
            (Kind::Credit, _) => self.outbound.with(|outbound| outbound.queue.ledger.on_credit(id))?,
            (Kind::Grant, _) => {
                let mut ids = teleport_wire::decode_ids(body)?;
                self.outbound.with(|outbound| ids.try_for_each(|id| outbound.queue.on_grant(id)))?;
            }
            (Kind::Ack, _) if self.resumes() => {
                let ids: Vec<u64> = teleport_wire::decode_ids(body)?.collect();
                self.outbound.with(|outbound| outbound.queue.on_ack(&ids))?;
                self.events.push(Event::Acknowledged { ids });
            }
            (kind @ Kind::Resume, Role::Server) if self.resumes() => {
                let resume = Resume::decode(body)?;
                if !self.outbound.with(|outbound| outbound.resumption.ask(&resume.calls)) {
                    return Err(ProtocolError::OutOfTurn { kind });
                }
                self.events.push(Event::Resume(resume));
            }
            (Kind::ResumeAnswer, Role::Client) if self.resumes() => {
                let ResumeAnswer { calls } = ResumeAnswer::decode(body)?;
                self.outbound.with(|outbound| outbound.on_resume_answer(&calls))?;
                self.events.push(Event::Resumed { calls });
            }
            (kind, role) => return Err(ProtocolError::NotAllowed { kind, role }),
        }
        Ok(())
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), ProtocolError> {
        self.header(header)?;
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
    fn on_hello(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        let hello = Hello::decode(body)?;
        self.reception.phase = Phase::Open;
        self.outbound.with(|outbound| outbound.on_hello(hello.clone()));
        self.events.push(Event::Open(hello));
        Ok(())
    }

    /// Returns true if both sides can resume.
    fn resumes(&self) -> bool {
        self.outbound.with(|outbound| outbound.resumes())
    }

    fn on_call(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        let id = header.id;
        let metadata = CallMetadata::decode(body)?;
        let (signature, order) = self.tree(metadata.signature, metadata.order)?;
        let structure_bytes = signature.structure_bytes();
        let config = &self.reception.config;
        // Refused calls stay unfinished until the client reacts, but are no longer open.
        let max_unfinished = config.max_open_calls as usize * 2;
        if signature.memory_bytes() > 0 && self.reception.messages.len() >= max_unfinished {
            return Err(ProtocolError::TooManyCalls { max_open_calls: config.max_open_calls });
        }
        let eager_bytes = eager_bytes(header, &signature)?;
        let (refusal, resumes) = self.outbound.with(|outbound| {
            if !outbound.resumption.begin_call() {
                return Err(ProtocolError::OutOfTurn { kind: Kind::Call });
            }
            let refusal = outbound.queue.on_call(id, structure_bytes, config)?;
            outbound.queue.ledger.on_eager(eager_bytes)?;
            Ok((refusal, outbound.resumes()))
        })?;
        let admitted = refusal
            .map_or(Ok(()), Err)
            .and_then(|()| self.gate.admit(metadata.head.method, signature.payload_bytes()))
            .and_then(|slot| self.gate.admit_tree(slot, &signature).map(|()| slot));
        let kind = HeadKind::Call {
            slot: *admitted.as_ref().unwrap_or(&0),
            deadline: metadata.head.deadline.map(|time| self.now + time.min(MAX_TIME)),
            idempotent: metadata.head.idempotent,
            resume: metadata.head.resume && resumes,
        };
        let head = Head { kind, signature, order };
        match admitted {
            Ok(_) => {
                self.reception.has_new_structure |= structure_bytes > LARGE_STRUCTURE_BYTES;
                self.begin(id, head, header.is_eager());
            }
            Err(error) => {
                self.answer(id, &error);
                // Without a grant, none of its payload arrives. The entry stays until the client reacts.
                self.begin_dropped(id, head, header.is_eager());
            }
        }
        Ok(())
    }

    fn on_result(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        let id = header.id;
        let metadata = ResultMetadata::decode(body)?;
        let (signature, order) = self.tree(metadata.signature, metadata.order)?;
        let eager_bytes = eager_bytes(header, &signature)?;
        let is_awaited = self.outbound.with(|outbound| {
            let is_awaited = outbound.queue.calls.on_result_head(id)?;
            outbound.queue.ledger.on_eager(eager_bytes)?;
            Ok::<_, ProtocolError>(is_awaited)
        })?;
        let head = Head { kind: HeadKind::Result, signature, order };
        if is_awaited {
            self.begin(id, head, header.is_eager());
            return Ok(());
        }
        self.begin_dropped(id, head, header.is_eager());
        // It is granted anyway, because the server must be able to send the rest.
        if let Some(message) = self.reception.messages.get_mut(id)
            && message.admit(None)
        {
            self.outbound.with(|outbound| outbound.queue.control.grants.push(id));
        }
        Ok(())
    }

    fn tree(&mut self, signature: &[u8], order: &[u8]) -> Result<(Arc<Signature>, Order), ProtocolError> {
        let reception = &mut *self.reception;
        let signature = reception.signatures.decoded(signature, &reception.config.limits)?;
        let order = Order::decode(order, &signature)?;
        Ok((signature, order))
    }

    /// Begins a legal message: completes it, or waits for its payload.
    fn begin(&mut self, id: u64, head: Head, is_eager: bool) {
        let mut message = Incoming::new(head);
        let bytes = message.memory_bytes();
        if bytes == 0 {
            // Without payload it is complete, but a call may still have a row.
            return match message.find_place(self.gate, &self.reception.config) {
                Ok(()) => self.complete(id, message),
                Err(error) => self.answer(id, &error),
            };
        }
        if is_eager {
            message.admit_eager(&self.reception.credit);
        } else {
            self.events.push(Event::Wants { id, bytes });
        }
        self.reception.messages.insert(id, message);
    }

    /// Begins a legal message that nobody wants: drops its payload as it arrives.
    fn begin_dropped(&mut self, id: u64, head: Head, is_eager: bool) {
        let mut message = Incoming::dropped(head);
        if message.memory_bytes() > 0 {
            if is_eager {
                message.admit_eager(&self.reception.credit);
            }
            self.reception.messages.insert(id, message);
        }
    }

    fn answer(&mut self, id: u64, error: &RemoteError) {
        // Fails only if the call is gone or the connection closes; then nobody waits for the answer.
        let _ = self.outbound.with(|outbound| outbound.send_answer(id, Message::error(error)));
    }

    /// Drops the payload of a message that was admitted, and sends its caller the reason.
    fn drop_message(&mut self, id: u64, error: RemoteError) {
        if let Some(message) = self.reception.messages.get_mut(id) {
            message.drop_payload();
        }
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
        if self.outbound.with(|outbound| outbound.queue.on_error(id))? {
            self.events.push(Event::Answer { id, answer: Err(error) });
        }
        Ok(())
    }

    fn on_cancel(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.outbound.with(|outbound| outbound.queue.check_known(Kind::Cancel, id))?;
        // An incomplete call is withdrawn by an abort.
        if self.reception.messages.get(id).is_none() {
            self.events.push(Event::Cancel { id });
        }
        Ok(())
    }

    /// The sender gave up a message that it had begun.
    fn on_abort(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.outbound.with(|outbound| outbound.queue.check_known(Kind::Abort, id))?;
        let Some(message) = self.reception.messages.remove(id) else { return Ok(()) };
        let is_awaited = !message.is_dropped();
        let role = self.reception.role;
        self.outbound.with(|outbound| match role {
            Role::Server => outbound.queue.on_call_abort(id),
            Role::Client => outbound.queue.on_result_abort(id, is_awaited),
        });
        if is_awaited && !message.is_admitted() {
            self.events.push(Event::Withdrawn { id });
        }
        Ok(())
    }

    fn complete(&mut self, id: u64, message: Incoming) {
        if self.reception.role == Role::Client {
            self.outbound.with(|outbound| outbound.queue.calls.on_result_whole(id));
        }
        self.events.extend(message.finish(id));
    }
}

/// Returns the eager credit that a message uses; 0 for one that waits for a grant.
fn eager_bytes(header: &Header, signature: &Signature) -> Result<u64, ProtocolError> {
    match signature.memory_bytes() as u64 {
        _ if !header.is_eager() => Ok(0),
        0 => Err(ProtocolError::EagerWithoutPayload { id: header.id }),
        bytes => Ok(bytes),
    }
}
