//! Counts the bytes that the C library copies and fills.

use std::ffi::{c_int, c_void};

use libc::size_t;

use crate::Counter;
use crate::next::next;

/// Smaller copies are moves of values, which occur for messages of any size. The payload of a large message
/// is not copied in such small pieces.
const MIN_LARGE_BYTES: usize = 1 << 10;

static SMALL_BYTES: Counter = Counter::new();
static LARGE_BYTES: Counter = Counter::new();
static FILLED_BYTES: Counter = Counter::new();

/// Each kind's name and counter.
pub(crate) const COUNTERS: &[(&str, &Counter)] =
    &[("copied_small", &SMALL_BYTES), ("copied_large", &LARGE_BYTES), ("filled", &FILLED_BYTES)];

fn count(bytes: size_t) {
    if bytes < MIN_LARGE_BYTES { SMALL_BYTES.add(bytes) } else { LARGE_BYTES.add(bytes) }
}

type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, size_t) -> *mut c_void;

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, bytes: size_t) -> *mut c_void {
    count(bytes);
    next!(c"memcpy" as Copy, to, from, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, bytes: size_t) -> *mut c_void {
    count(bytes);
    next!(c"memmove" as Copy, to, from, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mempcpy(to: *mut c_void, from: *const c_void, bytes: size_t) -> *mut c_void {
    count(bytes);
    next!(c"mempcpy" as Copy, to, from, bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut c_void, byte: c_int, bytes: size_t) -> *mut c_void {
    FILLED_BYTES.add(bytes);
    next!(c"memset" as unsafe extern "C" fn(*mut c_void, c_int, size_t) -> *mut c_void, to, byte, bytes)
}
