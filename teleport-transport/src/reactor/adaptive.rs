//! Whether what pays only if something else follows soon has paid lately.
//!
//! Flow: `allows` says whether to try -> `paid` or `in_vain`. After a try in vain so many chances are let pass, twice as many if
//! that happens again soon; each that pays halves that. Races between threads lose a step, which does no harm. Bound:
//! `MAX_PENALTY` chances.

use std::sync::atomic::{AtomicU32, Ordering};

const MIN_PENALTY: u32 = 4;
const MAX_PENALTY: u32 = 1 << 10;

/// How far to trust that it pays.
#[derive(Debug, Default)]
pub(crate) struct Adaptive {
    /// So many chances are let pass.
    penalty: AtomicU32,
    /// As many after the next try in vain.
    next: AtomicU32,
}

impl Adaptive {
    /// Whether to try now. A chance that is let pass counts.
    pub(crate) fn should_try(&self) -> bool {
        let penalty = self.penalty.load(Ordering::Relaxed);
        if penalty > 0 {
            self.penalty.store(penalty - 1, Ordering::Relaxed);
        }
        penalty == 0
    }

    pub(crate) fn hit(&self) {
        let next = self.next.load(Ordering::Relaxed);
        if next > MIN_PENALTY {
            self.next.store(next / 2, Ordering::Relaxed);
        }
    }

    /// It would have paid just now: no more chances are let pass.
    pub(crate) fn reset(&self) {
        self.penalty.store(0, Ordering::Relaxed);
    }

    pub(crate) fn miss(&self) {
        let penalty = self.next.load(Ordering::Relaxed).clamp(MIN_PENALTY, MAX_PENALTY);
        self.penalty.store(penalty, Ordering::Relaxed);
        self.next.store(penalty * 2, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(trust: &Adaptive) -> u32 {
        (0..).take_while(|_| !trust.should_try()).count() as u32
    }

    #[test]
    fn what_pays_is_always_tried() {
        let trust = Adaptive::default();
        for _ in 0..10 {
            assert!(trust.should_try());
            trust.hit();
        }
    }

    #[test]
    fn what_is_in_vain_is_tried_ever_less_often_but_always_again() {
        let trust = Adaptive::default();
        for penalty in [4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024] {
            trust.miss();
            assert_eq!(passed(&trust), penalty);
        }
        (0..20).for_each(|_| trust.hit());
        trust.miss();
        assert_eq!(passed(&trust), MIN_PENALTY);
    }
}
