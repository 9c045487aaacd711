//! An estimate of an inline method's run time. Earlier answers wait for its answer only if it is quick.
//!
//! Takes no measurements itself. Pollers may race and lose a run, which is harmless.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A method that takes longer does not delay other answers.
const QUICK: Duration = Duration::from_micros(30);

/// A longer run counts as this, so that one interruption of the thread has little effect.
const MAX_COUNTED_NS: u64 = 1_000_000;

/// A moving average of the last few runs, in nanoseconds; `u32::MAX` before the first.
#[derive(Debug)]
pub(crate) struct RunTime {
    nanos: AtomicU32,
}

impl RunTime {
    pub(crate) const fn unknown() -> RunTime {
        RunTime { nanos: AtomicU32::new(u32::MAX) }
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.nanos.load(Ordering::Relaxed) <= QUICK.subsec_nanos()
    }

    /// Notes runs that took this `time` together.
    pub(crate) fn note(&self, runs: u32, time: Duration) {
        let all = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let nanos = (all / u64::from(runs.max(1))).min(MAX_COUNTED_NS) as u32;
        let add = |average: u32, _| match average {
            u32::MAX => nanos,
            average => average - average / 8 + nanos / 8,
        };
        let average = (0..runs).fold(self.nanos.load(Ordering::Relaxed), add);
        self.nanos.store(average, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_was_quick_is_expected_to_be() {
        let run_time = RunTime::unknown();
        assert!(!run_time.is_quick());
        run_time.note(1, Duration::from_micros(1));
        assert!(run_time.is_quick());
        run_time.note(1, Duration::from_secs(60));
        assert!(!run_time.is_quick());
        (0..20).for_each(|_| run_time.note(1, Duration::from_micros(1)));
        assert!(run_time.is_quick());
    }

    #[test]
    fn a_method_that_is_sometimes_slow_is_not_quick() {
        let run_time = RunTime::unknown();
        for run in 0..100 {
            run_time.note(1, Duration::from_micros(if run % 8 == 0 { 900 } else { 1 }));
            assert!(run % 8 != 0 || !run_time.is_quick());
        }
    }

    #[test]
    fn runs_that_were_measured_together_count_like_as_many() {
        let (together, alone) = (RunTime::unknown(), RunTime::unknown());
        for micros in [8, 800, 16] {
            together.note(8, Duration::from_micros(micros));
            (0..8).for_each(|_| alone.note(1, Duration::from_micros(micros / 8)));
            let nanos = |run_time: &RunTime| run_time.nanos.load(Ordering::Relaxed);
            assert_eq!(nanos(&together), nanos(&alone));
        }
    }
}
