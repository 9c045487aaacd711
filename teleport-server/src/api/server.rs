//! A server, from its socket to its start.
//!
//! Flow: [`Server::bind`] opens the socket -> options -> [`Server::run`] or [`Server::start`] checks the methods and starts
//! the threads. Clients that come between `bind` and `start` wait in the system's queue.

use std::sync::Arc;
use std::time::Duration;

use teleport_transport::wire::Tree;
use teleport_transport::{Address, BindError, Listener};

use crate::accept::ConnectionAcceptor;
use crate::api::error::ServeError;
use crate::api::handle::{Closer, ServerHandle};
use crate::api::method::IntoDone;
use crate::api::methods::Methods;
use crate::api::options::Options;
use crate::dispatcher::{Dispatcher, Queues};
use crate::exec::panic::note_panics;
use crate::registry::Registry;
use crate::runtime::lifecycle::Lifecycle;
use crate::runtime::shared::Shared;
use crate::runtime::supervisor::{Threads, start_pollers, supervise};

/// A server that listens and has not started.
///
/// ```no_run
/// use teleport_server::{Methods, Server};
/// use teleport_server::wire::Tree;
///
/// # fn main() -> Result<(), teleport_server::ServeError> {
/// let methods = Methods::new().register("echo", |x: Tree| x);
/// Server::bind("tcp://*:2222")?.workers(4).run(methods) // until it is closed
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a server does nothing until `run` or `start`"]
pub struct Server {
    listener: Listener,
    options: Options,
    lifecycle: Arc<Lifecycle>,
}

impl Server {
    /// Opens the socket: `tcp://host:port`, `tcp://*:port` (all interfaces, IPv4 and IPv6), port 0 for a free one,
    /// `ipc:///path`, or `ipc://@name` (abstract). It listens there and nowhere else. May block to look up a host's name.
    ///
    /// # Errors
    /// A bad address, or one that cannot be had: [`BindError`] says why.
    pub fn bind(address: &str) -> Result<Server, ServeError> {
        let address: Address = address.parse().map_err(BindError::from)?;
        let listener = Listener::bind(&address)?;
        Ok(Server { listener, options: Options::new(), lifecycle: Arc::default() })
    }

    /// The address that it really has: with the port that was chosen for port 0.
    pub fn address(&self) -> &Address {
        self.listener.address()
    }

    /// Threads of the pool that runs all methods without a pool of their own; at least 1. Default: 1, so that functions
    /// run one at a time.
    pub fn workers(mut self, workers: usize) -> Server {
        self.options.workers = workers.max(1);
        self
    }

    /// Threads that receive and send; at least 1. Default: 1 for up to 7 cores, then one for every 4 cores, at most 4.
    pub fn io_threads(mut self, threads: usize) -> Server {
        self.options.io_threads = threads.max(1);
        self
    }

    /// Bytes that clients can make the server keep. A quarter is for what they may send without asking, each its part. The
    /// other three are for larger arguments, from when they may be sent until their functions start, and for results of
    /// more than 4 KiB, until they have gone. Calls that find no room wait to be sent; results are made in any case, within
    /// [`max_unsent_bytes`](Server::max_unsent_bytes). Names and shapes of a call count where they take more than 64 KiB. It
    /// also bounds the size of one call, to three quarters. What
    /// functions keep is not counted. At least 1 MiB. Default: a quarter of the machine's memory, or of its control group's
    /// limit.
    pub fn max_memory(mut self, bytes: u64) -> Server {
        self.options.set_max_memory(bytes);
        self
    }

    /// Bytes of results of more than 4 KiB that one connection may leave unfetched beside its largest, which may have any size:
    /// past it none of its calls start until half of them have gone, while the calls of others go on. The result that passes it
    /// may be larger, and so may those of calls that have started by then. When more than half of `max_memory`'s three quarters
    /// is in use, a connection's largest result not counted, connections share the other half alike, down to 64 KiB each, and
    /// the largest counts too. Default: an eighth of `max_memory`, at least 1 MiB.
    pub fn max_unsent_bytes(mut self, bytes: u64) -> Server {
        self.options.max_unsent = Some(bytes);
        self
    }

