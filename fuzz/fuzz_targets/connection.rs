//! Fuzzes the state of a connection: two ends that follow the rules, or one end against hand-made frames.

#![no_main]

#[path = "../../teleport-transport/tests/targets/connection.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::connection(data));
