//! The heads of calls and results: their rules, and what becomes of their payload.
//!
//! Flow: known or decoded metadata -> the rules and the gate -> a message whose payload is inline becomes an
//! event at once; any other waits in the table of incomplete messages for its payload, or for a grant. Both
//! ways share all rules and lead to the same state. A message of up to 4 KiB is copied once, from what was
//! read, and holds no lease.

use teleport_wire::{CallMetadata, DecodeError, Header, Kind, RemoteError, Tree, checksum};

use super::frames::Session;
use super::known::Metadata;
use super::message::{Head, HeadKind, Incoming, copy_to_runs, payload_memory};
use crate::config::MAX_TIME;
use crate::memory::rows::Ticket;
use crate::protocol::calls::LARGE_STRUCTURE_BYTES;
use crate::protocol::error::ProtocolError;
use crate::protocol::event::Event;
use crate::protocol::ledger::{Lease, MAX_UNLEASED_BYTES};
use crate::protocol::send::SharedOutbound;

impl<O: SharedOutbound> Session<'_, O> {
    /// The head of a call arrived, with its `payload` if that is inline. Returns true if the call is
    /// complete.
    pub(super) fn on_call(
        &mut self,
        header: &Header,
        body: &[u8],
        payload: &[u8],
    ) -> Result<bool, ProtocolError> {
        let id = header.id;
        let (mut metadata, method) = self.call_metadata(header, body)?;
        let config = &*self.reception.config;
        // Refused calls stay unfinished until the client reacts, but are no longer open.
        let max_unfinished = config.max_open_calls as usize * 2;
        if metadata.memory_bytes > 0 && self.reception.messages.len() >= max_unfinished {
            return Err(ProtocolError::TooManyCalls { max_open_calls: config.max_open_calls });
        }
        let eager_bytes = eager_bytes(header, &metadata, payload)?;
        let outbound = self.sending.outbound();
        if !outbound.resumption.begin_call() {
            return Err(ProtocolError::OutOfTurn { kind: Kind::Call });
        }
        let has_room = outbound.queue.on_call(id, metadata.structure_bytes, config)?;
        outbound.queue.ledger.on_eager(eager_bytes)?;
        let resume = metadata.resume && outbound.resumes();
        let admitted = if has_room {
            self.admit(&mut metadata, method)
        } else {
            Err(outbound.queue.calls.no_room(metadata.structure_bytes, config))
        };
        let kind = HeadKind::Call {
            slot: metadata.slot,
            has_rows: metadata.has_rows,
            deadline: CallMetadata::deadline_of(body).map(|time| self.now + time.min(MAX_TIME)),
            idempotent: metadata.idempotent,
            resume,
        };
        if let Err(error) = admitted {
            self.answer(id, &error);
            // Without a grant, none of its payload arrives. The entry stays until the client reacts.
            self.begin_dropped(header, kind, &metadata);
            return Ok(false);
        }
        self.reception.has_new_structure |= metadata.structure_bytes > LARGE_STRUCTURE_BYTES;
        let whole = whole_payload(header, &metadata, payload);
        let is_complete = self.begin(header, kind, &metadata, whole);
        self.reception.known.keep(metadata);
        Ok(is_complete)
    }

    /// The head of a result arrived, with its `payload` if that is inline. Returns true if the result is
    /// complete.
    pub(super) fn on_result(
        &mut self,
        header: &Header,
        body: &[u8],
        payload: &[u8],
    ) -> Result<bool, ProtocolError> {
        let id = header.id;
        let metadata = self.result_metadata(header, body)?;
        let eager_bytes = eager_bytes(header, &metadata, payload)?;
        let queue = &mut self.sending.outbound().queue;
        queue.ledger.on_eager(eager_bytes)?;
        let whole = whole_payload(header, &metadata, payload);
        let is_awaited = if whole.is_some() {
            queue.calls.on_result_at_once(id)?
        } else {
            queue.calls.on_result_head(id)?
        };
        let is_complete = if is_awaited {
            self.begin(header, HeadKind::Result, &metadata, whole)
        } else {
            self.begin_dropped(header, HeadKind::Result, &metadata);
            // It is granted anyway, because the server must be able to send the rest.
            if let Some(message) = self.reception.messages.get_mut(id)
                && message.admit(None)
            {
                self.sending.outbound().queue.control.add().grants.push(id);
            }
            false
        };
        self.reception.known.keep(metadata);
        Ok(is_complete)
    }

    /// Returns the metadata of a call, and the name of its method if the gate must be asked for it.
    fn call_metadata<'a>(
        &mut self,
        header: &Header,
        body: &'a [u8],
    ) -> Result<(Box<Metadata>, Option<&'a str>), ProtocolError> {
        let reception = &mut *self.reception;
        if let Some(known) = reception.known.take(header, body)? {
            return Ok((known, None));
        }
        self.sending.release();
        let (metadata, method) = reception.known.decode_call(header, body, &reception.config.limits)?;
        Ok((metadata, Some(method)))
    }

    fn result_metadata(&mut self, header: &Header, body: &[u8]) -> Result<Box<Metadata>, ProtocolError> {
        let reception = &mut *self.reception;
        if let Some(known) = reception.known.take(header, body)? {
            return Ok(known);
        }
        self.sending.release();
        Ok(reception.known.decode_result(header, body, &reception.config.limits)?)
    }

    /// Asks the gate about a call. There is no `method` if the gate has admitted the same metadata before.
    fn admit(&mut self, metadata: &mut Metadata, method: Option<&str>) -> Result<(), RemoteError> {
        let gate = self.gate;
        match method {
            None => gate.admit_again(metadata.slot)?,
            Some(method) => {
                metadata.slot = gate.admit(method, metadata.payload_bytes)?;
                metadata.has_rows = gate.has_rows(metadata.slot);
            }
        }
        if metadata.has_rows {
            self.sending.release();
            gate.admit_tree(metadata.slot, &metadata.signature)?;
        }
        Ok(())
    }

    /// Begins a legal message: completes it with its whole payload, or waits for that. Returns true if it is
    /// complete.
    // Inline, as is what it calls: the kind is known at each of its two callers.
    #[inline(always)]
    fn begin(&mut self, header: &Header, kind: HeadKind, metadata: &Metadata, whole: Option<&[u8]>) -> bool {
        let id = header.id;
        if let Some(payload) = whole {
            self.complete_at_once(id, kind, metadata, payload);
            return true;
        }
        self.wait_for_payload(header, kind, metadata);
        false
    }

    #[inline(never)]
    fn wait_for_payload(&mut self, header: &Header, kind: HeadKind, metadata: &Metadata) {
        let id = header.id;
        let mut message = Incoming::new(Head::new(kind, metadata));
        if header.is_eager() {
            message.admit_eager(&self.reception.credit);
        } else {
            self.events.push(Event::Wants { id, bytes: metadata.memory_bytes });
        }
        self.reception.messages.insert(id, message);
    }

    /// Begins a legal message that nobody wants: drops its payload as it arrives.
    #[cold]
    fn begin_dropped(&mut self, header: &Header, kind: HeadKind, metadata: &Metadata) {
        if metadata.memory_bytes > 0 {
            let mut message = Incoming::dropped(Head::new(kind, metadata));
            if header.is_eager() {
                message.admit_eager(&self.reception.credit);
            }
            self.reception.messages.insert(header.id, message);
        }
    }

    /// Completes a message that has arrived whole.
    #[inline(always)]
    fn complete_at_once(&mut self, id: u64, kind: HeadKind, metadata: &Metadata, payload: &[u8]) {
        self.reception.received_bytes += payload.len() as u64;
        let queue = &mut self.sending.outbound().queue;
        if metadata.memory_bytes <= MAX_UNLEASED_BYTES {
            queue.ledger.return_unleased(metadata.memory_bytes);
            if !metadata.has_rows {
                let tree = metadata.signature.build_copied(&metadata.order, payload);
                return kind.report(self.events, id, tree, None, Lease::default());
            }
        }
        self.complete_in_place(id, kind, metadata, payload);
    }

    /// Completes a message that is large, or whose payload has a row.
    #[inline(never)]
    fn complete_in_place(&mut self, id: u64, kind: HeadKind, metadata: &Metadata, payload: &[u8]) {
        self.sending.release();
        let is_small = metadata.memory_bytes <= MAX_UNLEASED_BYTES;
        let credit = &self.reception.credit;
        let mut lease = if is_small { Lease::default() } else { Lease::eager(metadata.memory_bytes, credit) };
        match self.take(metadata, payload, &mut lease) {
            Ok((tree, row)) => kind.report(self.events, id, tree, row, lease),
            Err(error) => self.fail(id, error),
        }
    }

    /// Copies the payload of a whole message to its place: a row, or memory of the pool.
    fn take(
        &mut self,
        metadata: &Metadata,
        payload: &[u8],
        lease: &mut Lease,
    ) -> Result<(Result<Tree, DecodeError>, Option<Ticket>), RemoteError> {
        let Metadata { signature, order, .. } = metadata;
        if metadata.has_rows
            && let Some(ticket) = self.gate.place(metadata.slot, signature, order)?
        {
            ticket.row().push(payload);
            return Ok((Ok(Tree::Null), Some(ticket)));
        }
        let mut memory = payload_memory(&self.reception.config, metadata.memory_bytes, lease)?;
        if let Some(memory) = memory.get_mut() {
            copy_to_runs(signature.runs(), 0, memory, payload);
        }
        Ok((signature.build(order, memory), None))
    }
}

/// Returns the payload of a message that is whole. A payload with a wrong checksum is none.
#[inline]
fn whole_payload<'a>(header: &Header, metadata: &Metadata, payload: &'a [u8]) -> Option<&'a [u8]> {
    let is_right = || header.payload_crc().is_none_or(|crc| checksum(0, payload) == crc);
    (payload.len() as u64 == metadata.payload_bytes && is_right()).then_some(payload)
}

/// Returns the eager credit that a message uses; 0 for one that waits for a grant. An inline payload must be
/// whole.
fn eager_bytes(header: &Header, metadata: &Metadata, payload: &[u8]) -> Result<u64, ProtocolError> {
    let (id, found, bytes) = (header.id, payload.len() as u64, metadata.payload_bytes);
    match metadata.memory_bytes {
        _ if !header.is_eager() => Ok(0),
        0 => Err(ProtocolError::EagerWithoutPayload { id }),
        _ if header.is_inline() && found != bytes => Err(ProtocolError::InlineBytes { id, found, bytes }),
        memory_bytes => Ok(memory_bytes),
    }
}
