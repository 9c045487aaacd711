//! Control frames: they are merged and sent before all messages.
//!
//! Flow: a slot is set -> `stage`. Bound: each slot holds one number, or an id for each open message.

use teleport_wire::{Header, Kind, MAX_IDS, encode_frame, encode_ids};

use super::write_buffer::WriteBuffer;

/// The queued control frames. At most one ping, pong and credit is queued, however often one is requested.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Control {
    pub(in crate::protocol) ping: Option<u64>,
    pub(in crate::protocol) pong: Option<u64>,
    pub(super) credit_bytes: u64,
    pub(in crate::protocol) grants: Vec<u64>,
    pub(super) acks: Vec<u64>,
    /// A resume or its answer, as an encoded frame.
    pub(super) resume: Vec<u8>,
    pub(super) aborts: Vec<u64>,
    pub(super) cancels: Vec<u64>,
}

impl Control {
    pub(super) fn has_frames(&self) -> bool {
        self.ping.is_some()
            || self.pong.is_some()
            || self.credit_bytes > 0
            || !(self.resume.is_empty()
                && self.grants.is_empty()
                && self.acks.is_empty()
                && self.aborts.is_empty()
                && self.cancels.is_empty())
    }

    /// Forgets an unsent grant of a message that is gone. Otherwise grants could pile up behind a peer that
    /// does not read.
    pub(super) fn forget_grant(&mut self, id: u64) {
        self.grants.retain(|granted| *granted != id);
    }

    pub(super) fn stage(&mut self, buffer: &mut WriteBuffer) {
        // Most writes send no control frames.
        if !self.has_frames() {
            return;
        }
        for (kind, token) in [(Kind::Pong, self.pong.take()), (Kind::Ping, self.ping.take())] {
            if let Some(token) = token {
                buffer.append(&Header::empty(kind, token).encode());
            }
        }
        if self.credit_bytes > 0 {
            buffer.append(&Header::empty(Kind::Credit, std::mem::take(&mut self.credit_bytes)).encode());
        }
        buffer.append(&std::mem::take(&mut self.resume));
        for (kind, ids) in [(Kind::Grant, &mut self.grants), (Kind::Ack, &mut self.acks)] {
            for ids in std::mem::take(ids).chunks(MAX_IDS) {
                buffer.append(&encode_frame(kind, 0, &encode_ids(ids)));
            }
        }
        for (kind, ids) in [(Kind::Abort, &mut self.aborts), (Kind::Cancel, &mut self.cancels)] {
            for id in std::mem::take(ids) {
                buffer.append(&Header::empty(kind, id).encode());
            }
        }
    }
}
