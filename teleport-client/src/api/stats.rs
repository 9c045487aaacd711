//! What a client counts, and how that is shown.
//!
//! Flow: counters that any thread adds to -> `read` -> [`ClientStats`]. Rates count from the reading before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::Reply;
use teleport_transport::wire::{RemoteError, Tree};

/// Numbers of a client, of this moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Where the client is connected: the server's address, and its process where that is known; none while it is not.
    pub server: Option<String>,
    /// Futures that are alive, whether or not their result has come.
    pub futures: usize,
    /// Calls that were sent and not answered.
    pub in_flight: usize,
    /// Calls that wait for a free slot or a connection.
    pub waiting: usize,
    /// Bytes of `max_memory` that hold results which were not read, or that are granted to such.
    pub held_bytes: u64,
    /// Bytes of results that were read and of which something is alive: the caller's own memory, which no bound counts.
    /// Results of up to 4 KiB are not in it; of larger ones, one array that is kept keeps the whole result alive.
    pub lent_bytes: u64,
    /// Results that wait at the server for memory, until others are read or somebody waits for them.
    pub awaiting_memory: usize,
    /// How often the client has connected.
    pub connects: u64,
    /// Calls sent.
    pub sends: u64,
    /// Answers received, results and errors.
    pub receives: u64,
    /// Bytes of arrays, strings and bytes sent as arguments.
    pub sent_bytes: u64,
    /// Bytes of arrays, strings and bytes received as results.
    pub received_bytes: u64,
    /// Calls sent per second since the statistics were last read; the first time, since the client was made.
    pub sends_per_second: f64,
    /// Answers received per second, counted alike.
    pub receives_per_second: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connects: AtomicU64,
    pub(crate) sends: AtomicU64,
    pub(crate) receives: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
}

/// Counts of a client. Relaxed throughout: they order nothing.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) counts: Counts,
    last: Mutex<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    sends: u64,
    receives: u64,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Meter {
        Meter { counts: Counts::default(), last: Mutex::new(Reading { at: now, sends: 0, receives: 0 }) }
    }

    pub(crate) fn connected(&self) {
        self.counts.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.counts.sends.fetch_add(1, Ordering::Relaxed);
        self.counts.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, answer: &Result<Reply, RemoteError>) {
        self.counts.receives.fetch_add(1, Ordering::Relaxed);
        if let Ok(Reply { tree: Ok(tree), .. }) = answer {
            self.counts.received_bytes.fetch_add(payload_bytes(tree), Ordering::Relaxed);
        }
    }

    /// Sends and receives per second since the reading before, or zeros if no time has passed.
    pub(crate) fn rates(&self, now: Instant) -> (f64, f64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let reading =
            Reading { at: now, sends: load(&self.counts.sends), receives: load(&self.counts.receives) };
        let last = std::mem::replace(&mut *self.last.lock(), reading);
        let seconds = now.saturating_duration_since(last.at).as_secs_f64();
        let rate = |now: u64, before: u64| if seconds > 0.0 { (now - before) as f64 / seconds } else { 0.0 };
        (rate(reading.sends, last.sends), rate(reading.receives, last.receives))
    }
}

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
    fn rates_count_from_the_reading_before() {
        let start = Instant::now();
        let meter = Meter::new(start);
        (0..10).for_each(|_| meter.sent(100));
        assert_eq!(meter.rates(start + Duration::from_secs(2)), (5.0, 0.0));
        meter.received(&Err(RemoteError::new(
            teleport_transport::wire::ErrorKind::Failed,
            teleport_transport::wire::Ran::Yes,
            "",
        )));
        assert_eq!(meter.rates(start + Duration::from_secs(3)), (0.0, 1.0));
        assert_eq!(meter.rates(start + Duration::from_secs(3)), (0.0, 0.0));
        assert_eq!(meter.counts.sent_bytes.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn payload_is_what_lies_in_leaves() {
        assert_eq!(payload_bytes(&tree!({"a": 1, "b": ["xyz", null, vec![0f32; 5]]})), 8 + 3 + 20);
    }
}
