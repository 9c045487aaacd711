//! How many bytes go before a small message while large ones are being sent. The tests are exact, since
//! their clock is the bytes of the link.
//!
//! A test has two real ends ([`pair`]). Between them, for each direction, are the bytes that the
//! kernels hold, and a log of every frame with its place in the stream ([`wire`]). Splits and faults
//! belong to the simulation: here nothing fails.

mod pair;
mod wire;

use teleport_wire::{Dict, Kind, Tree};

use self::pair::{Pair, STEP, bytes};
use self::wire::{CHUNK, Frame, KERNEL_BYTES};

const GIB: usize = 1 << 30;

/// The promised maximum of bytes before a small message. In fact it is one chunk and the bytes that the
/// kernels hold.
const PROMISED: u64 = KERNEL_BYTES as u64 + 2 * CHUNK;

/// The upper bound of the bytes that a probe itself takes on the wire.
const OWN: u64 = 2048;

/// Checks that one chunk and the bytes in the kernels go before a small message, which is less than
/// promised.
fn check_loaded(passed: u64) {
    assert!(passed <= PROMISED + OWN, "{passed} bytes went before a small message and with it");
    assert!(passed <= KERNEL_BYTES as u64 + CHUNK + OWN, "{passed} bytes: one chunk is no longer enough");
    assert!(passed > CHUNK / 2, "{passed} bytes: the link was not loaded");
}

/// Checks that nothing goes before a small message in a direction without large messages.
fn check_idle(passed: u64) {
    assert!(passed <= OWN, "{passed} bytes went before a small message on an idle direction");
}

#[test]
fn small_messages_pass_a_large_argument_and_a_large_result() {
    let mut pair = Pair::new(1 << 20);
    let large = pair.call(&bytes(GIB));
    let [up, down] = pair.probe(|pair| !pair.arrived.contains(&large));
    check_loaded(up);
    check_idle(down);
    assert!(pair.up.delivered > GIB as u64 && pair.arrived.contains(&large));

    pair.answer(large, &bytes(GIB));
    let [up, down] = pair.probe(|pair| !pair.answered.contains(&large));
    check_idle(up);
    check_loaded(down);
    assert!(pair.down.delivered > GIB as u64 && pair.answered.contains(&large));
}

#[test]
fn small_messages_pass_many_large_ones_in_both_directions() {
    let mut pair = Pair::new(1 << 20);
    let first: Vec<u64> = (0..4).map(|_| pair.call(&bytes(GIB / 16))).collect();
    pair.until(STEP, |pair| first.iter().all(|id| pair.arrived.contains(id)));
    for id in &first {
        pair.answer(*id, &bytes(GIB / 16));
    }
    let second: Vec<u64> = (0..4).map(|_| pair.call(&bytes(GIB / 16))).collect();
    let [up, down] = pair.probe(|pair| !second.iter().any(|id| pair.arrived.contains(id)));
    check_loaded(up);
    check_loaded(down);
}

/// Without credit, the head of the call asks for a grant first, so the call goes through the link
/// twice.
#[test]
fn a_small_call_without_credit_passes_a_large_argument_in_two_goes() {
    let mut pair = Pair::new(0);
    let large = pair.call(&bytes(GIB));
    let [up, down] = pair.probe(|pair| !pair.arrived.contains(&large));
    assert!(up <= 2 * (KERNEL_BYTES as u64 + CHUNK) + OWN, "{up} bytes went before a small call and with it");
    check_idle(down);
}

/// Metadata may be as long as a chunk. Next to a chunk it must not delay a ping by more than is
/// promised.
#[test]
fn a_ping_passes_metadata_as_long_as_it_may_be() {
    let mut pair = Pair::new(1 << 20);
    let large = pair.call(&bytes(GIB / 4));
    pair.until(STEP, |pair| pair.up.delivered > 10 << 20);
    let long = Tree::Dict(Dict::from_iter([("k".repeat(1_000_000), bytes(1000))]));
    for round in 1..30 {
        // Together the small calls are shorter than what is staged at once, and the long one is added
        // to them.
        let small = [pair.call(&bytes(60_000)), pair.call(&bytes(60_000)), pair.call(&bytes(60_000))];
        let last = pair.call(&long);
        pair.go_up(round * 70_001);
        let [up, _] = pair.probe_ping();
        assert!(up <= PROMISED, "{up} bytes went before a ping");
        pair.until(STEP, |pair| pair.arrived.contains(&last));
        for id in small.into_iter().chain([last]) {
            pair.answer(id, &Tree::Null);
        }
    }
    assert!(!pair.arrived.contains(&large), "it lasted as long as the test");
}

