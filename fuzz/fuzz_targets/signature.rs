//! Fuzzes the decoding of metadata of calls and results.

#![no_main]

#[path = "../../teleport-wire/tests/targets/signature.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::signature(data));
