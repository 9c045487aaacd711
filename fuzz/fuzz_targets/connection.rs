//! The state of a connection: two ends that keep the rules, or one against frames made by hand.

#![no_main]

#[path = "../../teleport-transport/tests/targets/connection.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::connection(data));
