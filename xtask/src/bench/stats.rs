//! Medians, and the confidence intervals of ratios of paired rounds.

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
    // The seed is fixed, so the same rounds give the same interval.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sample: Vec<f64> =
                values.iter().map(|_| values[next(&mut state) as usize % values.len()]).collect();
            median(&sample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Interval { low: quantile(&medians, 0.025), median: median(values), high: quantile(&medians, 0.975) }
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
}
