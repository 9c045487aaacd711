//! The payload of a message of this side, until it is written.
//!
//! Flow: `Payload::new` -> `on_begun` (its head was staged) and `grant`, in any order -> `write_chunk`, in
//! one data frame or in many. Copies at most a few KiB of array bytes. Drops no buffer while a lock is held:
//! see [`deferred_drop`](crate::memory::deferred_drop).

use std::collections::VecDeque;

use teleport_wire::{Buffer, Header, Message};

use super::write_buffer::WriteBuffer;
use crate::memory::deferred_drop::drop_buffer_later;

/// A payload of up to this size is sent with the small messages, in one frame and in their order.
pub(super) const MAX_SMALL_BYTES: u64 = 64 << 10;

/// A buffer of up to this size is copied behind its header, which costs less than a segment of its own.
const MAX_COPIED_BYTES: usize = 2 << 10;

/// The bytes of one message that are copied behind headers at most.
const MAX_COPIED_BYTES_PER_MESSAGE: usize = 16 << 10;

/// Drops the buffers of a message once no lock is held, since they may run destructors of users.
pub(super) fn drop_message(message: Message) {
    // A payload that was copied has no owner.
    if !message.pieces().is_empty() {
        message.into_pieces().into_iter().for_each(drop_buffer_later);
    }
}

/// The rest of a payload.
#[derive(Debug)]
pub(in crate::protocol) struct Payload {
    /// Invariant: no buffer is empty, and their lengths add up to `remaining_bytes`.
    pieces: VecDeque<Buffer>,
    remaining_bytes: u64,
    /// The head of its message was staged.
    is_begun: bool,
    /// It may be sent, because the peer's credit pays for it or the peer granted it.
    is_granted: bool,
    /// The bytes of the message that were copied behind headers.
    copied_bytes: usize,
}

impl Payload {
    pub(in crate::protocol) fn new(pieces: Vec<Buffer>, remaining_bytes: u64, is_granted: bool) -> Payload {
        Payload { pieces: pieces.into(), remaining_bytes, is_begun: false, is_granted, copied_bytes: 0 }
    }

    pub(super) fn remaining_bytes(&self) -> u64 {
        self.remaining_bytes
    }

    /// Returns true if it is sent in one frame with the small messages.
    pub(super) fn is_small(&self) -> bool {
        self.remaining_bytes <= MAX_SMALL_BYTES
    }

    /// The head of its message was staged. Returns true if the payload may follow.
    pub(super) fn on_begun(&mut self) -> bool {
        self.is_begun = true;
        self.is_granted
    }

    /// The peer granted it. Returns true if it waited for the grant.
    pub(super) fn grant(&mut self) -> bool {
        self.is_begun && !std::mem::replace(&mut self.is_granted, true)
    }

    /// Writes one data frame with at most `max_bytes` of the payload, which a frame may hold. Returns the
    /// number of payload bytes.
    pub(super) fn write_chunk(
        &mut self,
        id: u64,
        max_bytes: u64,
        checksum: bool,
        buffer: &mut WriteBuffer,
    ) -> u64 {
        let bytes = self.remaining_bytes.min(max_bytes);
        let crc = checksum.then(|| self.checksum_of_first(bytes as usize));
        buffer.append(&Header::data(id, bytes, crc).encode());
        let mut left = bytes as usize;
        while left > 0 {
            let Some(mut piece) = self.pieces.pop_front() else { break };
            if piece.len() > left {
                self.pieces.push_front(piece.slice(left..));
                piece = piece.slice(..left);
            }
            left -= piece.len();
            if piece.len() <= MAX_COPIED_BYTES
                && self.copied_bytes + piece.len() <= MAX_COPIED_BYTES_PER_MESSAGE
            {
                self.copied_bytes += piece.len();
                buffer.append(&piece);
                drop_buffer_later(piece);
            } else {
                buffer.share(piece);
            }
        }
        self.remaining_bytes -= bytes;
        bytes
    }

    /// Returns the checksum of the first `bytes` bytes.
    fn checksum_of_first(&self, mut bytes: usize) -> u32 {
        let mut crc = 0;
        for piece in &self.pieces {
            // Fast path: a message of many pieces is not traversed for each of its chunks.
            if bytes == 0 {
                break;
            }
            let counted = piece.len().min(bytes);
            bytes -= counted;
            crc = teleport_wire::checksum(crc, &piece[..counted]);
        }
        crc
    }

    /// Drops the buffers once no lock is held, since they may run destructors of users.
    pub(super) fn drop_later(self) {
        self.pieces.into_iter().for_each(drop_buffer_later);
    }
}

#[cfg(test)]
mod tests {
    use teleport_wire::MAX_CHUNK_BYTES;

    use super::*;

    fn payload(pieces: Vec<Buffer>) -> Payload {
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Payload::new(pieces, bytes, true)
    }

    #[test]
    fn little_is_copied_of_a_message_of_many_small_pieces_and_chunks() {
        let mut payload = payload((0..4096).map(|_| Buffer::zeroed(1024)).collect());
        let mut buffer = WriteBuffer::default();
        for _ in 0..4 {
            assert_eq!(payload.write_chunk(1, MAX_CHUNK_BYTES, false, &mut buffer), MAX_CHUNK_BYTES);
        }
        assert!(payload.pieces.is_empty() && payload.remaining_bytes() == 0);
        assert_eq!(payload.copied_bytes, MAX_COPIED_BYTES_PER_MESSAGE);
        assert_eq!(buffer.remaining_bytes(), (4 << 20) + 4 * Header::BYTES);
    }

    #[test]
    fn the_checksum_of_a_chunk_is_that_of_its_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        let payload = payload(bytes.chunks(100).map(Buffer::copy_from).collect());
        for n in [0, 1, 99, 100, 101, 200, 255, 256] {
            assert_eq!(payload.checksum_of_first(n), teleport_wire::checksum(0, &bytes[..n]), "{n}");
        }
    }
}
