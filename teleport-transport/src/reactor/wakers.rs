//! Wakers that run once no lock is held.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Wakers to run once no lock is held.
#[derive(Debug, Default)]
pub struct Wakers(Vec<Waker>);

impl Wakers {
    /// Adds a waker.
    pub fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }

    /// Adds a waker, unless one of the same task is there.
    pub fn push_once(&mut self, waker: &Waker) {
        if !self.0.iter().any(|other| other.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    /// Returns true if there is no waker.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs and removes all wakers. The caller must hold no lock that a waker could need.
    ///
    /// The panic of a waker is logged. The others still run.
    #[inline]
    pub fn wake_all(&mut self) {
        if !self.0.is_empty() {
            self.wake_each();
        }
    }

    fn wake_each(&mut self) {
        for waker in self.0.drain(..) {
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("a waker panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("this waker panics");
        }
    }

    #[test]
    fn a_waker_that_panics_does_not_stop_the_others() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let mut wakers = Wakers::default();
        for waker in [count.clone().into(), Arc::new(Panics).into(), count.clone().into()] {
            wakers.push(waker);
        }
        wakers.wake_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
