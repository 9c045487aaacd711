//! The receiving half of a connection: the memory for each read, and the processing of what arrives.
//!
//! Flow: `on_readable` passes one read the memory of the open message and the thread's read-ahead buffer ->
//! bytes that were read in place are only counted, the others go through the [`Decoder`] -> each frame is
//! checked ([`frames`], [`heads`]) -> [`Event`]s for the layer above, and changes to the sending half.
//!
//! Never touches a socket, reads a clock or waits. Bounds: calls by `max_open_calls`, payload by eager
//! credit, grants and 4 KiB for each open call, one metadata by `max_metadata_bytes`, the metadata of all
//! calls by `max_structure_bytes`. Each is checked before memory is taken, except the last, which is checked
//! before the metadata is kept.

mod frames;
mod heads;
mod known;
mod message;
mod read_plan;
mod signature_cache;

use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{Decoder, Ran};

use self::frames::{Reception, Sending, Session};
use super::error::Closed;
use super::event::{Event, Gate};
use super::id_table::IdTable;
use super::keepalive::Keepalive;
use super::ledger::ReturnedCredit;
use super::min_rate::{MinRate, Sample, SlowCalls};
use super::send::SharedOutbound;
use crate::config::Config;
use crate::memory::budget::{Budget, Charge};
use crate::role::Role;

/// An unfinished frame of more bytes than this counts as memory for which others may wait. It is charged in
/// steps of this size.
const UNCHARGED_FRAME_BYTES: u64 = 64 << 10;

/// The result of one [`Inbound::on_readable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The received bytes.
    pub bytes: usize,
    /// The read filled all of its memory, so the socket may have more.
    pub filled: bool,
    /// The read has left something to write.
    pub has_work: bool,
}

/// The receiving half of a connection, without I/O.
#[derive(Debug)]
pub struct Inbound {
    decoder: Decoder,
    reception: Reception,
    keepalive: Keepalive,
    /// `None` if the peer may be arbitrarily slow.
    min_rate: Option<MinRate>,
    /// Calls that were given up because the peer is slow, and not reported yet.
    slow: SlowCalls,
    budget: Option<Budget>,
    /// Pays for a large unfinished frame. Also holds the window in which it was first charged.
    frame_charge: Option<(u32, Charge)>,
}

impl Inbound {
    pub(super) fn new(
        role: Role,
        config: Arc<Config>,
        budget: Option<Budget>,
        credit: Arc<ReturnedCredit>,
        now: Instant,
    ) -> Inbound {
        Inbound {
            decoder: Decoder::new(&config.limits),
            keepalive: Keepalive::new(&config, now),
            min_rate: budget.as_ref().and_then(|_| MinRate::new(role, &config)),
            slow: SlowCalls::default(),
            budget,
            frame_charge: None,
            reception: Reception::new(role, config, credit),
        }
    }

    // ---- What is received ----

