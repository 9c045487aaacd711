//! What a server is configured with, and the defaults.

use std::fmt;
use std::time::Duration;

use teleport_transport::wire::Tree;
use teleport_transport::{Budget, Config, Lent, machine_memory_bytes, random_id};

use crate::api::error::BoxError;
use crate::connection::credit::memory_beside_credit;
use crate::session::table::Sessions;

/// A done function of any form.
pub(crate) type DoneFunction = Box<dyn FnMut(Tree) -> Result<(), BoxError> + Send>;

/// Connections at once, unless told otherwise: more than the 10,000 actors of a large run.
const MAX_CONNECTIONS: usize = 16_384;

/// Less would leave a connection no credit to speak of.
const MIN_MEMORY: u64 = 1 << 20;

/// The part of `max_memory` that results of one connection may take before it waits, unless told otherwise, and the least
/// that this comes to: a chunk on its way and one behind it should not stop anybody.
const UNSENT_PART: u64 = 8;
const MIN_UNSENT: u64 = 1 << 20;

/// One poller moves 4 to 7 GB/s as measured, a link of 40 Gbit/s; more help where many small calls come in, or on faster links.
const MAX_DEFAULT_POLLERS: usize = 4;
const CORES_PER_POLLER: usize = 4;

/// A client that lost its connection is back within a second of when that can be had again; a switch that restarts takes
/// a minute or two.
const RESUME_TIMEOUT: Duration = Duration::from_secs(300);

/// The part of `max_memory` that answers may take which are kept for their clients.
const KEPT_PART: u64 = 8;

pub(crate) struct Options {
    pub(crate) config: Config,
    pub(crate) workers: usize,
    pub(crate) io_threads: usize,
    pub(crate) max_memory: u64,
    /// None: `UNSENT_PART` of the memory.
    pub(crate) max_unsent: Option<u64>,
    pub(crate) max_connections: usize,
    pub(crate) resume_timeout: Duration,
    pub(crate) max_kept_bytes: Option<u64>,
    pub(crate) stop_on_error: bool,
    /// By the method whose logs they get.
    pub(crate) done: Vec<(String, DoneFunction)>,
}

impl Options {
    pub(crate) fn new() -> Options {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            config: Config {
                instance: random_id(),
                resume: true,
                lent: Some(Lent::default()),
                ..Config::default()
            },
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

    /// The sessions of clients whose calls survive a lost connection. What they keep is part of `memory`.
    pub(crate) fn sessions<C>(&self, memory: Budget) -> Sessions<C> {
        let max_kept_bytes = self.max_kept_bytes.unwrap_or(self.max_memory / KEPT_PART);
        let max_open_calls = self.config.max_open_calls;
        Sessions::new(self.resume_timeout, self.max_connections, max_open_calls, max_kept_bytes, memory)
    }

    pub(crate) fn max_unsent(&self) -> u64 {
        self.max_unsent.unwrap_or((self.max_memory / UNSENT_PART).max(MIN_UNSENT))
    }

    /// The connections' configuration: no message may be larger than what is granted at all, since it would wait for ever.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.config.clone();
        config.limits.max_message_bytes = config.limits.max_message_bytes.min(self.shared_memory());
        config
    }

    /// What of the memory is for grants and results.
    pub(crate) fn shared_memory(&self) -> u64 {
        memory_beside_credit(self.max_memory)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("config", &self.config)
            .field("workers", &self.workers)
            .field("io_threads", &self.io_threads)
            .field("max_memory", &self.max_memory)
            .field("max_unsent", &self.max_unsent())
            .field("max_connections", &self.max_connections)
            .field("resume_timeout", &self.resume_timeout)
            .field("max_kept_bytes", &self.max_kept_bytes)
            .field("stop_on_error", &self.stop_on_error)
            .finish_non_exhaustive()
    }
}
