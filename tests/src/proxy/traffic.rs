//! Counts the bytes of one direction over all connections, and applies faults at certain bytes.

use std::ops::Range;

/// The bit to flip in a byte that is corrupted.
const FLIPPED: u8 = 0x10;

/// Counts and pending faults of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) payload_bytes: u64,
    /// The number of the byte to change, by the count in `bytes`.
    pub(super) flip_byte: Option<u64>,
    /// The number of the byte to change, by the count in `payload_bytes`.
    pub(super) flip_payload: Option<u64>,
    /// The direction stalls once `payload_bytes` reaches this number.
    pub(super) stall_at: Option<u64>,
}

impl Traffic {
    /// Removes the pending faults.
    pub(super) fn heal(&mut self) {
        (self.flip_byte, self.flip_payload, self.stall_at) = (None, None, None);
    }

    /// Counts `bytes` and flips a bit if a fault is due. Returns true if the direction must stall now.
    pub(super) fn count(&mut self, bytes: &mut [u8], payload: &[Range<usize>]) -> bool {
        if let Some(at) = position(self.flip_byte, self.bytes, bytes.len()) {
            bytes[at] ^= FLIPPED;
            self.flip_byte = None;
        }
        self.bytes += bytes.len() as u64;
        for range in payload {
            if let Some(at) = position(self.flip_payload, self.payload_bytes, range.len()) {
                bytes[range.start + at] ^= FLIPPED;
                self.flip_payload = None;
            }
            self.payload_bytes += range.len() as u64;
        }
        self.stall_at.take_if(|at| self.payload_bytes >= *at).is_some()
    }
}

/// Returns the index of the byte with this number in a range that begins at number `start`.
fn position(number: Option<u64>, start: u64, len: usize) -> Option<usize> {
    let at = usize::try_from(number?.checked_sub(start)?).ok()?;
    (at < len).then_some(at)
}