    /// Reads once and processes what arrived. `read` gets the memory of the open message and, as the last
    /// segment, `ahead`. It returns as `readv` does, and may fail with `WouldBlock` or `Interrupted`. Events
    /// are appended to `events`.
    ///
    /// # Errors
    /// Returns the reason for the end of the connection: an error or end of stream (0 bytes) from `read`, or
    /// a rule that the peer broke.
    pub fn on_readable(
        &mut self,
        now: Instant,
        ahead: &mut [u8],
        outbound: &impl SharedOutbound,
        gate: &dyn Gate,
        events: &mut Vec<Event>,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<Received, Closed> {
        let message = self.reception.open_message();
        let read = read_plan::read_once(message, &self.decoder, ahead, read)?;
        let bytes = read.in_place + read.ahead;
        if bytes == 0 {
            return Ok(Received { bytes: 0, filled: read.asked == 0, has_work: false });
        }
        self.keepalive.on_received(now);
        let sending = Sending::new(outbound);
        let mut session = Session { reception: &mut self.reception, sending, gate, events, now };
        if read.in_place > 0 {
            session.reception.on_placed(read.in_place);
            self.decoder.advance(read.in_place, &mut session)?;
        }
        let before = self.decoder.collected_bytes();
        self.decoder.feed(&ahead[..read.ahead], &mut session)?;
        session.reception.received_bytes += self.decoder.collected_bytes().saturating_sub(before) as u64;
        let has_work = session.sending.release();
        Ok(Received { bytes, filled: bytes == read.asked, has_work })
    }

    /// Drops all incomplete messages and their charges, because nothing more arrives.
    pub fn discard(&mut self) {
        self.reception.messages = IdTable::default();
        self.frame_charge = None;
    }

    // ---- What is queued ----

    /// Grants a message whose memory is charged: by `charge`, if there is a budget.
    pub fn send_grant(&mut self, id: u64, charge: Option<Charge>, outbound: &impl SharedOutbound) {
        // If the message was withdrawn or replaced by another meanwhile, the charge is released at once.
        if let Some(message) = self.reception.messages.get_mut(id)
            && message.admit(charge)
        {
            message.note_window(self.reception.window);
            outbound.with(|outbound| outbound.queue.control.add().grants.push(id));
        }
    }

    // ---- Time ----

    /// Sends a ping or gives the connection up, if that is due. Call it after receiving everything that has
    /// arrived.
    ///
    /// # Errors
    /// Fails if the peer has been silent for too long.
    pub fn handle_timeout(&mut self, now: Instant, outbound: &impl SharedOutbound) -> Result<(), Closed> {
        if let Some(token) = self.keepalive.handle_timeout(now, self.reception.is_handshaking())? {
            outbound.with(|outbound| outbound.queue.control.add().ping = Some(token));
        }
        Ok(())
    }

    /// Ends calls whose memory the peer moves too slowly while others wait for it. Returns the time of the
    /// next check, or `None` while the connection holds no memory of a budget. `unwritten_bytes` are staged
    /// but not taken by the socket.
    ///
    /// # Errors
    /// Fails if a frame arrives too slowly: the connection cannot continue.
    pub fn handle_rate_timeout(
        &mut self,
        now: Instant,
        unwritten_bytes: u64,
        outbound: &impl SharedOutbound,
        others_wait: impl FnOnce() -> bool,
    ) -> Result<Option<Instant>, Closed> {
        let Some(min_rate) = &mut self.min_rate else { return Ok(None) };
        let receives = self.frame_charge.is_some()
            || self.reception.messages.iter().any(|(_, message)| message.holds_charge_before(u32::MAX));
        let (sends, staged_bytes) = outbound.with(|outbound| {
            (outbound.ledger().result_bytes() > 0, outbound.ledger().staged_payload_bytes())
        });
        if !receives && !sends {
            min_rate.rest();
            return Ok(None);
        }
        if let Some(end) = min_rate.window_end().filter(|end| now < *end) {
            return Ok(Some(end));
        }
        let sample = Sample {
            received_bytes: self.reception.received_bytes,
            sent_bytes: staged_bytes.saturating_sub(unwritten_bytes),
            others_wait: others_wait(),
        };
        let slow = min_rate.end_window(now, sample);
        if slow.receiving {
            if self.frame_charge.as_ref().is_some_and(|(window, _)| *window < self.reception.window) {
                return Err(Closed::TooSlow { min_rate: min_rate.bytes_per_second() });
            }
            let error = min_rate.error("the arguments came", Ran::No);
            self.slow.arguments += self.reception.give_up_slow(&error, outbound);
        }
        let error = slow.sending.then(|| min_rate.error("the result was fetched", Ran::Yes));
        self.slow.results += outbound.with(|outbound| outbound.queue.end_window(error.as_ref()));
        self.reception.window += 1;
        Ok(min_rate.window_end())
    }

    // ---- Answers ----

    /// Returns the next time at which [`handle_timeout`](Inbound::handle_timeout) must be called.
    pub fn poll_timeout(&self) -> Instant {
        self.keepalive.poll_timeout(self.reception.is_handshaking())
    }

    /// Returns true if [`handle_rate_timeout`](Inbound::handle_rate_timeout) has any effect.
    pub fn has_min_rate(&self) -> bool {
        self.min_rate.is_some()
    }

    /// Returns the calls that were given up because the peer is slow, since the last call of this.
    pub fn poll_slow_calls(&mut self) -> SlowCalls {
        std::mem::take(&mut self.slow)
    }

    /// Charges an incomplete frame if it is large and has grown. Returns true if, since the last call of
    /// this, the connection began to hold memory of the budget for a frame or for the structure of a call.
    pub fn poll_charged(&mut self) -> bool {
        let began = std::mem::take(&mut self.reception.has_new_structure);
        let collected_bytes = self.decoder.collected_bytes() as u64;
        let Some(budget) = self.budget.as_ref().filter(|_| collected_bytes > UNCHARGED_FRAME_BYTES) else {
            self.frame_charge = None;
            return began;
        };
        let bytes = collected_bytes.next_multiple_of(UNCHARGED_FRAME_BYTES);
        let held = self.frame_charge.take();
        let is_new = held.is_none();
        self.frame_charge = Some(match held {
            Some((window, charge)) if charge.bytes() == bytes => (window, charge),
            held => {
                let window = held.map_or(self.reception.window, |(window, _)| window);
                (window, budget.charge_anyway(bytes))
            }
        });
        began || is_new
    }

    /// Returns the bytes of memory that message `id` waits for, or `None` if it was granted, is gone, or has
    /// not begun.
    pub fn wanted_bytes(&self, id: u64) -> Option<u64> {
        let message = self.reception.messages.get(id)?;
        (!message.is_admitted() && !message.is_dropped()).then(|| message.memory_bytes())
    }

    /// Returns true if both sides have sent a hello and neither a goodbye.
    pub fn is_open(&self) -> bool {
        self.reception.is_open()
    }

    /// Returns the missing bytes of the open chunk.
    pub fn chunk_remaining(&self) -> usize {
        self.decoder.chunk_remaining()
    }

    /// Returns the number of incomplete messages.
    pub fn unfinished(&self) -> usize {
        self.reception.messages.len()
    }
}
