//! What came for one direction, on all connections together, and what is to happen at one of its bytes.

use std::ops::Range;

/// The bit that is flipped in a byte that is corrupted.
const FLIPPED: u8 = 0x10;

/// Counts of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes: u64,
    pub(super) payload_bytes: u64,
    /// The number of the byte to change, counted as the two above.
    pub(super) flip_byte: Option<u64>,
    pub(super) flip_payload: Option<u64>,
    /// The direction stalls once so much payload has come.
    pub(super) stall_at: Option<u64>,
}

impl Traffic {
    /// Forgets what was to happen.
    pub(super) fn heal(&mut self) {
        (self.flip_byte, self.flip_payload, self.stall_at) = (None, None, None);
    }

    /// Counts these bytes, and changes the one that is to be changed. Whether the direction is to stall now.
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

/// Where the byte with this number lies in a stretch that begins with number `start`.
fn position(number: Option<u64>, start: u64, len: usize) -> Option<usize> {
    let at = usize::try_from(number?.checked_sub(start)?).ok()?;
    (at < len).then_some(at)
}
