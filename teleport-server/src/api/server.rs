//! A server, from its socket to its start.
//!
//! Flow: [`Server::bind`] opens the socket -> options -> [`Server::run`] or [`Server::start`] checks the
//! methods and starts the threads. Clients that connect in between wait in the system's backlog.

use std::sync::Arc;
use std::time::Duration;

use teleport_transport::wire::Tree;
use teleport_transport::{Address, BindError, Listener};

use crate::api::error::ServeError;
use crate::api::functions::method::IntoDone;
use crate::api::functions::methods::Methods;
use crate::api::handle::{Closer, ServerHandle};
use crate::api::options::{DoneFunction, Options};
use crate::connection::accept::ConnectionAcceptor;
use crate::dispatcher::{Dispatcher, Queues};
use crate::exec::panic::note_panics;
use crate::registry::Registry;
use crate::runtime::lifecycle::Lifecycle;
use crate::runtime::shared::Shared;
use crate::threads::supervisor::{Threads, start_pollers, supervise};

/// A server that listens but has not started.
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
    /// Opens the socket at `tcp://host:port`, `tcp://*:port` (all interfaces, IPv4 and IPv6), `ipc:///path`,
    /// or `ipc://@name` (abstract). Port 0 picks a free port. May block to look up a host name.
    ///
    /// # Errors
    /// Fails if the address is malformed or cannot be used; [`BindError`] says why.
    pub fn bind(address: &str) -> Result<Server, ServeError> {
        let address: Address = address.parse().map_err(BindError::from)?;
        let listener = Listener::bind(&address)?;
        Ok(Server { listener, options: Options::new(), lifecycle: Arc::default() })
    }

    /// Returns the address of the socket, with the port that was picked for port 0.
    pub fn address(&self) -> &Address {
        self.listener.address()
    }

    /// Sets the number of threads of the shared pool, which runs all methods without a pool of their own. At
    /// least 1. Default: 1, so that functions run one at a time.
    pub fn workers(mut self, workers: usize) -> Server {
        self.options.workers = workers.max(1);
        self
    }

    /// Sets the number of threads that receive and send. At least 1. Default: 1 on machines of up to 7
    /// cores, else one for every 4 cores, at most 4.
    pub fn io_threads(mut self, threads: usize) -> Server {
        self.options.io_threads = threads.max(1);
        self
    }

    /// Sets how many bytes clients can make the server keep. At least 1 MiB. Default: a quarter of the
    /// machine's memory, or of the limit of its control group.
    ///
    /// One quarter is eager credit: clients share it and send into it without a grant. Three quarters hold
    /// larger arguments until their functions start, and results of more than 4 KiB until they are sent; a
    /// single call can take no more than this. Names and shapes count if they take more than 64 KiB. Calls
    /// that find no room wait at the client. Results are stored even if there is no room, within
    /// [`max_unsent_bytes`](Server::max_unsent_bytes). Arguments and results of up to 4 KiB are bounded by
    /// [`max_open_calls`](Server::max_open_calls) instead. Memory that functions keep is not counted.
    pub fn max_memory(mut self, bytes: u64) -> Server {
        self.options.set_max_memory(bytes);
        self
    }

    /// Sets how many bytes of results one connection may leave unfetched. Past that, none of its calls start
    /// until it has fetched half of them; calls of other connections continue. Default: an eighth of
    /// `max_memory`, at least 1 MiB.
    ///
    /// Results of up to 4 KiB do not count, and neither does the largest result, so that one big result
    /// never blocks calls. When more than half of the three quarters of [`max_memory`](Server::max_memory)
    /// is in use, connections share the other half equally, at least 64 KiB each, and the largest result
    /// counts too.
    pub fn max_unsent_bytes(mut self, bytes: u64) -> Server {
        self.options.max_unsent = Some(bytes);
        self
    }

    /// Sets how many bytes per second a client must move while other clients wait for the memory that it
    /// occupies with half-sent arguments or unfetched results. 0 disables the check. Default: 64 KiB.
    ///
    /// If a client moves less for 5 s in one direction, the affected calls fail with the error `too_slow`.
    /// Functions that ran are not run again. If metadata of more than 64 KiB arrives that slowly, the
    /// connection ends. While there is memory for all, a client may be arbitrarily slow.
    pub fn min_rate(mut self, bytes_per_second: u64) -> Server {
        self.options.config.min_rate = bytes_per_second;
        self
    }

    /// The time for which a client may be slower than `min_rate`. Not public: for tests.
    #[doc(hidden)]
    pub fn min_rate_window(mut self, window: Duration) -> Server {
        self.options.config.min_rate_window = window;
        self
    }

    /// Sets how many connections may be open at once. Further clients get an error and are disconnected.
    /// Default: 16,384.
    ///
    /// Each connection takes a descriptor and up to 1 MiB of `max_memory` as credit for small calls. When
    /// connections have taken an eighth of the memory, a new one gets 64 KiB. When they have taken a quarter,
    /// it gets none, and each of its arguments waits for a grant.
    pub fn max_connections(mut self, connections: usize) -> Server {
        self.options.max_connections = connections;
        self
    }

    /// Sets the server's name for the logs of its clients, of at most 256 bytes. Default: empty.
    pub fn name(mut self, name: impl Into<String>) -> Server {
        self.options.config.name = name.into();
        self
    }

    /// Sets how long a client may be silent, without even an answer to a ping, before its connection ends.
    /// Default: 120 s.
    #[doc(alias = "maxage")]
    pub fn max_silence(mut self, silence: Duration) -> Server {
        self.options.config.max_silence = silence;
        self
    }

    /// Sets the time without received bytes after which the server sends a ping. Default: 10 s.
    #[doc(alias = "pings")]
    pub fn ping_interval(mut self, interval: Duration) -> Server {
        self.options.config.ping_interval = interval;
        self
    }

    /// Sets how long a client may take for the handshake. Default: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Server {
        self.options.config.handshake_timeout = timeout;
        self
    }

    /// Sets the size of the largest call, in bytes of memory with each array at a multiple of 64. Clients
    /// refuse larger calls before they send them. Default: 16 GiB, and never more than three quarters of
    /// `max_memory`.
    pub fn max_message_bytes(mut self, bytes: u64) -> Server {
        self.options.config.limits.max_message_bytes = bytes;
        self
    }

    /// Sets how many calls without an answer one connection may have. Small arguments take up to 4 KiB for
    /// each. Default: 4,096.
    pub fn max_open_calls(mut self, calls: u32) -> Server {
        self.options.config.max_open_calls = calls;
        self
    }

    /// Sets how long the server keeps calls and answers of a client that has lost its connection, if the
    /// client asked for that with `OnDisconnect::Resume`. Then queued calls are dropped and running ones are
    /// cancelled. Default: 5 minutes.
    pub fn resume_timeout(mut self, timeout: Duration) -> Server {
        self.options.resume_timeout = timeout;
        self
    }

    /// Sets how many bytes of answers the server keeps for clients that can resume, until they acknowledge
    /// them. Part of `max_memory`, except answers of up to 2 KiB, which may take a quarter of these bytes.
    /// Default: an eighth of `max_memory`.
    ///
    /// An answer that finds no room is sent anyway. If its connection is lost before it arrives, the caller
    /// learns that the call ran and that its answer has expired.
    pub fn max_kept_bytes(mut self, bytes: u64) -> Server {
        self.options.max_kept_bytes = Some(bytes);
        self
    }

    /// Sets how long an I/O thread, and one worker of each pool, spins before it sleeps. At most 1 ms; zero
    /// disables it. Default: 50 µs.
    ///
    /// If the next call arrives within this time, this saves waking a thread, which is most of the time of a
    /// small call. Other threads can run meanwhile. A thread that has spun without success too often sleeps
    /// at once.
    pub fn spin(mut self, time: Duration) -> Server {
        self.options.config.spin = time;
        self
    }

    /// Sets whether the arrays of results are sent with a checksum. Default: no.
    pub fn checksum(mut self, checksum: bool) -> Server {
        self.options.config.checksum = checksum;
        self
    }

    /// Sets whether the first failure of a function closes the server and is returned by `run` and `join`.
    /// Default: no; [`check`](ServerHandle::check) returns failures instead.
    #[doc(alias = "errors")]
    pub fn stop_on_error(mut self, stop: bool) -> Server {
        self.options.stop_on_error = stop;
        self
    }

    /// Sets how long a closing server waits for running functions and for results that are being sent.
    /// Default: 10 s.
    pub fn close_timeout(self, timeout: Duration) -> Server {
        self.lifecycle.set_close_timeout(timeout);
        self
    }

    /// Passes the logs of a [`logged`](crate::Method::logged) method to `function`. One thread calls the done
    /// functions of all methods, in the order in which workers took the calls. [`check`](ServerHandle::check)
    /// returns their failures.
    ///
    /// If the logs of twice as many calls as there are workers wait, further logged calls stay in the queue
    /// and other calls pass them.
    #[doc(alias = "donefn")]
    pub fn done<R: IntoDone>(
        mut self,
        method: impl Into<String>,
        mut function: impl FnMut(Tree) -> R + Send + 'static,
    ) -> Server {
        let function = Box::new(move |logs| function(logs).into_done());
        self.options.done.push(DoneFunction { method: method.into(), function });
        self
    }

    /// Returns a handle that closes the server from elsewhere, such as a signal handler's thread or one of
    /// its functions.
    pub fn closer(&self) -> Closer {
        Closer::new(&self.lifecycle)
    }

    /// Serves until the server is closed (see [`closer`](Server::closer)). Blocks.
    ///
    /// With the feature `threads`, a `Thread` of `teleport-proc` that is killed meanwhile closes the server,
    /// waits for running functions up to the [`close_timeout`](Server::close_timeout), and unwinds.
    ///
    /// # Errors
    /// Fails if the server cannot start: two methods have the same name, or the system has no thread left.
    /// Returns the first failure of a function with [`stop_on_error`](Server::stop_on_error), and
    /// [`ServeError::StillRunning`] if functions did not return in time when it closed.
    pub fn run(self, methods: Methods) -> Result<(), ServeError> {
        self.start(methods)?.join()
    }

    /// Serves on threads of its own until the returned handle is dropped.
    ///
    /// # Errors
    /// Fails if the server cannot start: two methods have the same name, or the system has no thread left.
    pub fn start(self, methods: Methods) -> Result<ServerHandle, ServeError> {
        let Server { listener, mut options, lifecycle } = self;
        let done = std::mem::take(&mut options.done);
        let done_names: Vec<String> = done.iter().map(|done| done.method.clone()).collect();
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

/// Lets a killed `Thread` of `teleport-proc` unwind while it waits for a server.
#[cfg(feature = "threads")]
fn let_threads_interrupt_waits() {
    teleport_transport::InterruptHook {
        is_interruptible: teleport_proc::is_interruptible,
        poll_interrupted: teleport_proc::poll_killed,
        unwind: teleport_proc::checkpoint,
    }
    .install();
}
