//! Replays the committed inputs of the fuzz target `connection`, and slightly changed copies of them.

#[path = "targets/connection.rs"]
mod target;

use std::fs;
use std::path::Path;

/// The number of changed copies of each input.
const CHANGES: u64 = 30;

#[test]
fn corpus_of_connection() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/connection");
    if !folder.exists() {
        println!("SKIPPED: the corpus is in the repository, not in the published crate");
        return;
    }
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display()); // shown if it panics
        let input = fs::read(&path).expect("a readable file");
        target::connection(&input);
        for seed in 0..CHANGES {
            target::connection(&changed(&input, seed));
        }
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}

/// Returns a copy with three bytes changed, the same for the same seed.
fn changed(input: &[u8], seed: u64) -> Vec<u8> {
    let mut copy = input.to_vec();
    let mut state = seed;
    for _ in 0..3 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) as usize % copy.len().max(1);
        if let Some(byte) = copy.get_mut(at) {
            *byte = (state >> 24) as u8;
        }
    }
    copy
}
