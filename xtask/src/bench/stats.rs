//! Medians, and the confidence intervals of what is computed from rounds.

/// Returns the middle of `values`, which must not be empty; for an even number, the mean of the middle two.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// Returns the value below which a part `rank` (0 to 1) of `sorted` lies.
pub(super) fn quantile(sorted: &[f64], rank: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * rank).round() as usize]
}

/// Returns how far the middle half of the values spreads, relative to the median; 0 for no values.
pub(super) fn spread(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        0.0
    } else {
        (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / median(&sorted)
    }
}

/// The part of the rounds that [`best`] returns.
const BEST_PART: usize = 4;

/// Fewer rounds say too little.
const MIN_BEST: usize = 3;

/// Returns the best quarter of the values, the best first. Returns at least three, if there are as many.
pub(super) fn best(values: &[f64], more_is_better: bool) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if more_is_better {
        sorted.reverse();
    }
    sorted.truncate((values.len() / BEST_PART).max(MIN_BEST));
    sorted
}

/// A median, with the interval that holds it in 95 of 100 resampled runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) median: f64,
    pub(super) high: f64,
}

/// The number of resampled runs; more change the interval by less than the noise does.
const RESAMPLES: usize = 1000;

/// Computes the bootstrap interval of the median of `values`.
pub(super) fn bootstrap(values: &[f64]) -> Interval {
    interval(median(values), |state| median(&drawn(values, state)))
}

/// Computes the bootstrap interval of a comparison of two contenders by the medians of their best rounds,
/// none of which may be missing. The rounds of the two are drawn independently of each other.
pub(super) fn bootstrap_best(
    values: &[f64],
    bases: &[f64],
    more_is_better: bool,
    compare: impl Fn(f64, f64) -> f64,
) -> Interval {
    let of_best = |values: &[f64], bases: &[f64]| {
        compare(median(&best(values, more_is_better)), median(&best(bases, more_is_better)))
    };
    interval(of_best(values, bases), |state| {
        let values = drawn(values, state);
        of_best(&values, &drawn(bases, state))
    })
}

/// Returns the interval that holds 95 of 100 values of `resample`, around `median`.
fn interval(median: f64, mut resample: impl FnMut(&mut u64) -> f64) -> Interval {
    // The seed is fixed, so the same rounds give the same interval.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut all: Vec<f64> = (0..RESAMPLES).map(|_| resample(&mut state)).collect();
    all.sort_by(f64::total_cmp);
    Interval { low: quantile(&all, 0.025), median, high: quantile(&all, 0.975) }
}

/// Draws as many values, with replacement.
fn drawn(values: &[f64], state: &mut u64) -> Vec<f64> {
    values.iter().map(|_| values[next(state) as usize % values.len()]).collect()
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.75), 4.0);
    }

    #[test]
    fn an_interval_holds_its_median_and_narrows_with_agreement() {
        let noisy: Vec<f64> = (0..40).map(|i| 1.0 + f64::from(i % 7)).collect();
        let interval = bootstrap(&noisy);
        assert!(interval.low <= interval.median && interval.median <= interval.high);
        let steady = bootstrap(&[2.0; 40]);
        assert_eq!((steady.low, steady.high), (2.0, 2.0));
    }

    #[test]
    fn the_middle_half_spreads() {
        assert_eq!(spread(&[]), 0.0);
        assert_eq!(spread(&[7.0; 9]), 0.0);
        assert_eq!(spread(&[1.0, 2.0, 3.0, 4.0, 100.0]), 2.0 / 3.0);
    }

    #[test]
    fn the_best_quarter_depends_on_the_direction() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(best(&values, true), [20.0, 19.0, 18.0, 17.0, 16.0]);
        assert_eq!(best(&values, false), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(best(&[3.0, 1.0, 4.0, 2.0], false), [1.0, 2.0, 3.0]);
        assert_eq!(best(&[3.0], false), [3.0]);
    }

    #[test]
    fn best_rounds_have_an_interval() {
        let values: Vec<f64> = (0..40).map(|i| 1.0 + f64::from(i % 10)).collect();
        let interval = bootstrap_best(&values, &[2.0; 40], true, |value, base| value / base);
        assert_eq!(interval.median, 4.5);
        assert!(3.5 < interval.low && interval.low <= 4.5 && interval.high <= 5.0, "{interval:?}");
        let steady = bootstrap_best(&[3.0; 8], &[2.0; 8], false, |value, base| value - base);
        assert_eq!((steady.low, steady.median, steady.high), (1.0, 1.0, 1.0));
    }
}
