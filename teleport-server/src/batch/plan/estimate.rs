//! Estimates for the calls of one group: how often they arrive, and how long a batch of them runs.
//!
//! Flow: `arrived` for each complete call, `ran` for each batch -> `wait` returns until when one more call is
//! worth waiting for, and `run_time` how long a batch will run. Bound: one average for each power of two of
//! sizes.

use std::time::{Duration, Instant};

/// The weight of a new value in the average.
const WEIGHT: f64 = 0.2;

/// Sizes of batches by powers of two: up to 2^16.
const CLASSES: usize = 17;

/// A call that has not arrived after this many average gaps is not worth waiting for.
const MAX_GAPS: f64 = 2.0;

/// An exponentially weighted moving average.
#[derive(Clone, Copy, Debug, Default)]
struct Ewma(Option<f64>);

impl Ewma {
    fn note(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |average| average + WEIGHT * (value - average)));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Estimate {
    last_arrival: Option<Instant>,
    /// Seconds between two calls.
    gap: Ewma,
    /// Seconds and rows of batches, by the binary logarithm of their rows.
    runs: [(Ewma, Ewma); CLASSES],
}

impl Estimate {
    /// Notes a complete call.
    pub(crate) fn arrived(&mut self, now: Instant) {
        if let Some(before) = self.last_arrival.replace(now) {
            self.gap.note(now.saturating_duration_since(before).as_secs_f64());
        }
    }

    /// Notes that a batch of `rows` rows, padding included, ran for `time`.
    pub(crate) fn ran(&mut self, rows: usize, time: Duration) {
        let (seconds, sizes) = &mut self.runs[class(rows)];
        seconds.note(time.as_secs_f64());
        sizes.note(rows as f64);
    }

    /// Returns the expected run time of a batch, or `None` before any batch has run.
    pub(crate) fn run_time(&self, rows: usize) -> Option<Duration> {
        let (fixed, each) = self.line()?;
        Duration::try_from_secs_f64(fixed + each * rows as f64).ok()
    }

    /// Returns until when to wait for one more call: as long as the `ready` calls together wait for less time
    /// than the call would cost in a batch of its own.
    pub(crate) fn wait(&self, ready: usize) -> Option<Instant> {
        let (fixed, _) = self.line()?;
        let (gap, last) = (self.gap.0?, self.last_arrival?);
        if gap * ready as f64 > fixed {
            return None;
        }
        last.checked_add(Duration::try_from_secs_f64(gap * MAX_GAPS).ok()?)
    }

    /// Returns the fixed time of a batch and the time for each row, in seconds, from the smallest and the
    /// largest sizes that ran. If all batches had about one size, rows count as free, as they are on
    /// accelerators.
    fn line(&self) -> Option<(f64, f64)> {
        let mut known = self.runs.iter().filter_map(|(seconds, rows)| Some((seconds.0?, rows.0?)));
        let (least, fewest) = known.next()?;
        let Some((most, largest)) = known.next_back() else { return Some((least, 0.0)) };
        let each = ((most - least) / (largest - fewest)).max(0.0);
        Some(((least - each * fewest).max(0.0), each))
    }
}

fn class(rows: usize) -> usize {
    (rows.max(1).ilog2() as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn estimate(gap: Duration, runs: &[(usize, Duration)]) -> (Estimate, Instant) {
        let (mut estimate, start) = (Estimate::default(), Instant::now());
        for step in 0..10 {
            estimate.arrived(start + gap * step);
        }
        for (rows, time) in runs {
            estimate.ran(*rows, *time);
        }
        (estimate, start + gap * 9)
    }

    #[test]
    fn run_time_grows_with_rows_as_measured() {
        let (estimate, _) = estimate(MS, &[(2, 12 * MS), (32, 42 * MS)]);
        let ms = |rows| estimate.run_time(rows).unwrap().as_secs_f64() * 1e3;
        assert!((ms(2) - 12.0).abs() < 0.01 && (ms(17) - 27.0).abs() < 0.01 && (ms(32) - 42.0).abs() < 0.01);
        assert_eq!(Estimate::default().run_time(1), None);
    }

    #[test]
    fn one_more_call_is_worth_waiting_for_while_that_costs_less_than_it_saves() {
        let (estimate, last) = estimate(MS, &[(2, 12 * MS), (32, 42 * MS)]);
        // A batch costs 10 ms plus its rows: ten rows may wait a millisecond each.
        assert_eq!(estimate.wait(1), Some(last + 2 * MS));
        assert!(estimate.wait(9).is_some());
        assert_eq!(estimate.wait(11), None);
    }

    #[test]
    fn no_call_is_worth_waiting_for_before_anything_is_known() {
        assert_eq!(Estimate::default().wait(1), None);
        let (rare, _) = estimate(100 * MS, &[(1, MS)]);
        assert_eq!(rare.wait(1), None, "the next comes too late to be worth it");
    }
}
