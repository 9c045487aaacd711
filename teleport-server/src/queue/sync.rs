//! Synchronization primitives of the queue: the real ones, or loom's while loom explores all interleavings.

#[cfg(all(loom, test))]
pub(super) use self::explored::*;
#[cfg(not(all(loom, test)))]
pub(super) use self::native::*;

#[cfg(not(all(loom, test)))]
mod native {
    pub(in super::super) use std::sync::atomic::{AtomicBool, Ordering};
    pub(in super::super) use std::sync::{Condvar, Mutex, MutexGuard};

    pub(in super::super) use teleport_transport::{Spin, hand_over};
}

#[cfg(all(loom, test))]
mod explored {
    use std::time::{Duration, Instant};

    pub(in super::super) use loom::sync::atomic::{AtomicBool, Ordering};
    pub(in super::super) use loom::sync::{Condvar, Mutex, MutexGuard};

    /// Looks once where the real one looks for a time.
    #[derive(Debug)]
    pub(in super::super) struct Spin(Duration);

    impl Spin {
        pub(in super::super) fn new(time: Duration) -> Spin {
            Spin(time)
        }

        pub(in super::super) fn time(&self) -> Duration {
            self.0
        }

        pub(in super::super) fn find<T>(
            &self,
            _limit: Option<Duration>,
            mut look: impl FnMut(Instant) -> Option<T>,
        ) -> Result<T, Instant> {
            let now = Instant::now();
            look(now).ok_or(now)
        }

        pub(in super::super) fn woke(&self, _since: Instant, _now: Instant) {}
    }

    pub(in super::super) fn hand_over() {}
}
