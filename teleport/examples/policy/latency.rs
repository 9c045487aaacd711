//! Latencies, counted in classes that are 4 % wide. The memory does not grow with their number.

use std::time::Duration;

/// Classes for each doubling of the time.
const PER_DOUBLING: f64 = 16.0;

/// Up to 2^40 ns, which is 18 minutes.
const CLASSES: usize = 16 * 40;

/// Times, by class.
#[derive(Clone)]
pub(crate) struct Latencies {
    /// `counts[i]` took from 2^(i / 16) to 2^((i + 1) / 16) ns.
    counts: Vec<u64>,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { counts: vec![0; CLASSES] }
    }
}

impl Latencies {
    /// Counts one latency.
    pub(crate) fn note(&mut self, time: Duration) {
        let class = (time.as_nanos().max(1) as f64).log2() * PER_DOUBLING;
        self.counts[(class as usize).min(CLASSES - 1)] += 1;
    }

    /// Returns the counts of all classes, to send them.
    pub(crate) fn counts(self) -> Vec<u64> {
        self.counts
    }

    /// Adds the counts of another process.
    pub(crate) fn add(&mut self, counts: &[u64]) {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum += count;
        }
    }

    /// Returns the latencies that were counted since `before`.
    pub(crate) fn since(&self, before: &Latencies) -> Latencies {
        let counts = self.counts.iter().zip(&before.counts).map(|(now, before)| now - before);
        Latencies { counts: counts.collect() }
    }

    /// Returns a percentile, within 2 %. Zero if there are no latencies.
    pub(crate) fn percentile(&self, percent: u64) -> Duration {
        let wanted = (self.counts.iter().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let class = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let middle =
            |class: usize| Duration::from_secs_f64(((class as f64 + 0.5) / PER_DOUBLING).exp2() / 1e9);
        class.filter(|_| wanted > 0).map(middle).unwrap_or_default()
    }
}