/// Returns the largest difference in bytes between two transfers while both are in progress.
fn unevenness(frames: &[Frame], ids: [u64; 2]) -> u64 {
    let (mut sent, mut most) = ([0u64; 2], 0);
    let data = |id| move |frame: &&Frame| frame.id == id && frame.kind == Kind::Data;
    let first = |id| frames.iter().find(data(id)).expect("it was sent").start;
    let last = |id| frames.iter().rev().find(data(id)).expect("it was sent").start;
    let (begin, end) = (first(ids[0]).max(first(ids[1])), last(ids[0]).min(last(ids[1])));
    for frame in frames.iter().filter(|frame| frame.kind == Kind::Data && frame.start <= end) {
        for (sent, _) in sent.iter_mut().zip(ids).filter(|(_, id)| *id == frame.id && frame.start >= begin) {
            *sent += frame.end - frame.start;
        }
        most = most.max(sent[0].abs_diff(sent[1]));
    }
    most
}

#[test]
fn large_transfers_share_the_link_evenly() {
    let mut pair = Pair::new(1 << 20);
    let mut calls = vec![pair.call(&bytes(GIB / 2)), pair.call(&bytes(GIB / 4))];
    pair.until(STEP, |pair| pair.up.delivered > 50 << 20);
    // A later transfer gets its share at once, and no more. Small messages change nothing.
    calls.push(pair.call(&bytes(GIB / 8)));
    pair.probe(|pair| pair.up.delivered < GIB as u64 / 4);
    pair.until(STEP, |pair| calls.iter().all(|id| pair.arrived.contains(id)));
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let bytes = unevenness(&pair.up.log.frames, [calls[one], calls[other]]);
        assert!(bytes <= CHUNK, "calls {one} and {other} were {bytes} bytes apart");
    }
}

/// Returns the most bytes of other messages between two chunks of the transfer `large`.
fn largest_gap(frames: &[Frame], large: u64) -> u64 {
    let is_message = |frame: &&Frame| matches!(frame.kind, Kind::Call | Kind::Data);
    let (mut gap, mut most, mut begun) = (0, 0, false);
    for frame in frames.iter().filter(is_message) {
        if frame.id == large && frame.kind == Kind::Data {
            most = most.max(gap);
            (gap, begun) = (0, true);
        } else if begun {
            gap += frame.end - frame.start;
        }
    }
    most
}

#[test]
fn a_flood_of_small_calls_leaves_a_large_one_its_share() {
    const LARGE: usize = 24 << 20;
    for length in [0, 1000, 60_000, 65_536] {
        let mut pair = Pair::new(1 << 20);
        let large = pair.call(&bytes(LARGE));
        let (mut queued, mut small_bytes) = (0, 0);
        while !pair.arrived.contains(&large) {
            // Queues more than the link takes in this round, bounded by bytes and by calls.
            while queued < 2000 && queued * length < 2 << 20 {
                pair.call(&bytes(length));
                queued += 1;
            }
            pair.go_up(STEP);
            for id in std::mem::take(&mut pair.arrived) {
                if id == large {
                    pair.arrived.push(id);
                } else {
                    pair.answer(id, &Tree::Null);
                    (queued, small_bytes) = (queued - 1, small_bytes + length);
                }
            }
            pair.go_down(STEP);
        }
        let gap = largest_gap(&pair.up.log.frames, large);
        let one_message = 200 + length as u64;
        assert!(
            gap < (1 << 20) + one_message,
            "{gap} bytes between two chunks, with calls of {length} bytes"
        );
        // The flood gets the other half if it has enough bytes: a large call does not starve it either.
        assert!(
            length < 60_000 || small_bytes > LARGE * 9 / 10,
            "{small_bytes} small bytes beside the large ones"
        );
    }
}
