//! Counts allocations. Frees are not counted; in a steady state there are as many.

use std::ffi::{c_int, c_void};

use libc::size_t;

use crate::Counter;

static ALLOCATIONS: Counter = Counter::new();
static ALLOCATED_BYTES: Counter = Counter::new();

/// Each kind's name and counter.
pub(crate) const COUNTERS: &[(&str, &Counter)] =
    &[("allocations", &ALLOCATIONS), ("allocated", &ALLOCATED_BYTES)];

// A lookup of a function can allocate, so these are bound by glibc's other names for them.
unsafe extern "C" {
    fn __libc_malloc(bytes: size_t) -> *mut c_void;
    fn __libc_calloc(count: size_t, bytes: size_t) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, bytes: size_t) -> *mut c_void;
    fn __libc_memalign(alignment: size_t, bytes: size_t) -> *mut c_void;
}

fn count(bytes: size_t) {
    ALLOCATIONS.add(1);
    ALLOCATED_BYTES.add(bytes);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(bytes: size_t) -> *mut c_void {
    count(bytes);
    // SAFETY: the same function by another name.
    unsafe { __libc_malloc(bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(items: size_t, bytes: size_t) -> *mut c_void {
    count(items.saturating_mul(bytes));
    // SAFETY: the same function by another name.
    unsafe { __libc_calloc(items, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, bytes: size_t) -> *mut c_void {
    count(bytes);
    // SAFETY: the same function by another name; `old` comes from it, like all memory of this heap.
    unsafe { __libc_realloc(old, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aligned_alloc(alignment: size_t, bytes: size_t) -> *mut c_void {
    count(bytes);
    // SAFETY: it has fewer conditions than `aligned_alloc`.
    unsafe { __libc_memalign(alignment, bytes) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, alignment: size_t, bytes: size_t) -> c_int {
    count(bytes);
    // SAFETY: it takes any power of two as alignment, and the caller passes one.
    let memory = unsafe { __libc_memalign(alignment, bytes) };
    if memory.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller passes a valid place for the address.
    unsafe { place.write(memory) };
    0
}
