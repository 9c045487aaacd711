//! Bad input to the example `serve`, over TCP and over a Unix socket.
//!
//! Each [`Case`] sends one kind of bad input. The server must close the connection or answer the one call
//! with an error, log one line, and take at most [`MAX_GROWTH_BYTES`] more memory. A steady client must not
//! be affected. `crowd` does the cases on 100 connections at once. `servers` tests bad input from servers to
//! clients.
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

/// The most by which a server's memory may grow for one client: its eager credit and metadata (1 MiB each),
/// the structure decoded from these, and memory that the allocator retains.
const MAX_GROWTH_BYTES: u64 = 16 << 20;

/// Returns every case by name.
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

/// A server and a steady client.
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

    /// Checks that neither the steady client nor the server's memory was affected. Returns the lines of the
    /// log.
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

/// Does a case to a server at each kind of address and checks that the server logs exactly the expected
/// lines.
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
fn a_thousand_silent_connections_are_closed_and_logged_within_bounds() {
    watched(|| {
        allow_many_descriptors(4096);
        let mut scene = Scene::start("tcp://127.0.0.1:0");
        let silent: Vec<Raw> = (0..1000).map(|_| Raw::connect(scene.address())).collect();
        scene.steady.works_on();
        for mut peer in silent {
            peer.until_silent_end();
        }
        // The server logs each of them, but the rate of log lines is limited, so that strangers cannot fill
        // the disk.
        let log = scene.end();
        let said: Vec<_> = log.iter().filter(|line| line.contains("no hello within")).collect();
        assert!((100..=1000).contains(&said.len()), "{} lines", said.len());
        let others: Vec<_> = log.iter().filter(|line| !line.contains("no hello within")).collect();
        assert!(others.iter().all(|line| line.contains("left_out")), "{others:#?}");
    });
}
