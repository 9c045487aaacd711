//! Fuzzes the decoding of headers and of the bodies of control frames.

#![no_main]

#[path = "../../teleport-wire/tests/targets/frames.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::frames(data));
