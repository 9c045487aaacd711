//! The send queue: messages with their calls, control frames, and the ledger.
//!
//! Flow: `push` -> `stage` -> the write buffer. The peer's answers, grants and aborts change both the calls
//! and their messages. Never touches a socket, and copies no large array. Bound: the open calls.

use teleport_wire::{Kind, Message, RemoteError};

use super::Withdrawn;
use super::control::Control;
use super::schedule::Schedule;
use super::unsent::{MAX_SMALL_BYTES, Payload, Unsent, drop_message};
use super::write_buffer::WriteBuffer;
use crate::config::Config;
use crate::protocol::calls::{Call, Calls, Progress};
use crate::protocol::error::ProtocolError;
use crate::protocol::ledger::Ledger;

/// The bytes of small messages that are staged at once. A ping or grant that is queued later waits behind
/// them.
const MAX_STAGED_SMALL_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(in crate::protocol) struct Queue {
    pub(in crate::protocol) calls: Calls,
    pub(in crate::protocol) control: Control,
    pub(in crate::protocol) ledger: Ledger,
    schedule: Schedule,
    /// Payload is sent with checksums, because this side or the peer requires it.
    pub(super) checksum: bool,
    /// Counts the windows of the minimum rate.
    window: u32,
}

impl Queue {
    pub(super) fn new(config: &Config, ledger: Ledger) -> Queue {
        Queue {
            calls: Calls::default(),
            control: Control::default(),
            ledger,
            schedule: Schedule::default(),
            checksum: config.checksum,
            window: 0,
        }
    }

    /// Returns true if `stage` would stage anything.
    pub(super) fn has_frames(&self) -> bool {
        self.control.has_frames() || !self.schedule.is_empty()
    }

    /// Returns true if all messages are staged completely. Otherwise some may wait for a grant.
    pub(super) fn is_empty(&self) -> bool {
        self.ledger.queued_bytes() == 0
    }

    // ---- Messages of this side ----

    /// Queues a call.
    pub(super) fn push_call(&mut self, id: u64, message: Message) {
        let unsent = self.ledger.queue(message);
        self.calls.begin(id, unsent);
        self.schedule.push_small(id);
    }

    /// Queues the answer to a call, and charges it if it is large. Returns false if the call was answered or
    /// is gone.
    pub(super) fn push_answer(&mut self, id: u64, message: Message) -> bool {
        let Some(call) = self.calls.answer(id) else {
            drop_message(message);
            return false;
        };
        call.charge = self.ledger.charge_result(message.payload_bytes(), message.memory_bytes());
        call.window = self.window;
        call.unsent = Some(self.ledger.queue(message));
        self.schedule.push_small(id);
        true
    }

    /// Replaces an answer that is not staged completely. Returns false if there is none.
    pub(super) fn replace_answer(&mut self, id: u64, error: &RemoteError) -> bool {
        let Some(call) = self.calls.answered_mut(id) else { return false };
        let (Some(unsent), charge) = (call.unsent.take(), call.charge.take()) else { return false };
        if matches!(unsent, Unsent::Payload(_)) {
            self.control.aborts.push(id);
        }
        self.unqueue(id, unsent);
        if let Some(charge) = charge {
            self.ledger.release_result(charge, self.calls.result_charges());
        }
        if let Some(call) = self.calls.get_mut(id) {
            call.unsent = Some(self.ledger.queue(Message::error(error)));
            self.schedule.push_small(id);
        }
        true
    }

    /// Withdraws a client's call as far as that is still possible.
    pub(super) fn withdraw(&mut self, id: u64) -> Withdrawn {
        let Some((progress, unsent)) = self.calls.withdraw(id) else { return Withdrawn::NotOpen };
        if let Some(unsent) = unsent {
            self.unqueue(id, unsent);
        }
        match progress {
            Progress::Queued => Withdrawn::NeverSent,
            Progress::Begun => {
                self.control.aborts.push(id);
                Withdrawn::Aborted
            }
            _ => {
                self.control.cancels.push(id);
                Withdrawn::Requested
            }
        }
    }

    /// Drops the rest of a message.
    fn unqueue(&mut self, id: u64, unsent: Unsent) {
        if let Unsent::Head { message, is_eager: true } = &unsent {
            self.ledger.refund(message.memory_bytes());
        }
        self.ledger.unqueue(unsent.queued_bytes());
        self.schedule.remove(id);
        unsent.drop_later();
    }

    /// Drops all messages and control frames.
    pub(super) fn discard(&mut self) {
        self.control = Control::default();
        self.schedule.clear();
        for call in self.calls.iter_mut() {
            call.charge = None;
            if let Some(unsent) = call.unsent.take() {
                unsent.drop_later();
            }
        }
        self.ledger.clear();
    }

    // ---- What the peer sent ----

    /// The head of a call arrived. Returns a refusal if there is no room for its structure.
    pub(in crate::protocol) fn on_call(
        &mut self,
        id: u64,
        structure_bytes: u64,
        config: &Config,
    ) -> Result<Option<RemoteError>, ProtocolError> {
        let ledger = &self.ledger;
        self.calls.on_call(id, structure_bytes, config, |bytes| ledger.charge(bytes))
    }

    /// The peer acknowledged these complete messages.
    pub(in crate::protocol) fn on_ack(&mut self, ids: &[u64]) -> Result<(), ProtocolError> {
        for id in ids {
            self.check_known(Kind::Ack, *id)?;
            self.calls.on_ack(*id);
        }
        Ok(())
    }

    /// An error arrived. Drops the rest of the call's payload. Returns true if the caller waits for the
    /// error.
    pub(in crate::protocol) fn on_error(&mut self, id: u64) -> Result<bool, ProtocolError> {
        let (is_awaited, unsent) = self.calls.on_error(id)?;
        if let Some(unsent) = unsent {
            self.unqueue(id, unsent);
            self.control.aborts.push(id);
        }
        Ok(is_awaited)
    }

