//! The handle of a running server.

use std::sync::Arc;
use std::time::Duration;

use teleport_transport::Address;

use crate::api::error::ServeError;
use crate::api::stats::{BatchStats, Stats};
use crate::dispatcher::{Dispatcher, Queues};
use crate::runtime::lifecycle::Lifecycle;

/// A running server. Dropping it closes the server, as [`close`](ServerHandle::close) does, even in a thread
/// that is killed, so that no server outlives the thread that owns it.
///
/// ```
/// use teleport_server::{Methods, Server};
/// use teleport_server::wire::Tree;
///
/// let server = Server::bind("tcp://127.0.0.1:0")?.start(Methods::new().register("echo", |x: Tree| x))?;
/// println!("listening at {}", server.address()); // tcp://127.0.0.1:41234
/// server.check()?; // the first failure of a function, if there was one
/// assert_eq!(server.clients(), 0);
/// server.close()?;
/// # Ok::<(), teleport_server::ServeError>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping the handle closes the server; `join` waits until it is closed"]
pub struct ServerHandle {
    dispatcher: Arc<Dispatcher>,
    queues: Arc<Queues>,
    address: Address,
}

impl ServerHandle {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>, queues: Arc<Queues>, address: Address) -> ServerHandle {
        ServerHandle { dispatcher, queues, address }
    }

    /// Returns the address that the server listens at, with the port that was picked for port 0. Clients on
    /// this machine can connect to it as it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the number of connected clients.
    pub fn clients(&self) -> usize {
        self.dispatcher.shared.counters.clients()
    }

    /// Returns the server's counters and its current state. Locks each connection for a moment.
    pub fn stats(&self) -> Stats {
        if !self.dispatcher.shared.lifecycle.is_current() {
            return Stats::default();
        }
        let Dispatcher { shared, connections, log_order, sessions, .. } = &*self.dispatcher;
        Stats {
            queued: self.queues.len(),
            awaiting_done: log_order.len(),
            held_bytes: shared.budget.used_bytes(),
            lent_bytes: shared.lent_bytes(),
            awaiting_memory: shared.budget.waiting(),
            kept_bytes: sessions.kept_bytes(),
            unsent_bytes: connections.all().iter().map(|link| link.queued_bytes()).sum(),
            ..shared.counters.stats()
        }
    }

    /// Returns the statistics of a method's batches, or `None` if there is no such method or it is not
    /// batched.
    pub fn batches(&self, method: &str) -> Option<BatchStats> {
        let Dispatcher { shared, registry, .. } = &*self.dispatcher;
        let batcher = registry.batcher(method).filter(|_| shared.lifecycle.is_current())?;
        Some(self.queues.batchers[batcher].stats())
    }

    /// Returns the first failure of a function or done function since the last call of `check`. Never
    /// blocks.
    ///
    /// The caller of the function gets the error in any case.
    ///
    /// # Errors
    /// Returns [`ServeError::Function`] or [`ServeError::Done`]. Returns [`ServeError::Forked`] in a forked
    /// process: there, no use of the handle touches the server, and neither does dropping it.
    pub fn check(&self) -> Result<(), ServeError> {
        if !self.dispatcher.shared.lifecycle.is_current() {
            return Err(ServeError::Forked);
        }
        self.dispatcher.shared.lifecycle.check()
    }

    /// Returns a handle that closes the server from elsewhere.
    pub fn closer(&self) -> Closer {
        Closer::new(&self.dispatcher.shared.lifecycle)
    }

    /// Closes the server and waits until it is closed.
    ///
    /// The server accepts no more connections. It answers calls that have not started with an error that says
    /// that they did not run. It waits for running calls and sends their results, says goodbye to its
    /// clients, and removes its socket file. Blocks for at most the `close_timeout` and a few seconds.
    /// Functions that still run then can see that in [`Context::is_cancelled`](crate::Context::is_cancelled).
    /// If they do not return, they are left behind with their threads. Closing twice has no further effect.
    ///
    /// On a thread of the server itself, such as in a function, this requests the close and does not wait.
    /// With the feature `threads`, a `Thread` of `teleport-proc` that is killed meanwhile unwinds, and the
    /// server continues to close.
    ///
    /// # Errors
    /// Returns [`ServeError::StillRunning`], or the failure that ended the server before. Each is returned
    /// once. Returns [`ServeError::Forked`] in a forked process, where nothing happens.
    pub fn close(&self) -> Result<(), ServeError> {
        self.end(None)
    }

    /// Closes the server like [`close`](ServerHandle::close), within a time of its own.
    ///
    /// # Errors
    /// Returns the same errors as [`close`](ServerHandle::close).
    pub fn close_within(&self, time: Duration) -> Result<(), ServeError> {
        self.end(Some(time))
    }

    fn end(&self, within: Option<Duration>) -> Result<(), ServeError> {
        self.dispatcher.shared.lifecycle.request_close(within);
        match self.dispatcher.shared.lifecycle.wait_closed() {
            Err(ServeError::OnOwnThread) => Ok(()),
            ended => ended,
        }
    }

    /// Waits until something else closes the server: a [`Closer`], or a failure with
    /// [`stop_on_error`](crate::Server::stop_on_error). Blocks. With the feature `threads`, a `Thread` of
    /// `teleport-proc` that is killed meanwhile closes the server and unwinds.
    ///
    /// # Errors
    /// Returns the failure that ended the server, or [`ServeError::StillRunning`]. On a thread of the server
    /// itself, returns [`ServeError::OnOwnThread`], and the server closes. In a forked process, returns
    /// [`ServeError::Forked`].
    pub fn join(self) -> Result<(), ServeError> {
        self.dispatcher.shared.lifecycle.wait_closed()
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.dispatcher.shared.lifecycle.request_close(None);
        // Errors are logged. An owner who wants them calls `close`.
        let _ = self.dispatcher.shared.lifecycle.wait_closed_in_drop();
    }
}

/// Closes a server from elsewhere: from a thread that handles signals, or from one of the server's own
/// functions. Clones close the same server.
///
/// ```
/// use teleport_server::{Methods, Server};
///
/// let server = Server::bind("tcp://127.0.0.1:0")?;
/// let closer = server.closer();
/// std::thread::spawn(move || closer.close()); // say, when Ctrl-C was pressed
/// server.run(Methods::new())?; // returns when the server is closed
/// # Ok::<(), teleport_server::ServeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Closer {
    lifecycle: Arc<Lifecycle>,
}

impl Closer {
    pub(crate) fn new(lifecycle: &Arc<Lifecycle>) -> Closer {
        Closer { lifecycle: lifecycle.clone() }
    }

    /// Asks the server to close within its `close_timeout`. Returns at once.
    pub fn close(&self) {
        self.lifecycle.request_close(None);
    }

    /// Asks the server to close within `time`. Later requests can only shorten the time. Returns at once.
    pub fn close_within(&self, time: Duration) {
        self.lifecycle.request_close(Some(time));
    }

    /// Returns true if the server is closing or closed.
    pub fn is_closing(&self) -> bool {
        self.lifecycle.is_closing()
    }
}
