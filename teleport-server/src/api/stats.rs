//! The statistics of a server.

use std::time::Duration;

/// The counters and the current state of a server, from [`ServerHandle::stats`](crate::ServerHandle::stats).
/// The numbers are read one after the other while work continues, so they may be slightly inconsistent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that arrived completely since the start.
    pub calls: u64,
    /// Calls that were answered with a result.
    pub answered: u64,
    /// Calls that were answered with an error.
    pub failed: u64,
    /// Calls that were refused before their arguments were received, such as those of unknown methods. Not
    /// part of `calls`.
    pub refused: u64,
    /// Calls whose functions run.
    pub running: usize,
    /// Calls that wait for a worker, or for their client to fetch results (`max_unsent_bytes`).
    pub queued: usize,
    /// Calls whose logs wait for a done function, and running calls of logged methods.
    pub awaiting_done: usize,
    /// Connected clients.
    pub clients: usize,
    /// Bytes of `max_memory` that are in use: arguments whose functions have not started, memory that was
    /// granted for such arguments, and unfetched results of more than 4 KiB.
    pub held_bytes: u64,
    /// Bytes of arguments that functions took and that are still alive. No limit counts them. Arguments of up
    /// to 4 KiB are left out. One array that is kept keeps all larger arguments of its call alive.
    pub lent_bytes: u64,
    /// Calls that wait for memory before they are received.
    pub awaiting_memory: usize,
    /// Bytes of results that clients have not fetched.
    pub unsent_bytes: u64,
    /// Bytes of answers that are kept until their clients acknowledge them.
    pub kept_bytes: u64,
}

/// Batch sizes are counted by powers of two: 1, 2, up to 4, up to 8, …, up to 65,536.
const CLASSES: usize = 17;

/// The statistics of a batched method, from [`ServerHandle::batches`](crate::ServerHandle::batches).
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
    /// Batches by size: `sizes[i]` had more than 2^(i-1) and at most 2^i calls.
    pub sizes: [u64; CLASSES],
    /// Rows of zeros that batches were padded with.
    pub padding: u64,
    /// The sum of the times that these calls waited for their batch after they were complete.
    pub waited: Duration,
    /// The sum of the times that the function ran.
    pub ran: Duration,
    /// Rows that were copied, because they were still being received when their batch was assembled, or to
    /// fill the holes that such rows left.
    pub moved: u64,
    /// Calls that had a row and did not run because they were withdrawn, late, or lost with their
    /// connection.
    pub dropped: u64,
    /// Calls that wait for their batch, or are being received.
    pub waiting: usize,
    /// Batches that run.
    pub running: usize,
}

impl BatchStats {
    /// Returns the mean number of calls in a batch, or 0 before there is any.
    pub fn mean_rows(&self) -> f64 {
        self.calls as f64 / self.batches.max(1) as f64
    }

    /// Returns the part of all rows that was padding, from 0 to 1.
    pub fn padding_share(&self) -> f64 {
        self.padding as f64 / (self.calls + self.padding).max(1) as f64
    }

    /// Returns how long a call waited for its batch on average.
    pub fn mean_wait(&self) -> Duration {
        self.waited.checked_div(u32::try_from(self.calls).unwrap_or(u32::MAX)).unwrap_or_default()
    }

    /// Returns how long the function ran for a batch on average.
    pub fn mean_run(&self) -> Duration {
        self.ran.checked_div(u32::try_from(self.batches).unwrap_or(u32::MAX)).unwrap_or_default()
    }

    pub(crate) fn started(&mut self, rows: usize, padded: usize, waited: Duration, moved: usize) {
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
