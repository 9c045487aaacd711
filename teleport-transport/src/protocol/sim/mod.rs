//! Clients and a server in virtual time, with faults of every kind between them.
//!
//! Both ends of a connection are real. Above them is the logic of a client ([`caller`]) and of a server
//! ([`answerer`]) with its sessions, and rows that are moved while their calls arrive ([`arranger`]).
//! Between them are pipes that stall, split, swallow, change and cut ([`link`], [`faults`]). The ledger
//! knows what really happened, and an audit of each connection knows what its frames say ([`audit`]).
//! [`invariants`] lists what must hold.
//!
//! Each seed is one run, the same on every machine. A run that fails prints its seed.
//! `TELEPORT_TEST_SEED` sets the first seed.

mod answerer;
mod arranger;
mod audit;
mod caller;
mod faults;
mod invariants;
mod ledger;
mod link;
mod random;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use self::world::World;

/// Takes ten seconds on two slow cores.
const RUNS: u64 = 4000;

/// Each case must occur more often than this in all runs together.
const MIN_SEEN: u64 = 50;

/// Prints the seed of a run that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing run: TELEPORT_TEST_SEED={}", self.0);
        }
    }
}

/// Runs seeds that no other thread has taken, and returns how often each case occurred.
fn run(next: &AtomicU64, first: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let run = next.fetch_add(1, Ordering::Relaxed);
        if run >= RUNS {
            return seen;
        }
        let seed = first.wrapping_add(run);
        let _named = Named(seed);
        let mut world = World::new(seed);
        world.run();
        let each = world.ledger.seen.each();
        seen.resize(each.len(), 0);
        seen.iter_mut().zip(each).for_each(|(sum, count)| *sum += count);
    }
}

#[test]
fn every_promise_holds_whatever_the_network_does() {
    let first = std::env::var("TELEPORT_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let next = AtomicU64::new(0);
    let seen = std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(|| run(&next, first))).collect();
        let parts = handles.into_iter().map(|handle| handle.join().expect("the failing run is named above"));
        parts.reduce(|one, other| one.iter().zip(&other).map(|(a, b)| a + b).collect()).unwrap_or_default()
    });
    println!("how often each case occurred, in the order of `Seen`: {seen:?}");
    assert!(seen.iter().all(|count| *count > MIN_SEEN), "each case occurs: {seen:?}");
}
