//! Metadata of calls and results, from any bytes.

#![no_main]

#[path = "../../teleport-wire/tests/targets/signature.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::signature(data));
