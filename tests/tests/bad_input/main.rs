//! Bad input, tried against the example `serve` as a stranger would, over TCP and over a Unix socket.
//!
//! Each [`Case`] does one bad thing. The server must close that connection, or answer that one call with an error; write
//! one line to its log; take no more memory than [`MAX_GROWTH_BYTES`]; and a client that works meanwhile must not notice.
//! The `crowd` does the same on 100 connections at once. What a server could do to a client stands in `servers`.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod case;
mod crowd;
mod errors;
mod floods;
mod frames;
mod made;
mod payload;
mod servers;
mod sessions;
mod sizes;
mod strangers;

use case::{Case, Nth};
use teleport_tests::{Raw, Serve, Steady, abstract_address, allow_many_descriptors, watched};

/// What a server's memory may grow by, whatever one client sends: its eager credit and its metadata (1 MiB each), a
/// structure made of these, and what the allocator keeps of it.
const MAX_GROWTH_BYTES: u64 = 16 << 20;

/// Every case, by its name.
fn all() -> impl Iterator<Item = (&'static str, fn() -> Case)> {
    let files = [
        strangers::CASES,
        sizes::CASES,
        frames::CASES,
        payload::CASES,
        floods::CASES,
        errors::CASES,
        sessions::CASES,
    ];
    files.into_iter().flatten().copied()
}

/// A server, and a client that works all the time.
struct Scene {
    serve: Serve,
    steady: Steady,
    peak_bytes: u64,
}

impl Scene {
    fn start(address: &str) -> Scene {
        let serve = Serve::start(address);
        let steady = Steady::start(serve.address());
        let peak_bytes = serve.memory().peak_bytes;
        Scene { serve, steady, peak_bytes }
    }

    fn address(&self) -> &str {
        self.serve.address()
    }

    /// Checks that nothing suffered; gives the lines of the log.
    #[track_caller]
    fn end(self) -> Vec<String> {
        self.end_within(MAX_GROWTH_BYTES)
    }

    #[track_caller]
    fn end_within(mut self, max_growth_bytes: u64) -> Vec<String> {
        self.steady.works_on();
        self.steady.end();
        let growth = self.serve.memory().peak_bytes - self.peak_bytes;
        assert!(growth <= max_growth_bytes, "the server's memory grew by {growth} bytes");
        self.serve.log()
    }
}

/// Does a case to a server at each kind of address, and checks that its log got exactly the lines that it should.
#[track_caller]
fn alone(case: fn() -> Case) {
    watched(move || {
        let case = case();
        for address in ["tcp://127.0.0.1:0", &abstract_address()] {
            let scene = Scene::start(address);
            for number in 0..case.times {
                (case.harm)(scene.address(), Nth { number, is_in_a_crowd: false });
            }
            let log = scene.end();
            assert_eq!(log.len(), case.line.map_or(0, |_| case.times), "{address}: {log:#?}");
            let expected = case.line.unwrap_or_default();
            for found in &log {
                assert!(found.contains(expected), "{address}: {found}\nhas no {expected:?}");
            }
        }
    });
}

#[test]
fn a_thousand_connections_that_say_nothing() {
    watched(|| {
        allow_many_descriptors(4096);
        let mut scene = Scene::start("tcp://127.0.0.1:0");
        let silent: Vec<Raw> = (0..1000).map(|_| Raw::connect(scene.address())).collect();
        scene.steady.works_on();
        for mut peer in silent {
            peer.until_silent_end();
        }
        // One line each, but strangers cannot fill the disk: the log is bounded in each stretch of time.
        let log = scene.end();
        let said: Vec<_> = log.iter().filter(|line| line.contains("no hello within")).collect();
        assert!((100..=1000).contains(&said.len()), "{} lines", said.len());
        let others: Vec<_> = log.iter().filter(|line| !line.contains("no hello within")).collect();
        assert!(others.iter().all(|line| line.contains("left_out")), "{others:#?}");
    });
}
