//! Counts the calls of a program to its C library. The library is preloaded (`LD_PRELOAD`).
//!
//! Flow: the dynamic linker binds the program's calls to the functions here -> each adds to a counter -> the
//! C library's own function does the work. The program reads the counters as an environment variable
//! (`ask`), so it needs neither a dependency nor unsafe code.
//!
//! This library never changes what a function does. It does not see copies that the compiler has inlined, or
//! calls within the C library itself, such as the system calls of its allocator. It works on Linux with
//! glibc only. Its memory is bounded: the counters, and a ring of the last places (`places`).

mod ask;
mod calls;
mod copies;
mod heap;
mod next;
mod places;

use std::sync::atomic::{AtomicU64, Ordering};

/// A number of events or bytes in this process.
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
