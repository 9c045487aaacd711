//! Any tree: sent and received, taken apart and put together.

#![no_main]

#[path = "../../teleport-wire/tests/targets/trees.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::trees(data));
