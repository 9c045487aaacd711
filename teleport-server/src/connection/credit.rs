//! Eager credit: the bytes that connections may send without a grant, from their own part of the memory.
//!
//! Flow: `reserve` when a client connects -> the configuration with its credit, and a [`Reservation`], which
//! is held until the connection has ended. The more connections there are, the less credit a new one gets.
//! With no credit, all of its messages wait for a grant. Never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use teleport_transport::Config;

/// Connections get the configured credit while less than this part of the memory is reserved.
const ROOMY_PART: u64 = 2;

/// The credit of a connection when there are many: enough for small calls to take one round trip.
const TIGHT_BYTES: u64 = 64 << 10;

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

/// The credit of one connection. Dropping it returns the credit.
#[derive(Debug)]
pub(crate) struct Reservation {
    bytes: u64,
    reserved_bytes: Arc<AtomicU64>,
}

impl Credit {
    pub(crate) fn new(max_bytes: u64, config: Config) -> Credit {
        let with = |eager_credit_bytes| Arc::new(Config { eager_credit_bytes, ..config.clone() });
        Credit {
            max_bytes,
            reserved_bytes: Arc::default(),
            tight: with(config.eager_credit_bytes.min(TIGHT_BYTES)),
            none: with(0),
            roomy: Arc::new(config),
        }
    }

    /// Reserves credit for a connection, and returns its configuration.
    pub(crate) fn reserve(&self) -> (&Arc<Config>, Reservation) {
        let grades = [(&self.roomy, self.max_bytes / ROOMY_PART), (&self.tight, self.max_bytes)];
        let fits = |(config, max_bytes): &(&Arc<Config>, u64)| {
            let add = |reserved: u64| {
                let sum = reserved.saturating_add(config.eager_credit_bytes);
                (sum <= *max_bytes).then_some(sum)
            };
            // Nothing else depends on this number.
            self.reserved_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
        };
        let config = grades.into_iter().find(fits).map_or(&self.none, |(config, _)| config);
        let bytes = config.eager_credit_bytes;
        (config, Reservation { bytes, reserved_bytes: self.reserved_bytes.clone() })
    }

    /// Returns the configuration without credit, for connections that are refused.
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
    fn more_connections_get_less_credit_each() {
        let credit = Credit::new(8 << 20, Config::default());
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
    fn the_smallest_memory_still_gives_credit() {
        let credit = Credit::new(256 << 10, Config::default());
        let held: Vec<Reservation> = (0..5).map(|_| credit.reserve().1).collect();
        let bytes: Vec<u64> = held.iter().map(|reservation| reservation.bytes).collect();
        assert_eq!(bytes, [64 << 10, 64 << 10, 64 << 10, 64 << 10, 0]);
    }
}
