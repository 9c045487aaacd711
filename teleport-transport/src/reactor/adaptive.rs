//! Decides if an optional step is worth trying, from how often it has paid recently.
//!
//! Flow: `should_try` -> the step -> `hit` or `miss`. After a miss some chances are skipped, twice as many if
//! another miss follows soon. Each hit halves that number. Races between threads lose a count, which is
//! harmless. Bound: `MAX_SKIPPED`.

use std::sync::atomic::{AtomicU32, Ordering};

const MIN_SKIPPED: u32 = 4;
const MAX_SKIPPED: u32 = 1 << 10;

#[derive(Debug, Default)]
pub(crate) struct Adaptive {
    /// The number of chances still to skip.
    skipped: AtomicU32,
    /// The number of chances to skip after the next miss.
    next: AtomicU32,
}

impl Adaptive {
    /// Returns true if the step should be tried now. Counts a skipped chance.
    pub(crate) fn should_try(&self) -> bool {
        let skipped = self.skipped.load(Ordering::Relaxed);
        if skipped > 0 {
            self.skipped.store(skipped - 1, Ordering::Relaxed);
        }
        skipped == 0
    }

    pub(crate) fn hit(&self) {
        let next = self.next.load(Ordering::Relaxed);
        if next > MIN_SKIPPED {
            self.next.store(next / 2, Ordering::Relaxed);
        }
    }

    pub(crate) fn miss(&self) {
        let skipped = self.next.load(Ordering::Relaxed).clamp(MIN_SKIPPED, MAX_SKIPPED);
        self.skipped.store(skipped, Ordering::Relaxed);
        self.next.store(skipped * 2, Ordering::Relaxed);
    }

    /// Notes that the step would have paid just now: the next chance is tried.
    pub(crate) fn reset(&self) {
        self.skipped.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(adaptive: &Adaptive) -> u32 {
        (0..).take_while(|_| !adaptive.should_try()).count() as u32
    }

    #[test]
    fn a_bet_that_pays_is_always_made() {
        let adaptive = Adaptive::default();
        for _ in 0..10 {
            assert!(adaptive.should_try());
            adaptive.hit();
        }
    }

    #[test]
    fn a_bet_that_does_not_pay_is_made_ever_less_often_but_always_again() {
        let adaptive = Adaptive::default();
        for expected in [4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024] {
            adaptive.miss();
            assert_eq!(skipped(&adaptive), expected);
        }
        (0..20).for_each(|_| adaptive.hit());
        adaptive.miss();
        assert_eq!(skipped(&adaptive), MIN_SKIPPED);
    }
}
