//! What threads share of rows, or what stands in its place while loom tries all orders in which they may go on.
//!
//! `Uses` is nothing but for loom, which learns from it who writes and reads a row's bytes, and fails where nothing keeps two
//! threads apart.

#[cfg(not(all(loom, test)))]
pub(super) use self::native::*;
#[cfg(all(loom, test))]
pub(super) use self::tried::*;

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
mod tried {
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
