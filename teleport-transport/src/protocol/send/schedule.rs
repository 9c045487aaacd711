//! The order in which messages are staged.
//!
//! Small messages keep their order. Large payloads take turns, one chunk each, after the small messages.
//! After `SMALL_BYTES_PER_CHUNK` of small messages one chunk is sent first, so that neither kind starves.
//! Knows only ids. Bound: one place for each message that may be staged.

use std::collections::VecDeque;

/// A large payload gets one chunk after this many bytes of small messages.
const SMALL_BYTES_PER_CHUNK: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Messages whose head is not staged, and small payloads that were granted.
    small: VecDeque<u64>,
    /// Messages whose large payload may be staged.
    large: VecDeque<u64>,
    small_bytes_since_chunk: usize,
}

impl Schedule {
    pub(super) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    pub(super) fn push_small(&mut self, id: u64) {
        self.small.push_back(id);
    }

    pub(super) fn push_large(&mut self, id: u64) {
        self.large.push_back(id);
    }

    /// Removes a message that is not sent any more.
    pub(super) fn remove(&mut self, id: u64) {
        for lane in [&mut self.small, &mut self.large] {
            if let Some(index) = lane.iter().position(|queued| *queued == id) {
                lane.remove(index);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.small.clear();
        self.large.clear();
    }

    fn is_chunk_due(&self) -> bool {
        self.small_bytes_since_chunk >= SMALL_BYTES_PER_CHUNK
    }

    /// Returns the next small message, unless it is a chunk's turn.
    pub(super) fn next_small(&mut self) -> Option<u64> {
        if !self.large.is_empty() && self.is_chunk_due() { None } else { self.small.pop_front() }
    }

    /// Counts the staged bytes of a small message.
    pub(super) fn on_small(&mut self, bytes: usize) {
        let counts = !self.large.is_empty();
        self.small_bytes_since_chunk = if counts { self.small_bytes_since_chunk + bytes } else { 0 };
    }

    /// Returns the next message with a large payload, if it is its turn. Put it back while it has more.
    pub(super) fn next_large(&mut self) -> Option<u64> {
        let id = if self.small.is_empty() || self.is_chunk_due() { self.large.pop_front() } else { None };
        if id.is_some() {
            self.small_bytes_since_chunk = 0;
        }
        id
    }
}
