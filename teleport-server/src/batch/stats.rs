//! What is counted of a method's batches.

use std::time::Duration;

/// Sizes by powers of two: 1, 2, up to 4, up to 8, …, up to 65,536.
const CLASSES: usize = 17;

/// What a batched method has done so far, from [`ServerHandle::batches`](crate::ServerHandle::batches).
///
/// ```
/// use teleport_server::{Batch, Method, Methods, Server};
/// use teleport_server::wire::Tree;
///
/// let methods = Methods::new().register("act", Method::batched(Batch::up_to(32), |x: Tree| x));
/// let server = Server::bind("tcp://127.0.0.1:0")?.start(methods)?;
/// let stats = server.batches("act").ok_or("`act` is not batched")?;
/// assert_eq!((stats.batches, stats.mean_rows()), (0, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Calls that ran in a batch.
    pub calls: u64,
    /// Batches that ran.
    pub batches: u64,
    /// Of these, how many had how many calls: `sizes[i]` had more than 2^(i-1) and at most 2^i.
    pub sizes: [u64; CLASSES],
    /// Rows of zeros that batches were padded with.
    pub padding: u64,
    /// How long all these calls together waited, from when they were whole and could run.
    pub waited: Duration,
    /// How long the function ran, in all batches together.
    pub ran: Duration,
    /// Rows that were copied: those that were still being received when their batch was made, those that filled the holes which these
    /// left, and those moved earlier.
    pub moved: u64,
    /// Calls that were placed and did not run: withdrawn, late, or lost with their connection.
    pub dropped: u64,
    /// Calls that wait for their batch or are being received.
    pub waiting: usize,
    /// Batches that run now.
    pub running: usize,
}

impl BatchStats {
    /// Calls per batch; 0 before there is any.
    pub fn mean_rows(&self) -> f64 {
        self.calls as f64 / self.batches.max(1) as f64
    }

    /// What part of all rows was padding, 0 to 1.
    pub fn padding_share(&self) -> f64 {
        self.padding as f64 / (self.calls + self.padding).max(1) as f64
    }

    /// How long a call waited for its batch, in the mean.
    pub fn mean_wait(&self) -> Duration {
        self.waited.checked_div(u32::try_from(self.calls).unwrap_or(u32::MAX)).unwrap_or_default()
    }

    /// How long the function ran for a batch, in the mean.
    pub fn mean_run(&self) -> Duration {
        self.ran.checked_div(u32::try_from(self.batches).unwrap_or(u32::MAX)).unwrap_or_default()
    }

    pub(super) fn started(&mut self, rows: usize, padded: usize, waited: Duration, moved: usize) {
        self.calls += rows as u64;
        self.batches += 1;
        self.sizes[(rows.next_power_of_two().ilog2() as usize).min(CLASSES - 1)] += 1;
        self.padding += (padded - rows) as u64;
        self.waited += waited;
        self.moved += moved as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_by_size() {
        let mut stats = BatchStats::default();
        for rows in [1, 2, 3, 4, 5, 8] {
            stats.started(rows, 8, Duration::from_millis(10), 0);
        }
        stats.ran = Duration::from_millis(60);
        assert_eq!(stats.sizes[..4], [1, 1, 2, 2]);
        assert_eq!((stats.mean_rows(), stats.padding), (23.0 / 6.0, 48 - 23));
        assert_eq!(stats.padding_share(), 25.0 / 48.0);
        assert_eq!(stats.mean_run(), Duration::from_millis(10));
        assert_eq!(stats.mean_wait(), Duration::from_millis(60) / 23);
        assert_eq!(BatchStats::default().mean_wait(), Duration::ZERO);
    }
}
