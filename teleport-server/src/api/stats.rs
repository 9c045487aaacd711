//! What is counted of a method's batches.

use std::time::Duration;

/// What a server has done and does. Taken one after the other while work goes on, so the numbers may be a few apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that arrived whole since the start.
    pub calls: u64,
    /// Of these, those answered with a result.
    pub answered: u64,
    /// Of these, those answered with an error.
    pub failed: u64,
    /// Calls that were turned away before their arguments were taken: unknown methods, or the server was closing.
    pub refused: u64,
    /// Calls whose function runs now.
    pub running: usize,
    /// Calls that wait for a worker, or for their client to fetch results (`max_unsent_bytes`).
    pub queued: usize,
    /// Calls whose logs wait for a done function, or will.
    pub awaiting_done: usize,
    /// Clients that are connected.
    pub clients: usize,
    /// Bytes of `max_memory` that hold arguments whose functions have not started, that are granted to such, or that hold
    /// results of more than 4 KiB which clients have not fetched.
    pub held_bytes: u64,
    /// Bytes of arguments that functions took and of which something is alive, there or wherever they put it: their own
    /// memory, which no bound counts. Arguments of up to 4 KiB are not in it; of larger ones, one array that is kept keeps
    /// all arguments of its call alive.
    pub lent_bytes: u64,
    /// Calls that wait for memory to be received into.
    pub awaiting_memory: usize,
    /// Bytes of results that clients have not fetched yet.
    pub unsent_bytes: u64,
    /// Bytes of answers that are kept until their clients say that they have them.
    pub kept_bytes: u64,
}

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
