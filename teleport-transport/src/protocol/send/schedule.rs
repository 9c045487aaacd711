//! When chunks of large payloads are staged, and of which.
//!
//! Large payloads take turns, one chunk each, after the small messages. After `SMALL_BYTES_PER_CHUNK` of
//! small messages one chunk is sent first, so that neither kind starves. Knows only ids. Bound: one place for
//! each large payload that may be sent.

use std::collections::VecDeque;

/// A large payload gets one chunk after this many bytes of small messages.
const SMALL_BYTES_PER_CHUNK: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Messages whose large payload may be staged.
    large: VecDeque<u64>,
    /// Since the last chunk, or since there is a large payload.
    small_bytes_since_chunk: usize,
}

impl Schedule {
    pub(super) fn is_empty(&self) -> bool {
        self.large.is_empty()
    }

    pub(super) fn push(&mut self, id: u64) {
        if self.large.is_empty() {
            self.small_bytes_since_chunk = 0;
        }
        self.large.push_back(id);
    }

    /// Removes a message that is not sent any more.
    pub(super) fn remove(&mut self, id: u64) {
        self.large.retain(|queued| *queued != id);
    }

    pub(super) fn clear(&mut self) {
        self.large.clear();
    }

    /// Returns the bytes of small messages that may be staged before the next chunk.
    pub(super) fn small_bytes_before_chunk(&self) -> usize {
        if self.large.is_empty() {
            usize::MAX
        } else {
            SMALL_BYTES_PER_CHUNK.saturating_sub(self.small_bytes_since_chunk)
        }
    }

    /// Counts the staged bytes of small messages.
    pub(super) fn on_small(&mut self, bytes: usize) {
        self.small_bytes_since_chunk += bytes;
    }

    /// Returns the message whose chunk is next, if it is its turn. `small` messages wait. Put it back while
    /// it has more.
    pub(super) fn next(&mut self, small: bool) -> Option<u64> {
        if small && self.small_bytes_before_chunk() > 0 {
            return None;
        }
        self.small_bytes_since_chunk = 0;
        self.large.pop_front()
    }
}
