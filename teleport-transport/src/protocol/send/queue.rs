//! The send queue: messages with their calls, control frames, and the ledger.
//!
//! Flow: `encode` writes a small message of a known shape, `push` the head of any other one, and a small
//! payload -> `stage` moves what is written to the
//! writer, and writes chunks of large payloads. The peer's answers, grants and aborts change both the calls
//! and their messages. Never touches a socket, and copies no large array. Bound: the open calls.

use teleport_wire::{Draft, FrameSizes, Kind, Message, RemoteError};

use super::control::Control;
use super::outgoing::Outgoing;
use super::payload::{MAX_SMALL_BYTES, Payload, drop_message};
use super::schedule::Schedule;
use super::write_buffer::WriteBuffer;
use super::{NewCall, Withdrawn};
use crate::config::Config;
use crate::protocol::calls::{Calls, Progress};
use crate::protocol::error::{ProtocolError, SendError};
use crate::protocol::ledger::Ledger;
use crate::role::Role;

/// The bytes of small messages that are staged at once. A ping or grant that is queued later waits behind
/// them.
const MAX_STAGED_SMALL_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(in crate::protocol) struct Queue {
    role: Role,
    pub(in crate::protocol) calls: Calls,
    pub(in crate::protocol) control: Control,
    pub(in crate::protocol) ledger: Ledger,
    outgoing: Outgoing,
    schedule: Schedule,
    /// Payload is sent with checksums, because this side or the peer requires it.
    pub(super) checksum: bool,
    /// Counts the windows of the minimum rate.
    window: u32,
}

/// What was dropped of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    Nothing,
    /// All of it: the peer never learns of it.
    All,
    /// The rest of it: the peer knows the head.
    Rest,
}

impl Queue {
    pub(super) fn new(role: Role, config: &Config, ledger: Ledger) -> Queue {
        Queue {
            role,
            calls: Calls::default(),
            control: Control::default(),
            ledger,
            outgoing: Outgoing::default(),
            schedule: Schedule::default(),
            checksum: config.checksum,
            window: 0,
        }
    }

    /// Returns true if `stage` would stage anything.
    pub(super) fn has_frames(&self) -> bool {
        !self.outgoing.is_empty() || !self.schedule.is_empty() || self.control.has_frames()
    }

    /// Returns true if all messages are staged completely. Otherwise some may wait for a grant.
    pub(super) fn is_empty(&self) -> bool {
        self.ledger.queued_bytes() == 0
    }

    // ---- Messages of this side ----

    /// Encodes a small call of a known shape where it is queued. `register` gets the size of its payload.
    ///
    /// # Errors
    /// Fails if it must be encoded first, or if `register` refuses it.
    #[inline]
    pub(super) fn encode_call(&mut self, id: u64, call: &mut impl NewCall) -> Result<(), SendError> {
        let max_memory_bytes = self.ledger.credit_bytes();
        let sizes = self.outgoing.encode(id, &call.draft(), max_memory_bytes, self.checksum);
        let sizes = sizes.ok_or(SendError::Unencoded)?;
        if !call.register(id, u64::from(sizes.payload_bytes)) {
            self.outgoing.cut(id);
            return Err(SendError::Refused);
        }
        self.count(sizes);
        self.calls.begin(id, None);
        Ok(())
    }

    /// Encodes a small result of a known shape where it is queued.
    ///
    /// # Errors
    /// Fails if it must be encoded first, or if the call was answered or is gone.
    #[inline]
    pub(super) fn encode_answer(&mut self, id: u64, draft: &Draft<'_>) -> Result<(), SendError> {
        let max_memory_bytes = self.ledger.max_uncharged_bytes();
        let sizes = self.outgoing.encode(id, draft, max_memory_bytes, self.checksum);
        let sizes = sizes.ok_or(SendError::Unencoded)?;
        if !self.calls.end_with_answer(id) {
            self.outgoing.cut(id);
            return Err(SendError::NotOpen { id });
        }
        self.count(sizes);
        Ok(())
    }

    /// Counts an eager message in one frame.
    #[inline]
    fn count(&mut self, sizes: FrameSizes) {
        let bytes = u64::from(sizes.metadata_bytes) + u64::from(sizes.payload_bytes);
        self.ledger.queue(bytes, sizes.memory_bytes);
    }

