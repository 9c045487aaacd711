//! Fuzzes trees: each is sent and received, converted to its parts and back.

#![no_main]

#[path = "../../teleport-wire/tests/targets/trees.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::trees(data));
