//! Compares the rounds of contenders: pair by pair, or the best ones of each.
//!
//! Noise only ever slows a round down. So a contender's best rounds are those that it had most nearly for
//! itself, and they are compared if the pairs of a row say too little. They hide how often a contender is
//! slow by its own doing, so they are no substitute for a quiet machine.

use crate::bench::outcome::{Compared, Outcome};
use crate::bench::stats::{Interval, best, bootstrap, bootstrap_best, median};

/// How the rounds of a row are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison {
    compared: Compared,
    more_is_better: bool,
}

impl Comparison {
    pub(super) fn of(outcome: &Outcome) -> Comparison {
        Comparison { compared: outcome.compared, more_is_better: outcome.unit.more_is_better() }
    }

    /// Returns the median of the rounds that are compared.
    pub(super) fn median(self, values: &[f64]) -> f64 {
        match self.compared {
            Compared::Pairs => median(values),
            Compared::Best => median(&best(values, self.more_is_better)),
        }
    }

    /// Returns the interval of that median.
    pub(super) fn own(self, values: &[f64]) -> Interval {
        match self.compared {
            Compared::Pairs => bootstrap(values),
            Compared::Best => bootstrap_best(values, values, self.more_is_better, |value, _| value),
        }
    }

    /// Returns the ratio, or `None` if all bases are 0, as counts can be.
    pub(super) fn ratio(self, values: &[f64], bases: &[f64]) -> Option<Interval> {
        let pairs: Vec<(f64, f64)> = pairs(values, bases).filter(|(_, base)| *base != 0.0).collect();
        if pairs.is_empty() {
            return None;
        }
        Some(match self.compared {
            Compared::Pairs => bootstrap(&pairs.iter().map(|(value, base)| value / base).collect::<Vec<_>>()),
            Compared::Best => bootstrap_best(values, bases, self.more_is_better, |value, base| value / base),
        })
    }

    /// Returns the difference, or `None` if there is nothing to compare.
    pub(super) fn difference(self, values: &[f64], bases: &[f64]) -> Option<Interval> {
        let differences: Vec<f64> = pairs(values, bases).map(|(value, base)| value - base).collect();
        if differences.is_empty() {
            return None;
        }
        Some(match self.compared {
            Compared::Pairs => bootstrap(&differences),
            Compared::Best => bootstrap_best(values, bases, self.more_is_better, |value, base| value - base),
        })
    }
}

/// Returns the rounds that both have, one after the other.
fn pairs<'a>(values: &'a [f64], bases: &'a [f64]) -> impl Iterator<Item = (f64, f64)> + 'a {
    values.iter().copied().zip(bases.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: Comparison = Comparison { compared: Compared::Pairs, more_is_better: true };
    const BEST: Comparison = Comparison { compared: Compared::Best, more_is_better: true };

    #[test]
    fn pairs_cancel_what_slows_both() {
        let bases: Vec<f64> = (1..=9).map(f64::from).collect();
        let values: Vec<f64> = bases.iter().map(|base| base * 0.9).collect();
        let Interval { low, median, high } = PAIRS.ratio(&values, &bases).unwrap();
        assert!(low > 0.89 && high < 0.91 && median > 0.89, "{low} {median} {high}");
    }

    #[test]
    fn best_rounds_ignore_what_slows_one() {
        // Every second round of each is disturbed, but not the same one.
        let values: Vec<f64> = (0..24).map(|i| if i % 2 == 0 { 9.0 } else { 2.0 }).collect();
        let bases: Vec<f64> = (0..24).map(|i| if i % 2 == 0 { 3.0 } else { 10.0 }).collect();
        let paired = PAIRS.ratio(&values, &bases).unwrap();
        assert!(paired.high - paired.low > 1.0, "{paired:?}");
        let best = BEST.ratio(&values, &bases).unwrap();
        assert!((best.median - 0.9).abs() < 1e-9 && best.high - best.low < 0.01, "{best:?}");
        assert_eq!(BEST.median(&values), 9.0);
        assert_eq!(BEST.difference(&values, &bases).unwrap().median, -1.0);
        assert_eq!(BEST.own(&values).median, 9.0);
        let times = Comparison { more_is_better: false, ..BEST };
        assert_eq!((times.median(&values), times.median(&bases)), (2.0, 3.0));
    }

    #[test]
    fn nothing_is_compared_with_nothing() {
        for comparison in [PAIRS, BEST] {
            assert!(comparison.ratio(&[1.0], &[]).is_none() && comparison.ratio(&[1.0], &[0.0]).is_none());
            assert!(comparison.difference(&[], &[1.0]).is_none());
        }
    }
}