    /// The least rate, in bytes per second, at which a client must move memory that other clients wait for: arguments that
    /// it has half sent, results that it has not fetched. If it has moved less for 5 s in that direction, while others
    /// waited for memory, these calls fail with the error `too_slow`; arguments that come later are dropped, and functions
    /// that ran are not run again. Metadata of more than 64 KiB that crawls ends its connection. A client may be as slow as it likes while there is memory for all. 0 for never.
    /// Default: 64 KiB.
    pub fn min_rate(mut self, bytes_per_second: u64) -> Server {
        self.options.config.min_rate = bytes_per_second;
        self
    }

    /// Not part of the public interface: how long a client may be slower than `min_rate`, for tests.
    #[doc(hidden)]
    pub fn pace_window(mut self, window: Duration) -> Server {
        self.options.config.pace_window = window;
        self
    }

    /// Connections at once; one past it is told so and closed. Each costs a descriptor and up to 1 MiB of `max_memory` for
    /// small calls. When these have taken an eighth of it, a new connection gets 64 KiB; when they have taken a quarter,
    /// nothing, and all its arguments wait until they are asked for. Default: 16,384.
    pub fn max_connections(mut self, connections: usize) -> Server {
        self.options.max_connections = connections;
        self
    }

    /// What the server calls itself, in its clients' logs; at most 256 bytes. Default: empty.
    pub fn name(mut self, name: impl Into<String>) -> Server {
        self.options.config.name = name.into();
        self
    }

    /// A client from which nothing came for so long, not even the answer to a ping, is gone. Default: 120 s.
    #[doc(alias = "maxage")]
    pub fn max_silence(mut self, silence: Duration) -> Server {
        self.options.config.max_silence = silence;
        self
    }

    /// A client is sent a ping when nothing came from it for so long. Default: 10 s.
    #[doc(alias = "pings")]
    pub fn ping_interval(mut self, interval: Duration) -> Server {
        self.options.config.ping_interval = interval;
        self
    }