    /// Queues a call.
    pub(super) fn push_call(&mut self, id: u64, message: Message) {
        let is_eager = self.ledger.is_eager(&message);
        let rest = self.write(id, message, is_eager, false);
        self.calls.begin(id, rest);
    }

    /// Queues the answer to a call, and charges it if it is large. Returns false if the call was answered or
    /// is gone.
    pub(super) fn push_answer(&mut self, id: u64, message: Message) -> bool {
        let is_eager = self.ledger.is_eager(&message);
        let payload_bytes = message.payload_bytes();
        let is_whole = payload_bytes == 0 || (is_eager && payload_bytes <= MAX_SMALL_BYTES);
        if !(if is_whole { self.calls.end_with_answer(id) } else { self.calls.answer(id) }) {
            drop_message(message);
            return false;
        }
        let is_charged = self.ledger.charge_result(id, &message, self.window);
        if let Some(rest) = self.write(id, message, is_eager, is_charged) {
            self.calls.keep_rest(id, rest);
        }
        true
    }

    /// Writes the head of a message, and its payload if that is eager and small. Returns the rest.
    fn write(&mut self, id: u64, message: Message, is_eager: bool, is_noted: bool) -> Option<Box<Payload>> {
        let bytes = message.payload_bytes() + message.metadata().len() as u64;
        self.ledger.queue(bytes, if is_eager { message.memory_bytes() } else { 0 });
        self.outgoing.write(id, message, is_eager, self.checksum, is_noted)
    }

    /// Replaces an answer that is not staged completely. Returns false if there is none.
    pub(super) fn replace_answer(&mut self, id: u64, error: &RemoteError) -> bool {
        if self.role == Role::Client || self.calls.is_unanswered(id) {
            return false;
        }
        match self.drop_answer(id) {
            Dropped::Nothing => return false,
            Dropped::All => {}
            Dropped::Rest => self.control.add().aborts.push(id),
        }
        self.write(id, Message::error(error), false, false);
        true
    }

    /// Withdraws a client's call as far as that is still possible.
    pub(super) fn withdraw(&mut self, id: u64) -> Withdrawn {
        let Some((progress, rest)) = self.calls.withdraw(id) else { return Withdrawn::NotOpen };
        match progress {
            Progress::Queued => {
                self.drop_unstaged(id, rest);
                Withdrawn::NeverSent
            }
            Progress::Begun => {
                self.drop_unstaged(id, rest);
                self.control.add().aborts.push(id);
                Withdrawn::Aborted
            }
            _ => {
                self.control.add().cancels.push(id);
                Withdrawn::Requested
            }
        }
    }

    /// Drops what is not staged of an answer.
    fn drop_answer(&mut self, id: u64) -> Dropped {
        let rest = self.calls.remove(id);
        self.ledger.release_result(id);
        self.drop_unstaged(id, rest)
    }

    /// Drops what is not staged of a message: what is written of it, and `rest`.
    fn drop_unstaged(&mut self, id: u64, rest: Option<Box<Payload>>) -> Dropped {
        let written = self.outgoing.cut(id);
        if let Some(written) = &written {
            self.ledger.unqueue(written.queued_bytes(), written.eager_bytes);
        }
        let dropped = match (&written, &rest) {
            (Some(written), _) if written.has_head() => Dropped::All,
            (None, None) => Dropped::Nothing,
            _ => Dropped::Rest,
        };
        if let Some(rest) = rest {
            self.ledger.unqueue(rest.remaining_bytes(), 0);
            self.schedule.remove(id);
            rest.drop_later();
        }
        dropped
    }

    /// Drops all messages and control frames.
    pub(super) fn discard(&mut self) {
        self.control = Control::default();
        self.schedule.clear();
        self.outgoing.clear();
        self.calls.discard().into_iter().for_each(Payload::drop_later);
        self.ledger.clear();
    }

    // ---- What the peer sent ----

