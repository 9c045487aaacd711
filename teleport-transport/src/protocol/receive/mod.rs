//! What a connection receives: which frames are legal now, and where their bytes belong.
//!
//! Flow: `receive` offers the open message's own memory and the poller's read-ahead buffer to one read -> bytes that fell
//! into place are only counted, the rest goes through the [`Decoder`] -> [`Session`] judges each frame -> [`Event`]s for
//! the layer above, changes to the [`Outbound`] half.
//!
//! Never touches a socket, reads a clock or waits. Bounds: calls by `max_open_calls`, payload by eager credit and
//! grants, one metadata by `max_metadata_bytes`, that of all calls by `max_structure_bytes`; each is checked before memory
//! is taken, the last before it is kept.

mod message;
mod signature_cache;
mod table;

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{
    CallMetadata, Decoder, ErrorKind, Goodbye, Header, Hello, Kind, Message, Order, Ran, RemoteError,
    ResultMetadata, Resume, ResumeAnswer, Signature, Sink,
};

use self::message::{Deadline, Incoming, MAX_SEGMENTS_PER_READ, Plan, Subject, Unplaced, Whole};
use self::signature_cache::SignatureCache;
use self::table::Messages;
use super::calls::StructureOverrun;
use super::error::{Closed, ProtocolError};
use super::event::{Call, Event, Gate, Reply};
use super::keepalive::Keepalive;
use super::ledger::ReturnedCredit;
use super::min_rate::{Pace, Sight, SlowCalls};
use super::send::SharedOutbound;
use crate::config::{Config, MAX_TIME};
use crate::memory::budget::Charge;
use crate::role::Role;

/// Of a frame that has not come whole, more than this counts as memory that others may wait for; in steps of as much.
const UNCHARGED_BODY_BYTES: u64 = 64 << 10;

/// What one [`Inbound::receive`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes that came.
    pub bytes: usize,
    /// Whether the socket gave as much as it was asked for, and so may hold more.
    pub filled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the peer's preface and hello.
    Handshake,
    Open,
    /// The peer said goodbye: nothing may follow.
    Finished,
}

/// The receiving half of a connection, without I/O.
#[derive(Debug)]
pub struct Inbound {
    decoder: Decoder,
    reception: Reception,
    liveness: Keepalive,
    /// None where the peer may be as slow as it likes.
    pace: Option<Pace>,
    /// Calls that were given up for their pace and that nobody was told of yet.
    slow: SlowCalls,
    /// What pays for an unfinished frame, if that is large, and the window in which it came to be.
    body: Option<(u32, Charge)>,
}

#[derive(Debug)]
struct Reception {
    role: Role,
    config: Arc<Config>,
    phase: Phase,
    messages: Messages,
    /// The message that the open chunk belongs to, and the chunk's length and checksum.
    chunk: Chunk,
    /// Where leases of eager messages return their bytes.
    credit: Arc<ReturnedCredit>,
    signatures: SignatureCache,
    /// Payload that came since the connection began.
    received_bytes: u64,
    /// Counts the windows of `Inbound::pace`.
    window: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    id: u64,
    bytes: usize,
    crc: Option<u32>,
}

impl Inbound {
    pub(super) fn new(role: Role, config: Arc<Config>, credit: Arc<ReturnedCredit>, now: Instant) -> Inbound {
        Inbound {
            decoder: Decoder::new(&config.limits),
            liveness: Keepalive::new(&config, now),
            pace: Pace::new(role, &config),
            slow: SlowCalls::default(),
            body: None,
            reception: Reception {
                role,
                config,
                phase: Phase::Handshake,
                messages: Messages::default(),
                chunk: Chunk::default(),
                credit,
                signatures: SignatureCache::default(),
                received_bytes: 0,
                window: 0,
            },
        }
    }

