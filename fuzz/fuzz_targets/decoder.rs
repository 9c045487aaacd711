//! Fuzzes the stream decoder with any bytes in any split.

#![no_main]

#[path = "../../teleport-wire/tests/targets/decoder.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::decoder(data));
