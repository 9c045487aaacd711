//! Decides if an optional step is worth trying, from how often it has paid recently.
//!
//! Flow: `should_try` -> the step -> `hit` or `miss`. After a miss some chances are skipped, twice as many if
//! another miss follows soon. Each hit halves that number. Races between threads lose a count, which is
//! harmless. Bound: `MAX_SKIPPED`.

use std::sync::atomic::{AtomicU32, Ordering};

const MIN_SKIPPED: u16 = 4;
const MAX_SKIPPED: u16 = 1 << 10;

/// The chances still to skip in the lower half of the word, and those to skip after the next miss in the
/// upper half.
#[derive(Debug, Default)]
pub(crate) struct Adaptive(AtomicU32);

impl Adaptive {
    fn load(&self) -> (u16, u16) {
        let word = self.0.load(Ordering::Relaxed);
        (word as u16, (word >> 16) as u16)
    }

    fn store(&self, skipped: u16, next: u16) {
        self.0.store(u32::from(skipped) | u32::from(next) << 16, Ordering::Relaxed);
    }

    /// Returns true if the step should be tried now. Counts a skipped chance.
    pub(crate) fn should_try(&self) -> bool {
        let (skipped, next) = self.load();
        if skipped > 0 {
            self.store(skipped - 1, next);
        }
        skipped == 0
    }

    pub(crate) fn hit(&self) {
        let (skipped, next) = self.load();
        if next > 0 {
            self.store(skipped, next / 2);
        }
    }

    pub(crate) fn miss(&self) {
        let skipped = self.load().1.clamp(MIN_SKIPPED, MAX_SKIPPED);
        self.store(skipped, skipped * 2);
    }

    /// Like `miss`, but has no effect unless the step has missed before, not long ago.
    pub(crate) fn miss_of_two(&self) {
        match self.load() {
            (skipped, 0) => self.store(skipped, 1),
            _ => self.miss(),
        }
    }

    /// Notes that the step would have paid just now: the last miss does not count, and the next chance is
    /// tried.
    pub(crate) fn forgive(&self) {
        self.store(0, self.load().1 / 2);
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
        for expected in [4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024u32] {
            adaptive.miss();
            assert_eq!(skipped(&adaptive), expected);
        }
        (0..20).for_each(|_| adaptive.hit());
        adaptive.miss();
        assert_eq!(skipped(&adaptive), u32::from(MIN_SKIPPED));
    }

    #[test]
    fn one_miss_may_be_free() {
        let adaptive = Adaptive::default();
        for _ in 0..3 {
            adaptive.miss_of_two();
            assert!(adaptive.should_try(), "the first miss is free");
            adaptive.hit();
        }
        adaptive.miss_of_two();
        adaptive.miss_of_two();
        assert!(!adaptive.should_try(), "the second one in a row is not");
        adaptive.forgive();
        assert!(adaptive.should_try());
    }
}
