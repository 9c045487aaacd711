//! Synchronization primitives of rows: the real ones, or loom's while loom explores all interleavings.
//!
//! `Uses` is empty except under loom, where it reports reads and writes of a row's bytes. Loom fails if two
//! threads may access them at the same time.

#[cfg(all(loom, test))]
pub(super) use self::explored::*;
#[cfg(not(all(loom, test)))]
pub(super) use self::native::*;

#[cfg(not(all(loom, test)))]
mod native {
    pub(in super::super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    pub(in super::super) use parking_lot::{Mutex, MutexGuard};

    pub(in super::super) struct Uses;

    impl Uses {
        pub(in super::super) fn new(_rows: usize) -> Uses {
            Uses
        }

        pub(in super::super) fn write(&self, _row: usize) {}

        pub(in super::super) fn read(&self, _row: usize) {}
    }
}

#[cfg(all(loom, test))]
mod explored {
    use loom::cell::UnsafeCell;
    pub(in super::super) use loom::sync::MutexGuard;
    pub(in super::super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// With the interface of `parking_lot`.
    #[derive(Debug)]
    pub(in super::super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a thread that panics ends the model")
        }

        pub(in super::super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    pub(in super::super) struct Uses(Vec<UnsafeCell<()>>);

    impl Uses {
        pub(in super::super) fn new(rows: usize) -> Uses {
            Uses((0..rows).map(|_| UnsafeCell::new(())).collect())
        }

        pub(in super::super) fn write(&self, row: usize) {
            self.0[row].with_mut(|_| ());
        }

        pub(in super::super) fn read(&self, row: usize) {
            self.0[row].with(|_| ());
        }
    }
}
