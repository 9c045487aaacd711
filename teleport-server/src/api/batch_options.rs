//! The user's options for batching a method's calls, and the policy that they are checked into.
//!
//! Flow: [`Batch`] with its options -> [`Batch::check`] at the server's start -> [`BatchPolicy`]. Holds
//! no calls.

use std::time::Duration;

use crate::batch::plan::policy::{BatchPolicy, Close};

/// Bounds the memory of an open batch. No batch needs more rows.
pub(crate) const MAX_ROWS: usize = 65_536;

/// The default time for which a call waits for an exact batch to become full.
const FULL_TIMEOUT: Duration = Duration::from_secs(60);

/// The options by which the calls of a method are batched, for [`Method::batched`](crate::Method::batched)
/// and [`Method::listed`](crate::Method::listed).
///
/// ```
/// use std::time::Duration;
/// use teleport_server::{Batch, Method, Methods};
/// use teleport_server::wire::Tree;
///
/// let quick = Batch::up_to(32).max_wait(Duration::from_millis(2)).pad_to([8, 16, 32]);
/// let methods = Methods::new()
///     .register("act", Method::batched(quick, |x: Tree| x)) // arrays [n, …], n at most 32
///     .register("learn", Method::batched(Batch::exact(16), |x: Tree| x)); // always 16
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Batch {
    is_exact: bool,
    max_rows: usize,
    max_wait: Option<Duration>,
    is_adaptive: bool,
    pad_to: Vec<usize>,
    max_in_progress: Option<usize>,
    max_queue: Option<usize>,
    full_timeout: Option<Duration>,
}

/// Adding a longer time to a clock could overflow it.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

impl Batch {
    fn new(is_exact: bool, max_rows: usize) -> Batch {
        Batch {
            is_exact,
            max_rows,
            max_wait: None,
            is_adaptive: false,
            pad_to: Vec::new(),
            max_in_progress: None,
            max_queue: None,
            full_timeout: None,
        }
    }

    /// Creates batches of exactly `rows` calls.
    ///
    /// A call waits for the others until its deadline, or for [`full_timeout`](Batch::full_timeout). After 1
    /// s the log names the number of waiting calls and their clients. This is `batch=rows` of
    /// danijar/teleport.
    #[doc(alias = "batch")]
    pub fn exact(rows: usize) -> Batch {
        Batch::new(true, rows)
    }

    /// Creates batches of at most `rows` calls: those that have arrived when a worker is free. So batches are
    /// small under low load and full under high load. They wait for more calls only with
    /// [`max_wait`](Batch::max_wait) or [`adaptive`](Batch::adaptive).
    #[doc(alias = "max_batch_size")]
    pub fn up_to(rows: usize) -> Batch {
        Batch::new(false, rows)
    }

    /// Sets how long a free worker waits for a fuller batch after the first call is complete. An
    /// earlier deadline of one of its calls closes the batch earlier. Default: zero.
    ///
    /// The batch also waits, for up to 20 ms, for calls that arrive at about 1 GiB/s or faster, because
    /// copying their rows would take longer.
    #[doc(alias = "batch_wait_timeout_s")]
    #[doc(alias = "max_queue_delay_microseconds")]
    pub fn max_wait(mut self, time: Duration) -> Batch {
        self.max_wait = Some(time);
        self
    }

    /// Waits for one more call only if that costs the waiting calls less than it saves, and never longer than
    /// `max_wait`. To decide, it measures for each kind of arguments how often calls arrive and how long the
    /// function takes for each batch size. A batch also closes in time for its earliest deadline. Default:
    /// off.
    pub fn adaptive(mut self, max_wait: Duration) -> Batch {
        self.is_adaptive = true;
        self.max_wait(max_wait)
    }

    /// Sets sizes to which batches are padded with rows of zeros, because compiled models need few shapes.
    /// They must ascend and end with the size of a full batch. The function gets and returns arrays of one of
    /// these sizes; [`Context::rows`](crate::Context::rows) returns how many rows are calls. Default: none.
    #[doc(alias = "preferred_batch_size")]
    pub fn pad_to(mut self, sizes: impl IntoIterator<Item = usize>) -> Batch {
        self.pad_to = sizes.into_iter().collect();
        self
    }

    /// Sets how many batches of this method may run at once, at least 1. Default: as many as there are
    /// workers.
    #[doc(alias = "max_ongoing_requests")]
    pub fn max_in_progress(mut self, batches: usize) -> Batch {
        self.max_in_progress = Some(batches.max(1));
        self
    }

    /// Sets how many calls may wait for their batch to start, including those that are being received.
    /// Further calls fail at once with the error `overloaded`. Default: no limit other than
    /// [`Server::max_open_calls`](crate::Server::max_open_calls) and
    /// [`Server::max_memory`](crate::Server::max_memory).
    #[doc(alias = "max_queued_requests")]
    #[doc(alias = "max_queue_size")]
    pub fn max_queue(mut self, calls: usize) -> Batch {
        self.max_queue = Some(calls);
        self
    }

    /// Sets how long a call waits for an [`exact`](Batch::exact) batch to become full. Then it fails with
    /// the error `deadline`, and did not run. Default: 60 s.
    pub fn full_timeout(mut self, time: Duration) -> Batch {
        self.full_timeout = Some(time);
        self
    }