    /// A connection that has not introduced itself within this time is closed. Default: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Server {
        self.options.config.handshake_timeout = timeout;
        self
    }

    /// The largest call, in bytes of memory, with each array at a multiple of 64. A client refuses a larger one before it is
    /// sent. Default: 16 GiB, and never more than three quarters of `max_memory`.
    pub fn max_message_bytes(mut self, bytes: u64) -> Server {
        self.options.config.limits.max_message_bytes = bytes;
        self
    }

    /// Calls without an answer that one connection may have. They bound the queues of the workers. Default: 4,096.
    pub fn max_open_calls(mut self, calls: u32) -> Server {
        self.options.config.max_open_calls = calls;
        self
    }

    /// How long calls and answers of a client that has lost its connection are kept for it to come back, where it asked
    /// for that (`OnDisconnect::Resume`). When it is over, calls that wait are dropped and those that run are cancelled.
    /// Default: 5 minutes.
    pub fn resume_timeout(mut self, timeout: Duration) -> Server {
        self.options.resume_timeout = timeout;
        self
    }

    /// Bytes of answers that may be kept for clients which can resume, until they say that they have them; part of
    /// `max_memory`. An answer that finds no room is sent all the same, but lost with its connection: its caller is
    /// told that it ran and has expired. Default: an eighth of `max_memory`.
    pub fn max_kept_bytes(mut self, bytes: u64) -> Server {
        self.options.max_kept_bytes = Some(bytes);
        self
    }

    /// How long an I/O thread that has just been busy looks for more before it sleeps; so does one worker of each pool. Where
    /// calls come that soon, this saves most of the time of a small one, which is the time that the system takes to wake a
    /// thread. Other threads run meanwhile, and where it has been in vain too often, the thread sleeps at once. Zero for never;
    /// more than 1 ms counts as 1 ms. Default: 50 µs.
    pub fn spin(mut self, time: Duration) -> Server {
        self.options.config.spin = time;
        self
    }

    /// Whether the arrays of results are sent with a checksum. Default: no.
    pub fn checksum(mut self, checksum: bool) -> Server {
        self.options.config.checksum = checksum;
        self
    }

    /// Whether the first failure of a function closes the server, and is what `run` and `join` return. Default: no; then
    /// [`check`](ServerHandle::check) tells of failures.
    #[doc(alias = "errors")]
    pub fn stop_on_error(mut self, stop: bool) -> Server {
        self.options.stop_on_error = stop;
        self
    }

    /// How long a closing server waits for functions that run and for results that are being sent. Default: 10 s.
    pub fn close_timeout(self, timeout: Duration) -> Server {
        self.lifecycle.set_close_timeout(timeout);
        self
    }

    /// Gives the logs of a [`logged`](crate::Method::logged) method to `function`: one thread calls the done functions of
    /// all methods, in the order in which workers took the calls. At most twice as many calls as there are workers wait
    /// for it; the next ones stay in the queue, and other methods' calls go past them. A failure comes from
    /// [`check`](ServerHandle::check).
    #[doc(alias = "donefn")]
    pub fn done<R: IntoDone>(
        mut self,
        method: impl Into<String>,
        mut function: impl FnMut(Tree) -> R + Send + 'static,
    ) -> Server {
        let function = Box::new(move |logs| function(logs).into_done());
        self.options.done.push((method.into(), function));
        self
    }

    /// What closes the server from elsewhere: from a thread that handles signals, or from one of its own functions.
    pub fn closer(&self) -> Closer {
        Closer::new(&self.lifecycle)
    }

    /// Serves until somebody closes it (see [`closer`](Server::closer)). Blocks. With the feature `threads`, a `Thread` of
    /// `teleport-proc` that is killed meanwhile closes it, for which functions that run have
    /// [`close_timeout`](Server::close_timeout), and unwinds.
    ///
    /// # Errors
    /// If it cannot start: a method's name is taken twice, or the system has no thread left. With
    /// [`stop_on_error`](Server::stop_on_error), the first failure of a function. If functions did not return in time
    /// when it closed, [`ServeError::StillRunning`].
    pub fn run(self, methods: Methods) -> Result<(), ServeError> {
        self.start(methods)?.join()
    }

    /// Serves on threads of its own until the returned handle is dropped.
    ///
    /// # Errors
    /// If it cannot start: a method's name is taken twice, or the system has no thread left.
    pub fn start(self, methods: Methods) -> Result<ServerHandle, ServeError> {
        let Server { listener, mut options, lifecycle } = self;
        let done = std::mem::take(&mut options.done);
        let done_names: Vec<String> = done.iter().map(|(name, _)| name.clone()).collect();
        let registry = Registry::build(methods, options.workers, &done_names)?;
        note_panics();
        #[cfg(feature = "threads")]
        let_threads_interrupt_waits();
        if cfg!(panic = "abort") {
            tracing::warn!("built with panic = \"abort\": a function that panics ends the whole process");
        }
        let pollers = start_pollers(options.io_threads)?;
        let handles = pollers.iter().map(|thread| thread.poller().clone()).collect();
        let address = listener.address().clone();
        let shared = Shared::new(&options, lifecycle);
        let queues = Arc::new(Queues::new(&registry, &shared, options.config.spin));
        let dispatcher = Dispatcher::new(&options, &shared, registry, &queues);
        let acceptor = ConnectionAcceptor::new(&dispatcher, &options, handles);
        let threads = Threads::spawn(&dispatcher, &queues, acceptor, listener, pollers, done)?;
        supervise(threads)?;
        tracing::info!(%address, "serving");
        Ok(ServerHandle::new(dispatcher, queues, address))
    }
}

/// A `Thread` of `teleport-proc` that is killed ends where it waits for a server.
#[cfg(feature = "threads")]
fn let_threads_interrupt_waits() {
    teleport_transport::InterruptHook {
        is_interruptible: teleport_proc::is_interruptible,
        poll_interrupted: teleport_proc::poll_killed,
        unwind: teleport_proc::checkpoint,
    }
    .install();
}
