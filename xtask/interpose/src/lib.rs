//! Stands between a program and its C library, and counts what the program asks for.
//!
//! Flow: the dynamic linker binds the program's calls to the functions here, since the library is preloaded -> each adds to
//! a counter -> the C library's own function does the work. The program reads the counters as a variable of its
//! environment (`ask`), so that it needs neither a dependency nor unsafe code for that.
//!
//! Never changes what a function does. Never sees what is not called through the dynamic linker: copies that the compiler
//! wrote out in place, and what the C library does within itself (its allocator's own system calls, for one). Linux with
//! glibc only. Its own memory is bounded: the counters, and a ring of the last places (`places`).

mod ask;
mod calls;
mod copies;
mod heap;
mod next;
mod places;

use std::sync::atomic::{AtomicU64, Ordering};

/// How often something happened, or how many bytes it took, in this process.
struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