    /// Reads once and takes in what came. `read` is offered the memory that the open message belongs in and, as the last
    /// segment, `ahead`; it returns as `readv` does,
    /// and may fail with `WouldBlock` or `Interrupted`. Events are appended to `events`.
    ///
    /// # Errors
    /// Why the connection is over: what `read` returned (0 bytes are the end of the stream), or the peer broke a rule.
    pub fn receive(
        &mut self,
        now: Instant,
        ahead: &mut [u8],
        outbound: &impl SharedOutbound,
        gate: &dyn Gate,
        events: &mut Vec<Event>,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<Received, Closed> {
        let (in_place, ahead_bytes, asked) = self.read_once(ahead, read)?;
        if in_place + ahead_bytes == 0 {
            return Ok(Received { bytes: 0, filled: asked == 0 });
        }
        self.liveness.received(now);
        let mut session = Session { reception: &mut self.reception, outbound, gate, events, now };
        if in_place > 0 {
            session.reception.place(in_place);
            self.decoder.advance(in_place, &mut session)?;
        }
        let before = self.decoder.collected_bytes();
        self.decoder.feed(&ahead[..ahead_bytes], &mut session)?;
        self.reception.received_bytes += self.decoder.collected_bytes().saturating_sub(before) as u64;
        let bytes = in_place + ahead_bytes;
        Ok(Received { bytes, filled: bytes == asked })
    }

    /// One read: bytes that went to their place, bytes in `ahead`, and bytes asked for.
    fn read_once(
        &mut self,
        ahead: &mut [u8],
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<(usize, usize, usize), Closed> {
        let remaining = self.decoder.chunk_remaining();
        let messages = &mut self.reception.messages;
        let open = if remaining == 0 { None } else { messages.get_mut(self.reception.chunk.id) };
        if let Some(message) = open {
            // Within a message only the next header is read ahead, so that no payload lands there to be copied out.
            let ahead_len =
                if message.has_more_chunks() { ahead.len().min(Header::BYTES) } else { ahead.len() };
            let mut place = message.place();
            let mut slices = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let (filled, offered) = place.slices(remaining, &mut slices);
            if offered > 0 {
                let mut all: [IoSliceMut<'_>; MAX_SEGMENTS_PER_READ + 1] =
                    std::array::from_fn(|_| IoSliceMut::new(&mut []));
                for (slot, slice) in all.iter_mut().zip(slices) {
                    *slot = slice;
                }
                let (read, ahead_len) = if offered == remaining {
                    all[filled] = IoSliceMut::new(&mut ahead[..ahead_len]);
                    (read(&mut all[..=filled]), ahead_len)
                } else {
                    (read(&mut all[..filled]), 0)
                };
                let outcome = outcome(read, offered, ahead_len);
                place.filled(outcome.as_ref().map_or(0, |(in_place, ..)| *in_place));
                return outcome;
            }
        }
        // Between two chunks as within one: a sender whose write ended with the chunk sends payload right after the next
        // header, again and again.
        let header = self.decoder.header_remaining();
        let last = self.reception.messages.get(self.reception.chunk.id);
        let more = header > 0 && last.is_some_and(|last| !last.is_dropped() && last.has_more_chunks());
        let ahead_len = if more { ahead.len().min(header) } else { ahead.len() };
        outcome(read(&mut [IoSliceMut::new(&mut ahead[..ahead_len])]), 0, ahead_len)
    }

    /// Grants the memory of a message that waits for it, paid by `charge` where there is a budget: tells the peer to send it.
    pub fn grant(&mut self, id: u64, charge: Option<Charge>, outbound: &impl SharedOutbound) {
        // If the message was withdrawn meanwhile, or replaced by another, the charge is given back at once.
        if let Some(message) = self.reception.messages.get_mut(id)
            && message.admit(charge)
        {
            message.note_window(self.reception.window);
            outbound.with(|outbound| outbound.grant(id));
        }
    }

    /// The memory in bytes that message `id` waits for; none if it has been granted, is gone, or has not begun.
    pub fn wanted_bytes(&self, id: u64) -> Option<u64> {
        let message = self.reception.messages.get(id)?;
        (!message.is_admitted() && !message.is_dropped()).then(|| message.memory_bytes())
    }

    /// Whether both sides have said hello and neither goodbye.
    pub fn is_open(&self) -> bool {
        self.reception.phase == Phase::Open
    }

    /// When `handle_timeout` wants to be called next.
    pub fn next_timeout(&self) -> Instant {
        self.liveness.next_timeout(self.reception.phase == Phase::Handshake)
    }

    /// Sends a ping or gives the connection up, where it is time to. Call it after all that has arrived was received.
    ///
    /// # Errors
    /// The peer has been silent for too long.
    pub fn handle_timeout(&mut self, now: Instant, outbound: &impl SharedOutbound) -> Result<(), Closed> {
        if let Some(token) = self.liveness.handle_timeout(now, self.reception.phase == Phase::Handshake)? {
            outbound.with(|outbound| outbound.ping(token));
        }
        Ok(())
    }

    /// Whether [`handle_pace`](Inbound::handle_pace) ever does anything.
    pub fn has_pace(&self) -> bool {
        self.pace.is_some()
    }

    /// Has a frame that has not come whole paid for, if it is large and has grown; true if it is the first time.
    pub fn settle_body(&mut self, charge: impl FnOnce(u64) -> Charge) -> bool {
        let collected_bytes = self.decoder.collected_bytes() as u64;
        if collected_bytes <= UNCHARGED_BODY_BYTES {
            self.body = None;
            return false;
        }
        let bytes = collected_bytes.next_multiple_of(UNCHARGED_BODY_BYTES);
        let held = self.body.take();
        let is_new = held.is_none();
        self.body = Some(match held {
            Some((window, held)) if held.bytes() == bytes => (window, held),
            held => (held.map_or(self.reception.window, |(window, _)| window), charge(bytes)),
        });
        is_new
    }

    /// Looks whether the peer crawls with memory that others wait for, and ends what does; gives when to look again, or none
    /// while the connection holds no memory of a budget. `unwritten_bytes` are staged and not taken by the socket.
    ///
    /// # Errors
    /// A frame came too slowly: the connection cannot go on.
    pub fn handle_pace(
        &mut self,
        now: Instant,
        unwritten_bytes: u64,
        outbound: &impl SharedOutbound,
        others_wait: impl FnOnce() -> bool,
    ) -> Result<Option<Instant>, Closed> {
        let Some(pace) = &mut self.pace else { return Ok(None) };
        let receives = self.body.is_some()
            || self.reception.messages.iter().any(|message| message.holds_charge_before(u32::MAX));
        if !receives && !outbound.with(|outbound| outbound.holds_charges()) {
            pace.rest();
            return Ok(None);
        }
        if let Some(end) = pace.window_ends().filter(|end| now < *end) {
            return Ok(Some(end));
        }
        let staged_bytes = outbound.with(|outbound| outbound.staged_payload_bytes());
        let sight = Sight {
            received_bytes: self.reception.received_bytes,
            sent_bytes: staged_bytes.saturating_sub(unwritten_bytes),
            others_wait: others_wait(),
        };
        let slow = pace.look(now, sight);
        if slow.receiving {
            if self.body.as_ref().is_some_and(|(window, _)| *window < self.reception.window) {
                return Err(Closed::TooSlow { min_rate: pace.min_rate() });
            }
            let error = pace.error("the arguments came", Ran::No);
            self.slow.arguments += self.reception.give_up_slow(&error, outbound);
        }
        let error = slow.sending.then(|| pace.error("the result was fetched", Ran::Yes));
        self.slow.results += outbound.with(|outbound| outbound.end_window(error.as_ref()));
        self.reception.window += 1;
        Ok(pace.window_ends())
    }

    /// What is to come of the chunk that has begun, in bytes.
    pub fn chunk_remaining(&self) -> usize {
        self.decoder.chunk_remaining()
    }

    /// The calls that were given up for their pace since this was asked last.
    pub fn take_slow(&mut self) -> SlowCalls {
        std::mem::take(&mut self.slow)
    }

    /// Drops every message whose payload has not come to its end, with what pays for it: nothing comes any more.
    pub fn discard(&mut self) {
        self.reception.messages = Messages::default();
        self.body = None;
    }

    /// Messages whose payload has not come to its end.
    pub fn unfinished(&self) -> usize {
        self.reception.messages.len()
    }
}

/// What a read came to that was offered so many bytes in place and ahead: bytes that went to their place, bytes behind
/// them, and bytes asked for.
fn outcome(
    read: io::Result<usize>,
    offered: usize,
    ahead_len: usize,
) -> Result<(usize, usize, usize), Closed> {
    match read {
        Ok(0) => Err(Closed::Lost { error: None }),
        Ok(bytes) => Ok((bytes.min(offered), bytes.saturating_sub(offered), offered + ahead_len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0, 0, 1)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((0, 0, 0)),
        Err(error) => Err(Closed::Lost { error: Some(error) }),
    }
}

impl Reception {
    /// Ends the messages that were half received before this window began, and gives how many that were.
    fn give_up_slow(&mut self, error: &RemoteError, outbound: &impl SharedOutbound) -> usize {
        let mut given_up = 0;
        for (id, message) in self.messages.iter_mut() {
            if message.holds_charge_before(self.window) {
                message.give_up();
                // Fails when the connection closes: nobody waits for the answer then.
                let _ = outbound.with(|outbound| outbound.push_answer(id, Message::error(error)));
                given_up += 1;
            }
        }
        given_up
    }

    fn place(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
        if let Some(message) = self.messages.get_mut(self.chunk.id) {
            message.placed(bytes);
        }
    }
}

/// One call of `receive`: the reception with all that a frame may change.
struct Session<'a, O> {
    reception: &'a mut Reception,
    outbound: &'a O,
    gate: &'a dyn Gate,
    events: &'a mut Vec<Event>,
    now: Instant,
}

impl<O: SharedOutbound> Sink for Session<'_, O> {
    type Error = ProtocolError;

    fn preface(&mut self) -> Result<(), ProtocolError> {
        Ok(())
    }

    /// Bodies are collected for those only who have introduced themselves.
    fn header(&mut self, header: &Header) -> Result<(), ProtocolError> {
        match (self.reception.phase, header.kind) {
            (Phase::Handshake, Kind::Hello | Kind::Goodbye) | (Phase::Open, _) => Ok(()),
            (Phase::Handshake, kind) => Err(ProtocolError::BeforeHello { kind }),
            (Phase::Finished, kind) => Err(ProtocolError::AfterGoodbye { kind }),
        }
    }

    fn frame(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        match (self.reception.phase, header.kind) {
            (Phase::Handshake, Kind::Hello) => self.hello(body),
            (Phase::Handshake | Phase::Open, Kind::Goodbye) => self.goodbye(header, body),
            (Phase::Open, _) => self.open_frame(header, body),
            (Phase::Handshake, kind) => Err(ProtocolError::BeforeHello { kind }),
            (Phase::Finished, kind) => Err(ProtocolError::AfterGoodbye { kind }),
        }
    }

    fn begin_chunk(&mut self, header: &Header) -> Result<(), ProtocolError> {
        let (id, kind, role) = (header.id, Kind::Data, self.reception.role);
        match self.reception.phase {
            Phase::Handshake => return Err(ProtocolError::BeforeHello { kind }),
            Phase::Finished => return Err(ProtocolError::AfterGoodbye { kind }),
            // No hello of ours offers shared memory.
            Phase::Open if header.is_shared() => return Err(ProtocolError::NotAllowed { kind, role }),
            Phase::Open => {}
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
        if let Err(unplaced) = message.find_place(self.gate, &self.reception.config) {
            self.refuse_place(id, unplaced)?;
        }
        self.reception.chunk = Chunk {
            id,
            bytes: header.length as usize,
            crc: header.has_checksum().then_some(header.body_crc),
        };
        Ok(())
    }

    fn chunk_bytes(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.reception.received_bytes += bytes.len() as u64;
        if let Some(message) = self.reception.messages.get_mut(self.reception.chunk.id) {
            message.copy(bytes);
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), ProtocolError> {
        let Chunk { id, bytes, crc } = self.reception.chunk;
        let Some(message) = self.reception.messages.get_mut(id) else { return Ok(()) };
        if let Some(expected) = crc
            && message.checksum_of_last(bytes).is_some_and(|found| found != expected)
        {
            self.corrupt(id)?;
        }
        if self.reception.messages.get(id).is_some_and(|message| message.is_complete())
            && let Some(message) = self.reception.messages.remove(id)
        {
            self.complete(id, message);
        }
        Ok(())
    }
}

impl<O: SharedOutbound> Session<'_, O> {
    fn hello(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        let hello = Hello::decode(body)?;
        self.reception.phase = Phase::Open;
        self.outbound.with(|outbound| outbound.peer_hello(hello.clone()));
        self.events.push(Event::Open(hello));
        Ok(())
    }

    fn goodbye(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        self.reception.phase = Phase::Finished;
        self.events.push(Event::Goodbye(Goodbye::decode(header, body)?));
        Ok(())
    }

    fn open_frame(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        let id = header.id;
        match (header.kind, self.reception.role) {
            (Kind::Call, Role::Server) => self.call(header, body),
            (Kind::Result, Role::Client) => self.result(header, body),
            (Kind::Error, Role::Client) => self.error(id, body),
            (Kind::Cancel, Role::Server) => self.cancel(id),
            (Kind::Abort, _) => self.abort(id),
            (Kind::Ping, _) => {
                self.outbound.with(|outbound| outbound.pong(id));
                Ok(())
            }
            (Kind::Pong, _) => Ok(()),
            (Kind::Credit, _) => self.outbound.with(|outbound| outbound.credited(id)),
            (Kind::Grant, _) => {
                let mut ids = teleport_wire::decode_ids(body)?;
                self.outbound.with(|outbound| ids.try_for_each(|id| outbound.granted(id)))
            }
            (Kind::Ack, _) if self.resumes() => {
                let ids: Vec<u64> = teleport_wire::decode_ids(body)?.collect();
                self.outbound.with(|outbound| outbound.acknowledged(&ids))?;
                self.events.push(Event::Acknowledged { ids });
                Ok(())
            }
            (Kind::Resume, Role::Server) if self.resumes() => {
                let resume = Resume::decode(body)?;
                self.outbound.with(|outbound| outbound.resume_arrived(&resume))?;
                self.events.push(Event::Resume(resume));
                Ok(())
            }
            (Kind::ResumeAnswer, Role::Client) if self.resumes() => {
                let ResumeAnswer { calls } = ResumeAnswer::decode(body)?;
                self.outbound.with(|outbound| outbound.resume_answered(&calls))?;
                self.events.push(Event::Resumed { calls });
                Ok(())
            }
            (kind, role) => Err(ProtocolError::NotAllowed { kind, role }),
        }
    }

    /// Whether both sides can resume.
    fn resumes(&self) -> bool {
        self.outbound.with(|outbound| outbound.resumes())
    }

    fn call(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        let id = header.id;
        let metadata = CallMetadata::decode(body)?;
        let (signature, order) = self.tree(metadata.signature, metadata.order)?;
        let structure_bytes = signature.structure_bytes();
        let config = &self.reception.config;
        // Calls that were refused are unfinished until the client has taken note, and no longer open.
        let max_unfinished = config.max_open_calls as usize * 2;
        if signature.memory_bytes() > 0 && self.reception.messages.len() >= max_unfinished {
            return Err(ProtocolError::TooManyCalls { max_open_calls: config.max_open_calls });
        }
        let eager_bytes = eager_bytes(header, &signature)?;
        let (overrun, resumes) = self.outbound.with(|outbound| {
            outbound.call_in_turn()?;
            let overrun = outbound.call_arrived(id, structure_bytes, config)?;
            outbound.eager_arrived(eager_bytes)?;
            Ok::<_, ProtocolError>((overrun, outbound.resumes()))
        })?;
        let admitted = match overrun {
            Some(overrun) => Err(overloaded(overrun)),
            None => {
                let admitted = self.gate.admit(metadata.head.method, signature.payload_bytes());
                admitted.and_then(|slot| self.gate.admit_tree(slot, &signature).map(|()| slot))
            }
        };
        let deadline = metadata.head.deadline.map(|time| Deadline { arrived: self.now, time });
        let idempotent = metadata.head.idempotent;
        let resume = metadata.head.resume && resumes;
        let slot = *admitted.as_ref().unwrap_or(&0);
        let subject = Subject::Call { slot, deadline, idempotent, resume };
        let plan = Plan { subject, signature, order };
        let Err(error) = admitted else {
            self.begin(id, plan, header.is_eager());
            return Ok(());
        };
        self.answer(id, &error);
        // Without a grant none of its payload comes; the entry stays until the client has taken note.
        self.begin_dropped(id, plan, header.is_eager());
        Ok(())
    }

    fn result(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        let id = header.id;
        let metadata = ResultMetadata::decode(body)?;
        let (signature, order) = self.tree(metadata.signature, metadata.order)?;
        let eager_bytes = eager_bytes(header, &signature)?;
        let is_awaited = self.outbound.with(|outbound| {
            let is_awaited = outbound.result_arrived(id)?;
            outbound.eager_arrived(eager_bytes)?;
            Ok::<_, ProtocolError>(is_awaited)
        })?;
        let plan = Plan { subject: Subject::Answer, signature, order };
        if is_awaited {
            self.begin(id, plan, header.is_eager());
            return Ok(());
        }
        self.begin_dropped(id, plan, header.is_eager());
        // The server cannot let go of it otherwise.
        if let Some(message) = self.reception.messages.get_mut(id)
            && message.admit(None)
        {
            self.outbound.with(|outbound| outbound.grant(id));
        }
        Ok(())
    }

    fn tree(&mut self, signature: &[u8], order: &[u8]) -> Result<(Arc<Signature>, Order), ProtocolError> {
        let reception = &mut *self.reception;
        let signature = reception.signatures.decoded(signature, &reception.config.limits)?;
        let order = Order::decode(order, &signature)?;
        Ok((signature, order))
    }

    /// A message's head is legal: completes it, or makes ready for its payload.
    fn begin(&mut self, id: u64, plan: Plan, is_eager: bool) {
        let mut message = Incoming::new(plan);
        if is_eager {
            message.admit_eager(&self.reception.credit);
        }
        let bytes = message.memory_bytes();
        if bytes == 0 {
            // It is whole, but a call may have a row all the same.
            return match message.find_place(self.gate, &self.reception.config) {
                Ok(()) => self.complete(id, message),
                Err(unplaced) => self.answer(id, &refusal(unplaced)),
            };
        }
        if !message.is_admitted() {
            self.events.push(Event::Wants { id, bytes });
        }
        self.reception.messages.insert(id, message);
    }

    /// A message's head is legal, and nobody wants it: what comes of its payload will be dropped.
    fn begin_dropped(&mut self, id: u64, plan: Plan, is_eager: bool) {
        let mut message = Incoming::dropped(plan);
        if is_eager {
            message.admit_eager(&self.reception.credit);
        }
        if message.memory_bytes() > 0 {
            self.reception.messages.insert(id, message);
        }
    }

    fn answer(&mut self, id: u64, error: &RemoteError) {
        // Fails only when the call is gone or the connection closes: nobody waits for the answer then.
        let _ = self.outbound.with(|outbound| outbound.push_answer(id, Message::error(error)));
    }

    /// No place for a message that was admitted. A call is answered; a client's future learns it too.
    fn refuse_place(&mut self, id: u64, unplaced: Unplaced) -> Result<(), ProtocolError> {
        self.drop_message(id, refusal(unplaced))
    }

    fn corrupt(&mut self, id: u64) -> Result<(), ProtocolError> {
        let text = "the payload's checksum does not match: bytes were changed on the way";
        self.drop_message(id, RemoteError::new(ErrorKind::Checksum, Ran::No, text))
    }

    fn drop_message(&mut self, id: u64, error: RemoteError) -> Result<(), ProtocolError> {
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
        Ok(())
    }

    fn error(&mut self, id: u64, body: &[u8]) -> Result<(), ProtocolError> {
        let error = RemoteError::decode(body)?;
        if self.outbound.with(|outbound| outbound.error_arrived(id))? {
            self.events.push(Event::Answer { id, answer: Err(error) });
        }
        Ok(())
    }

    fn cancel(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.known(Kind::Cancel, id)?;
        // One that is not whole is withdrawn by an abort.
        if !self.reception.messages.contains(id) {
            self.events.push(Event::Cancel { id });
        }
        Ok(())
    }

    /// The sender gave up a message that it had begun.
    fn abort(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.known(Kind::Abort, id)?;
        let Some(message) = self.reception.messages.remove(id) else { return Ok(()) };
        let is_awaited = !message.is_dropped();
        match self.reception.role {
            Role::Server => self.outbound.with(|outbound| outbound.call_aborted(id)),
            Role::Client => self.outbound.with(|outbound| outbound.result_aborted(id, is_awaited)),
        }
        if is_awaited && !message.is_admitted() {
            self.events.push(Event::Withdrawn { id });
        }
        Ok(())
    }

    /// Refuses a frame about a call that was never made; about one that is gone, it may have crossed something of ours.
    fn known(&self, kind: Kind, id: u64) -> Result<(), ProtocolError> {
        let is_known = self.outbound.with(|outbound| outbound.is_known(id));
        if is_known { Ok(()) } else { Err(ProtocolError::UnknownId { kind, id }) }
    }

    fn complete(&mut self, id: u64, message: Incoming) {
        if self.reception.role == Role::Client {
            self.outbound.with(|outbound| outbound.result_completed(id));
        }
        let Some(Whole { subject, tree, lease, row }) = message.finish() else { return };
        self.events.push(match subject {
            Subject::Call { slot, deadline, idempotent, resume } => {
                let deadline = deadline.map(|deadline| deadline.arrived + deadline.time.min(MAX_TIME));
                Event::Call(Call { id, slot, tree, row, deadline, idempotent, resume, lease })
            }
            Subject::Answer => Event::Answer { id, answer: Ok(Reply { tree, lease }) },
        });
    }
}

/// What an eager message takes of the credit that this side gave; nothing of one that waits for a grant.
fn eager_bytes(header: &Header, signature: &Signature) -> Result<u64, ProtocolError> {
    match signature.memory_bytes() as u64 {
        _ if !header.is_eager() => Ok(0),
        0 => Err(ProtocolError::EagerWithoutPayload { id: header.id }),
        bytes => Ok(bytes),
    }
}

fn refusal(unplaced: Unplaced) -> RemoteError {
    match unplaced {
        Unplaced::Refused(error) => error,
        Unplaced::Memory(error) => RemoteError::new(ErrorKind::Overloaded, Ran::No, error.to_string()),
    }
}

fn overloaded(overrun: StructureOverrun) -> RemoteError {
    let StructureOverrun { bytes, held_bytes, max_bytes } = overrun;
    let text = format!(
        "names, shapes and nodes of this call take {bytes} bytes beside the {held_bytes} of calls that have no answer yet, \
         past the server's {max_bytes} per connection (`max_structure_bytes`): make fewer at once, or calls of fewer nodes"
    );
    RemoteError::new(ErrorKind::Overloaded, Ran::No, text)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use teleport_wire::{Array, CallHead, Hello, Limits, Message, Preface, Tree, encode_frame};

    use super::*;
    use crate::protocol::{Outbound, halves};

    struct AllowAll;

    impl Gate for AllowAll {
        fn admit(&self, _: &str, _: u64) -> Result<u32, RemoteError> {
            Ok(0)
        }
    }

    /// Bytes that `inbound` had read to where they must be copied from, of those that come with one write.
    fn read_ahead(inbound: &mut Inbound, outbound: &RefCell<Outbound>, mut written: &[u8]) -> usize {
        let (mut ahead, copied) = ([0; 16 << 10], Cell::new(0));
        let place = ahead.as_ptr().addr()..ahead.as_ptr().addr() + ahead.len();
        while !written.is_empty() {
            let read = |slices: &mut [IoSliceMut<'_>]| {
                let bytes = io::Read::read_vectored(&mut written, slices)?;
                let before = slices.iter().take_while(|slice| !place.contains(&slice.as_ptr().addr()));
                copied.set(copied.get() + bytes.saturating_sub(before.map(|slice| slice.len()).sum()));
                Ok(bytes)
            };
            let (now, events) = (Instant::now(), &mut Vec::new());
            inbound.receive(now, &mut ahead, outbound, &AllowAll, events, read).expect("the rules are kept");
        }
        copied.get()
    }

    #[test]
    fn of_a_large_message_little_is_copied_where_each_write_ends_with_a_chunk() {
        const CHUNK: usize = 1 << 20;
        let (mut inbound, outbound) = halves(Role::Server, &Arc::default(), Instant::now(), || {});
        let outbound = RefCell::new(outbound);
        let hello: Hello = Config::default().hello(Role::Client);
        let start = [&Preface::BYTES[..], &encode_frame(Kind::Hello, 0, &hello.encode())].concat();
        read_ahead(&mut inbound, &outbound, &start);

        let tree = Tree::Array(Array::zeros::<u8>([8 * CHUNK]));
        let call = Message::call(&CallHead::new("m"), &tree, &Limits::default()).expect("it is small");
        read_ahead(&mut inbound, &outbound, &[&call.header(1, false)[..], &call.metadata].concat());
        inbound.grant(1, None, &outbound);
        let write = [&Header::data(1, CHUNK as u64, None).encode()[..], &vec![0; CHUNK]].concat();
        let copied: Vec<usize> = (0..8).map(|_| read_ahead(&mut inbound, &outbound, &write)).collect();
        assert_eq!(copied[0], 16 << 10);
        assert_eq!(copied[1..], [Header::BYTES; 7], "headers only");
    }
}
