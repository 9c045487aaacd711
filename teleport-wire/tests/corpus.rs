//! Replays the committed inputs of the fuzz targets, so that fixed bugs stay fixed without a fuzzer.

mod targets;

use std::fs;
use std::path::Path;

/// The number of changed copies of each input.
const CHANGES: u64 = 100;

/// Runs `target` on each committed input of that name, and on copies with a few bytes changed.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    if !folder.exists() && !folder.join("../../..").join("Cargo.lock").exists() {
        println!("SKIPPED: the corpus of {name} is in the repository, not in the published crate");
        return;
    }
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display()); // shown if it panics
        let input = fs::read(&path).expect("a readable file");
        target(&input);
        (0..CHANGES).for_each(|seed| target(&changed(&input, seed)));
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}

/// Returns a copy with up to three bytes changed, or cut short. Equal seeds give equal copies.
fn changed(input: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = |bound: usize| {
        // The high bits of a multiplicative generator are more random than the low ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound.max(1)
    };
    let mut copy = input.to_vec();
    for _ in 0..=next(3) {
        let at = next(copy.len());
        if let Some(byte) = copy.get_mut(at) {
            *byte = next(256) as u8;
        }
    }
    if next(8) == 0 {
        copy.truncate(next(input.len()));
    }
    copy
}

#[test]
fn corpus_of_signature() {
    replay("signature", targets::signature::signature);
}

#[test]
fn corpus_of_frames() {
    replay("frames", targets::frames::frames);
}

#[test]
fn corpus_of_decoder() {
    replay("decoder", targets::decoder::decoder);
}

#[test]
fn corpus_of_trees() {
    replay("trees", targets::trees::trees);
}
