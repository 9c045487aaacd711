//! A short look-out before a thread sleeps.
//!
//! To put a processor to sleep and wake it takes several times as long as a small call. So a thread that is about to wait first
//! looks a few times, and lets others run in between; it sleeps once the time is over. Where that is in vain too often, as when the
//! other side computes for long or the processors are busy, it sleeps at once, and tries again now and then. Bound: the time
//! that its owner gives, for each wait.

use std::thread;
use std::time::{Duration, Instant};

use crate::trust::Trust;

/// Whether and for how long to look before one sleeps.
#[derive(Debug)]
pub(crate) struct Spin {
    time: Duration,
    trust: Trust,
}

impl Spin {
    /// Looks for up to `time`; zero for not at all.
    pub(crate) fn new(time: Duration) -> Spin {
        Spin { time, trust: Trust::default() }
    }

    /// How long it looks.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    /// Looks for as long as `time` from now on, if that is longer.
    pub(crate) fn extend_to(&mut self, time: Duration) {
        self.time = self.time.max(time);
    }

    /// What `look` found before the time was over; none if it was called in vain, or not at all.
    pub(crate) fn find<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if self.time.is_zero() || !self.trust.allows() {
            return None;
        }
        let start = Instant::now();
        while start.elapsed() < self.time {
            if let Some(found) = look() {
                self.trust.paid();
                return Some(found);
            }
            thread::yield_now();
        }
        self.trust.in_vain();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_until_it_finds() {
        let spin = Spin::new(Duration::MAX);
        let mut looks = 0;
        let found = spin.find(|| {
            looks += 1;
            (looks == 3).then_some("it")
        });
        assert_eq!((found, looks), (Some("it"), 3));
    }

    #[test]
    fn it_gives_up_and_is_not_asked_again_at_once() {
        let spin = Spin::new(Duration::from_nanos(1));
        assert_eq!(spin.find(|| None::<()>), None);
        assert_eq!(spin.find(|| -> Option<()> { unreachable!("the last time was in vain") }), None);
        let never = Spin::new(Duration::ZERO);
        assert_eq!(never.find(|| -> Option<()> { unreachable!("it has no time") }), None);
    }
}
