//! The configuration of a server, and its defaults.

use std::fmt;
use std::time::Duration;

use teleport_transport::wire::Tree;
use teleport_transport::{Config, Lent, machine_memory_bytes, random_id};

use crate::api::error::BoxError;

/// The default for connections: more than the 10,000 actors of a large run.
const MAX_CONNECTIONS: usize = 16_384;

/// With less memory, connections would get hardly any credit.
const MIN_MEMORY: u64 = 1 << 20;

/// The part of `max_memory` that pays for the eager credit of all connections.
const CREDIT_PART: u64 = 4;

/// The part of `max_memory` that results of one connection may take by default before the connection is
/// throttled, and the minimum of this limit. The minimum lets one chunk be sent and one wait without
/// throttling.
const UNSENT_PART: u64 = 8;
const MIN_UNSENT: u64 = 1 << 20;

/// One poller moves 4 to 7 GB/s as measured, which fills a network of 40 Gbit/s. More pollers help with many
/// small calls and on faster networks.
const MAX_DEFAULT_POLLERS: usize = 4;
const CORES_PER_POLLER: usize = 4;

/// Clients reconnect within a second when that is possible. A switch that restarts takes a minute or two.
const RESUME_TIMEOUT: Duration = Duration::from_secs(300);

/// The part of `max_memory` that answers kept for clients may take by default.
const KEPT_PART: u64 = 8;

/// A done function of any form, and the method whose logs it gets.
pub(crate) struct DoneFunction {
    pub(crate) method: String,
    pub(crate) function: Box<dyn FnMut(Tree) -> Result<(), BoxError> + Send>,
}

impl fmt::Debug for DoneFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoneFunction").field("method", &self.method).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) config: Config,
    pub(crate) workers: usize,
    pub(crate) io_threads: usize,
    pub(crate) max_memory: u64,
    /// `None` for `UNSENT_PART` of the memory.
    pub(crate) max_unsent: Option<u64>,
    pub(crate) max_connections: usize,
    pub(crate) resume_timeout: Duration,
    /// `None` for `KEPT_PART` of the memory.
    pub(crate) max_kept_bytes: Option<u64>,
    pub(crate) stop_on_error: bool,
    pub(crate) done: Vec<DoneFunction>,
}

impl Options {
    pub(crate) fn new() -> Options {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let config =
            Config { instance: random_id(), resume: true, lent: Some(Lent::default()), ..Config::default() };
        Options {
            config,
            workers: 1,
            io_threads: (cores / CORES_PER_POLLER).clamp(1, MAX_DEFAULT_POLLERS),
            max_memory: (machine_memory_bytes() / 4).max(MIN_MEMORY),
            max_unsent: None,
            max_connections: MAX_CONNECTIONS,
            resume_timeout: RESUME_TIMEOUT,
            max_kept_bytes: None,
            stop_on_error: false,
            done: Vec::new(),
        }
    }

    pub(crate) fn set_max_memory(&mut self, bytes: u64) {
        self.max_memory = bytes.max(MIN_MEMORY);
    }

    pub(crate) fn max_unsent(&self) -> u64 {
        self.max_unsent.unwrap_or((self.max_memory / UNSENT_PART).max(MIN_UNSENT))
    }

    pub(crate) fn max_kept_bytes(&self) -> u64 {
        self.max_kept_bytes.unwrap_or(self.max_memory / KEPT_PART)
    }

    /// Returns the memory for the eager credit of connections.
    pub(crate) fn credit_memory(&self) -> u64 {
        self.max_memory / CREDIT_PART
    }

    /// Returns the memory for grants and results.
    pub(crate) fn shared_memory(&self) -> u64 {
        self.max_memory - self.credit_memory()
    }

    /// Returns the configuration of connections. It refuses messages that could never be granted.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.config.clone();
        config.limits.max_message_bytes = config.limits.max_message_bytes.min(self.shared_memory());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_memory_is_split_too() {
        let mut options = Options::new();
        options.set_max_memory(0);
        assert_eq!((options.credit_memory(), options.shared_memory()), (256 << 10, 768 << 10));
    }
}
