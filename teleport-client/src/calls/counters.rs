//! Counters of a client, kept under the lock of its state.

use std::time::Instant;

use teleport_transport::Reply;
use teleport_transport::wire::{RemoteError, Tree};

#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) connects: u64,
    pub(crate) sends: u64,
    pub(crate) receives: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    last_reading: Reading,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    sends: u64,
    receives: u64,
}

impl Counters {
    pub(crate) fn new(now: Instant) -> Counters {
        let last_reading = Reading { at: now, sends: 0, receives: 0 };
        Counters { connects: 0, sends: 0, receives: 0, sent_bytes: 0, received_bytes: 0, last_reading }
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sends += 1;
        self.sent_bytes += bytes;
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.receives += 1;
        self.received_bytes += bytes;
    }

    /// Returns sends and receives per second since the last reading, or zeros if no time has passed.
    pub(crate) fn rates(&mut self, now: Instant) -> (f64, f64) {
        let reading = Reading { at: now, sends: self.sends, receives: self.receives };
        let last = std::mem::replace(&mut self.last_reading, reading);
        let seconds = now.saturating_duration_since(last.at).as_secs_f64();
        let rate = |now: u64, before: u64| if seconds > 0.0 { (now - before) as f64 / seconds } else { 0.0 };
        (rate(reading.sends, last.sends), rate(reading.receives, last.receives))
    }
}

/// Returns the bytes of arrays, strings and bytes in an answer.
pub(crate) fn answer_bytes(answer: &Result<Reply, RemoteError>) -> u64 {
    match answer {
        Ok(Reply { tree: Ok(tree), .. }) => payload_bytes(tree),
        _ => 0,
    }
}

/// Does the same as [`Tree::payload_bytes`] without an allocation. The format bounds the depth of the tree.
fn payload_bytes(tree: &Tree) -> u64 {
    match tree {
        Tree::Null => 0,
        Tree::Array(array) => array.buffer().len() as u64,
        Tree::String(text) => text.len() as u64,
        Tree::Bytes(bytes) => bytes.len() as u64,
        Tree::List(list) => list.iter().map(payload_bytes).sum(),
        Tree::Dict(dict) => dict.iter().map(|(_, tree)| payload_bytes(tree)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use teleport_transport::wire::tree;

    #[test]
    fn rates_count_from_the_last_reading() {
        let start = Instant::now();
        let mut counters = Counters::new(start);
        (0..10).for_each(|_| counters.sent(100));
        assert_eq!(counters.rates(start + Duration::from_secs(2)), (5.0, 0.0));
        counters.received(0);
        assert_eq!(counters.rates(start + Duration::from_secs(3)), (0.0, 1.0));
        assert_eq!(counters.rates(start + Duration::from_secs(3)), (0.0, 0.0));
        assert_eq!(counters.sent_bytes, 1000);
    }

    #[test]
    fn payload_bytes_are_those_of_leaves() {
        assert_eq!(payload_bytes(&tree!({"a": 1, "b": ["xyz", null, vec![0f32; 5]]})), 8 + 3 + 20);
    }
}
