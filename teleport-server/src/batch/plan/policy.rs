//! The checked options of a batched method: when its batches close, and how many rows they have.

use std::time::Duration;

/// The time when a batch closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// A batch closes when it is full.
    Full { timeout: Duration },
    /// A batch closes when a worker is free and the first row has waited for `max_wait`.
    Soon { max_wait: Duration, is_adaptive: bool },
}

/// The checked options of one method.
#[derive(Clone, Debug)]
pub(crate) struct BatchPolicy {
    /// Invariant: 1 to `MAX_ROWS`.
    pub(crate) max_rows: usize,
    pub(crate) close: Close,
    /// Invariant: ascending, the last is `max_rows`; or empty.
    pub(crate) pad_to: Vec<usize>,
    /// Invariant: at least 1.
    pub(crate) max_in_progress: usize,
    pub(crate) max_queue: usize,
}

impl BatchPolicy {
    /// Returns how many rows a batch of `rows` calls has with its padding.
    pub(crate) fn padded(&self, rows: usize) -> usize {
        self.pad_to.iter().copied().find(|size| *size >= rows).unwrap_or(rows)
    }

    /// Returns how many rows a slab has if `rows` fit into memory, or `None` if that is too few for any
    /// batch.
    pub(crate) fn fitting(&self, rows: usize) -> Option<usize> {
        let fits = |size: &usize| *size <= rows;
        match self.close {
            Close::Full { .. } => Some(self.max_rows).filter(fits),
            Close::Soon { .. } if self.pad_to.is_empty() => {
                Some(self.max_rows.min(rows)).filter(|rows| *rows > 0)
            }
            Close::Soon { .. } => self.pad_to.iter().copied().rfind(fits),
        }
    }

    /// Returns the number of rows of the smallest possible batch.
    pub(crate) fn least_rows(&self) -> usize {
        if self.is_exact() { self.max_rows } else { self.padded(1) }
    }

    /// Returns how long a batch may take to become full, if it must become full.
    pub(crate) fn full_timeout(&self) -> Option<Duration> {
        match self.close {
            Close::Full { timeout } => Some(timeout),
            Close::Soon { .. } => None,
        }
    }

    pub(crate) fn is_exact(&self) -> bool {
        matches!(self.close, Close::Full { .. })
    }
}
