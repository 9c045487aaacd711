//! Every case on 100 connections at once, and peers that send a byte now and then. A steady client must get
//! the right answer to each of its calls meanwhile. The tests print the latencies of its calls.

use std::io::Write;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use teleport::wire::{Header, Preface};
use teleport_tests::{Raw, Times, abstract_address, allow_many_descriptors, descriptors, until, watched};

use crate::case::{Case, Nth};
use crate::made::{array_signature, bytes, call};
use crate::{Scene, all};

const PEERS: usize = 100;

/// The most by which a server's memory may grow while [`PEERS`] clients send bad input at once.
const MAX_GROWTH_BYTES: u64 = PEERS as u64 * crate::MAX_GROWTH_BYTES / 4;

/// A case that waits for the server's handshake timeout, so it runs alongside all others.
const SLOW: &str = "a_preface_and_no_more";

#[test]
fn a_crowd_does_not_disturb_a_steady_client_over_tcp() {
    watched(|| every_case("tcp://127.0.0.1:0"));
}

#[test]
fn a_crowd_does_not_disturb_a_steady_client_over_a_unix_socket() {
    watched(|| every_case(&abstract_address()));
}

fn every_case(address: &str) {
    allow_many_descriptors(4096);
    let mut scene = Scene::start(address);
    let before = descriptors(scene.serve.program().id());
    scene.steady.times();
    let mut total = Times::default();
    thread::scope(|scope| {
        let address = scene.address().to_owned();
        let (_, slow) = all().find(|(name, _)| *name == SLOW).unwrap();
        scope.spawn(move || at_once(&slow(), &address));
        for (name, case) in all().filter(|(name, _)| *name != SLOW) {
            let start = Instant::now();
            at_once(&case(), scene.address());
            scene.steady.works_on();
            let times = scene.steady.times();
            println!("{name} ({:.1?}): {times}", start.elapsed());
            total = total.and(&times);
        }
    });
    show(address, &total, &scene);
    until("the server has closed all their sockets", || descriptors(scene.serve.program().id()) == before);
    only_expected(&scene.end_within(MAX_GROWTH_BYTES));
}

/// Does a case on [`PEERS`] connections at the same time.
fn at_once(case: &Case, address: &str) {
    let start = Barrier::new(PEERS);
    thread::scope(|scope| {
        for peer in 0..PEERS {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                (case.harm)(address, Nth { number: peer % case.times, is_in_a_crowd: true });
            });
        }
    });
}

/// Writes directly to standard error, because the test harness hides the output of passing tests.
fn show(address: &str, times: &Times, scene: &Scene) {
    let kind = address.split(':').next().unwrap();
    let growth = (scene.serve.memory().peak_bytes - scene.peak_bytes) >> 20;
    let line = format!(
        "a well-behaved client beside {PEERS} bad ones over {kind}: {times}; the server's memory grew by {growth} MiB\n"
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Checks that each line of the log belongs to a case. Lines are not counted, since the log may leave some
/// out.
fn only_expected(log: &[String]) {
    let expected: Vec<&str> = all().filter_map(|(_, case)| case().line).chain(["left_out"]).collect();
    let is_expected = |line: &&String| expected.iter().any(|text| line.contains(text));
    let others: Vec<_> = log.iter().filter(|line| !is_expected(line)).collect();
    assert!(others.is_empty(), "{others:#?}");
}

/// Returns the beginnings of everything that a peer may leave half-sent.
fn half_sent() -> Vec<Vec<u8>> {
    let eager = bytes(1 << 20);
    let eager =
        [&eager.header(1, true)[..], eager.metadata(), &Header::data(1, 1 << 20, None).encode()].concat();
    let large = call(&array_signature(&[2 << 20]));
    let metadata = call(&[&[3u8][..], &5000u64.to_le_bytes()].concat());
    let ping = Header::empty(teleport::wire::Kind::Ping, 1).encode();
    vec![
        Preface::BYTES[..7].to_vec(),
        ping[..20].to_vec(),
        metadata[..metadata.len() - 3].to_vec(),
        eager[..eager.len() - 20].to_vec(),
        [&eager[..], &[7; 1000]].concat(),
        large,
    ]
}

/// Slow peers occupy no thread and no more memory than they were granted.
#[test]
fn slow_senders_do_not_disturb_a_steady_client() {
    watched(|| {
        for address in ["tcp://127.0.0.1:0", &abstract_address()] {
            let mut scene = Scene::start(address);
            let before = descriptors(scene.serve.program().id());
            let kinds = half_sent();
            let mut peers: Vec<(Raw, usize)> = Vec::new();
            for peer in 0..PEERS {
                let kind = peer % kinds.len();
                let mut raw = if kind == 0 {
                    Raw::connect(scene.address())
                } else {
                    Raw::introduced(scene.address()).0
                };
                raw.send(&kinds[kind]);
                peers.push((raw, kind));
            }
            scene.steady.times();
            for _ in 0..10 {
                scene.steady.works_on();
                for (raw, kind) in &mut peers {
                    // Bytes of eager payload, which has the most left to send.
                    if *kind == 4 {
                        raw.send(&[7]);
                    }
                }
            }
            show(address, &scene.steady.times(), &scene);
            drop(peers);
            let process = scene.serve.program().id();
            until("the server has closed all their sockets", || descriptors(process) == before);
            let log = scene.end_within(PEERS as u64 * (4 << 20));
            let broke = |line: &&String| line.contains("broke") || line.contains("left_out");
            assert!(log.iter().all(|line| broke(&line)), "{log:#?}");
        }
    });
}
