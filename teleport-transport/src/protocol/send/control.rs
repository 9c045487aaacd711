//! Control frames: they are merged and sent before all messages.
//!
//! Flow: a slot is set -> `stage`. Bound: each slot holds one number, or an id for each open message.

use teleport_wire::{Header, Kind, MAX_IDS};

use super::write_buffer::WriteBuffer;

/// The queued control frames.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Control {
    frames: Frames,
    /// Invariant: false if there are none, and true until they are staged. One flag, because each write asks.
    has_frames: bool,
}

/// The contents of the queued frames, by kind. At most one ping, pong and credit is queued, however often one
/// is requested.
#[derive(Debug, Default)]
pub(in crate::protocol) struct Frames {
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
    /// Returns the queued frames, to add one.
    pub(in crate::protocol) fn add(&mut self) -> &mut Frames {
        self.has_frames = true;
        &mut self.frames
    }

    pub(super) fn has_frames(&self) -> bool {
        self.has_frames
    }

    /// Forgets an unsent grant of a message that is gone. Otherwise grants could pile up behind a peer that
    /// does not read.
    pub(super) fn forget_grant(&mut self, id: u64) {
        if self.has_frames {
            self.frames.grants.retain(|granted| *granted != id);
            self.has_frames = !self.frames.is_empty();
        }
    }

    pub(super) fn stage(&mut self, buffer: &mut WriteBuffer) {
        if std::mem::take(&mut self.has_frames) {
            self.frames.stage(buffer);
        }
    }
}

impl Frames {
    fn is_empty(&self) -> bool {
        self.ping.is_none()
            && self.pong.is_none()
            && self.credit_bytes == 0
            && self.grants.is_empty()
            && self.acks.is_empty()
            && self.resume.is_empty()
            && self.aborts.is_empty()
            && self.cancels.is_empty()
    }

    #[cold]
    #[inline(never)]
    fn stage(&mut self, buffer: &mut WriteBuffer) {
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
            for ids in ids.chunks(MAX_IDS) {
                buffer.append_with(|out| append_ids(kind, ids, out));
            }
            ids.clear();
        }
        for (kind, ids) in [(Kind::Abort, &mut self.aborts), (Kind::Cancel, &mut self.cancels)] {
            for id in std::mem::take(ids) {
                buffer.append(&Header::empty(kind, id).encode());
            }
        }
    }
}

/// Appends a frame whose body is a list of ids.
fn append_ids(kind: Kind, ids: &[u64], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; Header::BYTES]);
    ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
    let (header, body) = out[start..].split_at_mut(Header::BYTES);
    header.copy_from_slice(&Header::of_body(kind, 0, body).encode());
}