    pub(crate) fn check(self) -> Result<BatchPolicy, BatchProblem> {
        let max_rows = self.max_rows;
        if max_rows == 0 || max_rows > MAX_ROWS {
            return Err(BatchProblem::Rows { rows: max_rows, max_rows: MAX_ROWS });
        }
        if self.is_exact && self.max_wait.is_some() {
            return Err(BatchProblem::WaitOfExact);
        }
        if !self.is_exact && self.full_timeout.is_some() {
            return Err(BatchProblem::TimeoutOfUpTo);
        }
        if !self.pad_to.is_sorted_by(|one, next| one < next) {
            return Err(BatchProblem::PadsDescend { pad_to: self.pad_to });
        }
        if self.pad_to.last().is_some_and(|last| *last != max_rows) {
            return Err(BatchProblem::LastPad { pad_to: self.pad_to, rows: max_rows });
        }
        Ok(BatchPolicy {
            max_rows,
            close: if self.is_exact {
                Close::Full { timeout: self.full_timeout.unwrap_or(FULL_TIMEOUT).min(MAX_TIME) }
            } else {
                Close::Soon {
                    max_wait: self.max_wait.unwrap_or_default().min(MAX_TIME),
                    is_adaptive: self.is_adaptive,
                }
            },
            pad_to: self.pad_to,
            max_in_progress: self.max_in_progress.unwrap_or(usize::MAX),
            max_queue: self.max_queue.unwrap_or(usize::MAX),
        })
    }
}

/// The error in a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchProblem {
    /// The batch has no rows, or too many.
    #[error("a batch of {rows} calls: it must have 1 to {max_rows}")]
    Rows {
        /// The requested size.
        rows: usize,
        /// The most that a batch may have.
        max_rows: usize,
    },
    /// Sizes to pad to are not in ascending order.
    #[error("`pad_to` has the sizes {pad_to:?}: they must ascend")]
    PadsDescend {
        /// The sizes.
        pad_to: Vec<usize>,
    },
    /// The largest size to pad to is not that of a full batch.
    #[error("`pad_to` has the sizes {pad_to:?}: the last must be {rows}, which is the most that a batch has")]
    LastPad {
        /// The sizes.
        pad_to: Vec<usize>,
        /// The most that a batch may have.
        rows: usize,
    },
    /// `max_wait` was set for an exact batch.
    #[error(
        "`max_wait` has no use for `Batch::exact`, which waits until it is full: set `full_timeout`, or use `Batch::up_to`"
    )]
    WaitOfExact,
    /// `full_timeout` was set for a batch that is not exact.
    #[error(
        "`full_timeout` has no use for `Batch::up_to`, which need not become full: set `max_wait`, or use `Batch::exact`"
    )]
    TimeoutOfUpTo,
    /// The method is inline, and calls must not wait on its thread.
    #[error(
        "it is inline, and a batch needs a worker: use `Method::batched`, with `workers` for a pool of its own"
    )]
    Inline,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked() {
        let problem = |batch: Batch| batch.check().unwrap_err();
        assert_eq!(problem(Batch::up_to(0)), BatchProblem::Rows { rows: 0, max_rows: MAX_ROWS });
        assert!(matches!(problem(Batch::exact(MAX_ROWS + 1)), BatchProblem::Rows { .. }));
        let text = "`pad_to` has the sizes [8, 4, 16]: they must ascend";
        assert_eq!(problem(Batch::up_to(16).pad_to([8, 4, 16])).to_string(), text);
        assert!(matches!(problem(Batch::up_to(16).pad_to([8, 8, 16])), BatchProblem::PadsDescend { .. }));
        let text = "`pad_to` has the sizes [8, 16]: the last must be 32, which is the most that a batch has";
        assert_eq!(problem(Batch::up_to(32).pad_to([8, 16])).to_string(), text);
        assert_eq!(problem(Batch::exact(2).max_wait(Duration::ZERO)), BatchProblem::WaitOfExact);
        assert_eq!(problem(Batch::up_to(2).full_timeout(Duration::ZERO)), BatchProblem::TimeoutOfUpTo);
    }

    #[test]
    fn batches_are_padded_to_the_next_size() {
        let policy = Batch::up_to(32).pad_to([8, 16, 32]).check().unwrap();
        assert_eq!([1, 8, 9, 17, 32].map(|rows| policy.padded(rows)), [8, 8, 16, 32, 32]);
        assert_eq!(Batch::up_to(32).check().unwrap().padded(7), 7);
    }

    #[test]
    fn batches_are_as_large_as_memory_allows() {
        let fitting = |batch: Batch, rows| batch.check().unwrap().fitting(rows);
        assert_eq!([3, 40].map(|rows| fitting(Batch::up_to(32), rows)), [Some(3), Some(32)]);
        assert_eq!([31, 32].map(|rows| fitting(Batch::exact(32), rows)), [None, Some(32)]);
        let padded = || Batch::up_to(32).pad_to([8, 16, 32]);
        assert_eq!([7, 20, 99].map(|rows| fitting(padded(), rows)), [None, Some(16), Some(32)]);
        assert_eq!(
            [Batch::exact(5), padded(), Batch::up_to(4)].map(|batch| batch.check().unwrap().least_rows()),
            [5, 8, 1]
        );
    }
}