    /// The peer gave up a result that it had begun.
    pub(in crate::protocol) fn on_result_abort(&mut self, id: u64, is_awaited: bool) {
        self.control.forget_grant(id);
        self.calls.on_result_abort(id, is_awaited);
    }

    /// The peer gave up a call that it had not sent completely.
    pub(in crate::protocol) fn on_call_abort(&mut self, id: u64) {
        self.control.forget_grant(id);
        if let Some(call) = self.calls.on_call_abort(id) {
            self.end_call(id, call);
        }
    }

    /// The payload of a message was granted. A grant may cross the end of its message.
    pub(in crate::protocol) fn on_grant(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.check_known(Kind::Grant, id)?;
        if let Some(call) = self.calls.get_mut(id)
            && let Some(Unsent::Payload(payload)) = &mut call.unsent
            && payload.grant()
        {
            if payload.remaining_bytes() <= MAX_SMALL_BYTES {
                self.schedule.push_small(id);
            } else {
                self.schedule.push_large(id);
            }
        }
        Ok(())
    }

    /// Refuses a frame about a call that was never made. A frame about a call that has ended is legal: it may
    /// have crossed a frame of this side.
    pub(in crate::protocol) fn check_known(&self, kind: Kind, id: u64) -> Result<(), ProtocolError> {
        if self.calls.is_known(id) { Ok(()) } else { Err(ProtocolError::UnknownId { kind, id }) }
    }

    /// Ends a window of the minimum rate. If there is an `error`, it replaces the results that were queued
    /// before the window began. Returns the number of replaced results.
    pub(in crate::protocol) fn end_window(&mut self, error: Option<&RemoteError>) -> usize {
        let window = self.window;
        self.window += 1;
        let Some(error) = error else { return 0 };
        let is_old = |call: &Call| call.result_charge_bytes().is_some() && call.window < window;
        let old: Vec<u64> = self.calls.iter().filter(|(_, call)| is_old(call)).map(|(id, _)| id).collect();
        old.into_iter().filter(|id| self.replace_answer(*id, error)).count()
    }

    // ---- Staging ----

    /// Moves the next frames into `buffer`: control frames, then small messages, then at most one chunk.
    pub(super) fn stage(&mut self, buffer: &mut WriteBuffer) {
        self.control.stage(buffer);
        let start = buffer.remaining_bytes();
        while buffer.remaining_bytes() - start < MAX_STAGED_SMALL_BYTES {
            let Some(id) = self.schedule.next_small() else { break };
            let before = buffer.remaining_bytes();
            self.stage_small(id, buffer);
            self.schedule.on_small(buffer.remaining_bytes() - before);
        }
        // If the staged metadata is as long as a chunk, the chunk waits for the next call. So a ping that is
        // queued now waits for two chunks at most.
        if buffer.remaining_bytes() < MAX_STAGED_SMALL_BYTES
            && let Some(id) = self.schedule.next_large()
        {
            self.stage_chunk(id, buffer);
        }
    }

    /// Stages the head of a message, and its payload if that is small and granted.
    fn stage_small(&mut self, id: u64, buffer: &mut WriteBuffer) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let mut payload = match call.unsent.take() {
            Some(Unsent::Head { message, is_eager }) => {
                buffer.append(&message.header(id, is_eager));
                buffer.append(message.metadata());
                self.ledger.unqueue(message.metadata().len() as u64);
                if message.payload_bytes() == 0 {
                    let is_answer = call.on_staged(true);
                    return self.on_staged(id, true, is_answer);
                }
                Payload::new(message, is_eager)
            }
            Some(Unsent::Payload(payload)) => payload,
            None => return,
        };
        let is_small = payload.remaining_bytes() <= MAX_SMALL_BYTES;
        let is_whole = payload.is_granted() && is_small;
        if is_whole {
            let bytes = payload.stage_chunk(id, self.checksum, buffer);
            self.ledger.on_payload_staged(bytes);
        } else {
            if payload.is_granted() {
                self.schedule.push_large(id);
            }
            call.unsent = Some(Unsent::Payload(payload));
        }
        let is_answer = call.on_staged(is_whole);
        self.on_staged(id, is_whole, is_answer);
    }

    /// Stages a chunk of a large payload.
    fn stage_chunk(&mut self, id: u64, buffer: &mut WriteBuffer) {
        let Some(call) = self.calls.get_mut(id) else { return };
        let Some(Unsent::Payload(payload)) = &mut call.unsent else { return };
        let bytes = payload.stage_chunk(id, self.checksum, buffer);
        self.ledger.on_payload_staged(bytes);
        if payload.remaining_bytes() > 0 {
            self.schedule.push_large(id);
        } else {
            call.unsent = None;
            let is_answer = call.on_staged(true);
            self.on_staged(id, true, is_answer);
        }
    }

    /// Called when the head of a message, or the rest of it, was staged.
    fn on_staged(&mut self, id: u64, is_whole: bool, is_answer: bool) {
        if !is_answer {
            self.calls.know(id);
        } else if is_whole && let Some(call) = self.calls.on_answer_staged(id) {
            self.end_call(id, call);
        }
    }

    /// Ends a call of the peer, because its answer was staged completely or is not wanted.
    fn end_call(&mut self, id: u64, call: Call) {
        let is_charged = call.result_charge_bytes().is_some();
        if let Some(unsent) = call.unsent {
            self.unqueue(id, unsent);
        }
        if let Some(charge) = call.charge.filter(|_| is_charged) {
            self.ledger.release_result(charge, self.calls.result_charges());
        }
    }
}