    /// The head of a call arrived. Returns false if there is no room for its structure.
    #[inline]
    pub(in crate::protocol) fn on_call(
        &mut self,
        id: u64,
        structure_bytes: u64,
        config: &Config,
    ) -> Result<bool, ProtocolError> {
        if self.calls.is_known(id) && self.outgoing.has(id) {
            return Err(self.calls.reused(id));
        }
        let (ledger, answers) = (&self.ledger, self.outgoing.whole());
        self.calls.on_call(id, structure_bytes, answers, config, |bytes| ledger.charge(bytes))
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
        let (is_awaited, progress, rest) = self.calls.on_error(id)?;
        if progress == Progress::Begun && self.drop_unstaged(id, rest) == Dropped::Rest {
            self.control.add().aborts.push(id);
        }
        Ok(is_awaited)
    }

    /// The peer gave up a result that it had begun.
    pub(in crate::protocol) fn on_result_abort(&mut self, id: u64, is_awaited: bool) {
        self.control.forget_grant(id);
        self.calls.on_result_abort(id, is_awaited);
    }

    /// The peer gave up a call that it had not sent completely. Its queued answer is not needed.
    pub(in crate::protocol) fn on_call_abort(&mut self, id: u64) {
        self.control.forget_grant(id);
        self.drop_answer(id);
    }

    /// The payload of a message was granted. A grant may cross the end of its message.
    pub(in crate::protocol) fn on_grant(&mut self, id: u64) -> Result<(), ProtocolError> {
        self.check_known(Kind::Grant, id)?;
        let Some(rest) = self.calls.rest_mut(id) else { return Ok(()) };
        if rest.grant() {
            if rest.remaining_bytes() > MAX_SMALL_BYTES {
                self.schedule.push(id);
            } else if let Some(rest) = self.calls.take_rest(id) {
                self.outgoing.write_rest(id, *rest, self.checksum);
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
        let old = self.ledger.results_older_than(window);
        old.into_iter().filter(|id| self.replace_answer(*id, error)).count()
    }

    // ---- Staging ----

    /// Returns the size of the next chunk of a large payload.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.schedule.chunk_bytes()
    }

    /// Moves the next frames into `buffer`: control frames, then small messages, then at most one chunk.
    pub(super) fn stage(&mut self, buffer: &mut WriteBuffer) {
        self.control.stage(buffer);
        if !self.outgoing.is_empty() {
            self.stage_written(buffer);
        }
        // If the staged metadata is as long as a chunk, the chunk waits for the next call. So a ping that is
        // queued now waits for two chunks at most.
        if buffer.remaining_bytes() < MAX_STAGED_SMALL_BYTES
            && let Some((id, bytes)) = self.schedule.next(!self.outgoing.is_empty())
        {
            self.stage_chunk(id, bytes, buffer);
        }
    }

    /// Stages what is written, as far as a large payload and a ping can wait for it.
    fn stage_written(&mut self, buffer: &mut WriteBuffer) {
        let Queue { calls, ledger, outgoing, schedule, .. } = self;
        let max_bytes = schedule.small_bytes_before_chunk().min(MAX_STAGED_SMALL_BYTES);
        let taken = outgoing.take(max_bytes, buffer, |id| match calls.rest_mut(id) {
            Some(rest) => {
                if rest.on_begun() {
                    schedule.push(id);
                }
            }
            None => {
                calls.on_sent(id);
                ledger.release_result(id);
            }
        });
        if let Some(id) = taken.last_begun_id {
            calls.on_begun(id);
        }
        schedule.on_small(taken.bytes, taken.sums.whole > 0);
        ledger.on_staged(taken.sums.queued_bytes, taken.sums.payload_bytes);
    }

    /// Stages a chunk of a large payload.
    fn stage_chunk(&mut self, id: u64, max_bytes: u64, buffer: &mut WriteBuffer) {
        let Some(rest) = self.calls.rest_mut(id) else { return };
        let bytes = rest.write_chunk(id, max_bytes, self.checksum, buffer);
        self.ledger.on_staged(bytes, bytes);
        if rest.remaining_bytes() > 0 {
            self.schedule.push(id);
        } else {
            self.calls.take_rest(id);
            self.calls.on_sent(id);
            self.ledger.release_result(id);
        }
    }
}
