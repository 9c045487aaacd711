//! What connections may send without asking, out of a part of the server's memory that is theirs alone.
//!
//! Flow: `reserve` when a client connects -> the configuration that tells it its credit, and a [`Reservation`] that is kept
//! until the connection has ended. The more connections there are the less a new one gets, down to nothing: then all of
//! its messages wait for a grant, and nobody is refused. Never waits. Bound: `CREDIT_PART` of the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use teleport_transport::Config;

/// The part of `max_memory` that eager credit may amount to.
const CREDIT_PART: u64 = 4;

/// The part of that up to which a connection gets all that is configured.
const ROOMY_PART: u64 = 2;

/// What a connection gets when there are many: enough to keep small calls at one trip.
const TIGHT_BYTES: u64 = 64 << 10;

/// What is left of `max_memory` for grants and results when all credit is given.
pub(crate) fn memory_beside_credit(max_memory: u64) -> u64 {
    max_memory - max_memory / CREDIT_PART
}

/// Eager credit of all connections of a server.
#[derive(Debug)]
pub(crate) struct Credit {
    max_bytes: u64,
    /// Invariant: the sum of all reservations, at most `max_bytes`.
    reserved_bytes: Arc<AtomicU64>,
    roomy: Arc<Config>,
    tight: Arc<Config>,
    none: Arc<Config>,
}

/// Credit of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    bytes: u64,
    reserved_bytes: Arc<AtomicU64>,
}

impl Credit {
    pub(crate) fn new(max_memory: u64, config: Config) -> Credit {
        let with = |eager_credit_bytes| Arc::new(Config { eager_credit_bytes, ..config.clone() });
        Credit {
            max_bytes: max_memory / CREDIT_PART,
            reserved_bytes: Arc::default(),
            tight: with(config.eager_credit_bytes.min(TIGHT_BYTES)),
            none: with(0),
            roomy: Arc::new(config),
        }
    }

    /// The configuration of one more connection.
    pub(crate) fn reserve(&self) -> (&Arc<Config>, Reservation) {
        let grades = [(&self.roomy, self.max_bytes / ROOMY_PART), (&self.tight, self.max_bytes)];
        let fits = |(config, max_bytes): &(&Arc<Config>, u64)| {
            let add = |reserved: u64| {
                let sum = reserved.saturating_add(config.eager_credit_bytes);
                (sum <= *max_bytes).then_some(sum)
            };
            // A number that nothing else depends on.
            self.reserved_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
        };
        let config = grades.into_iter().find(fits).map_or(&self.none, |(config, _)| config);
        let bytes = config.eager_credit_bytes;
        (config, Reservation { bytes, reserved_bytes: self.reserved_bytes.clone() })
    }

    /// The configuration of a connection that is told to go: no memory is kept for it.
    pub(crate) fn none(&self) -> &Arc<Config> {
        &self.none
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_there_are_the_less_one_gets() {
        let credit = Credit::new(32 << 20, Config::default());
        let reserve = |count: usize| -> Vec<Reservation> { (0..count).map(|_| credit.reserve().1).collect() };
        let roomy = reserve(4);
        assert!(roomy.iter().all(|reservation| reservation.bytes == 1 << 20));
        let tight = reserve(64);
        assert!(tight.iter().all(|reservation| reservation.bytes == 64 << 10));
        let none = reserve(100);
        assert!(none.iter().all(|reservation| reservation.bytes == 0));
        drop((roomy, none));
        assert_eq!(credit.reserve().1.bytes, 64 << 10, "half of the part is in use");
        drop(tight);
        assert_eq!(credit.reserve().1.bytes, 1 << 20);
        assert_eq!(credit.reserved_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_least_memory_still_gives_some() {
        let credit = Credit::new(1 << 20, Config::default());
        let held: Vec<Reservation> = (0..5).map(|_| credit.reserve().1).collect();
        let bytes: Vec<u64> = held.iter().map(|reservation| reservation.bytes).collect();
        assert_eq!(bytes, [64 << 10, 64 << 10, 64 << 10, 64 << 10, 0]);
        assert_eq!(memory_beside_credit(1 << 20), 768 << 10);
    }
}
