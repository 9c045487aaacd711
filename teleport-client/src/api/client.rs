//! The client: one connection to one server, from which any thread calls.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Array, Element, IntoTree, Shape};
use teleport_transport::{Lent, MemoryError, on_poller_thread};

use crate::api::builder::ClientBuilder;
use crate::api::call::Call;
use crate::api::method::ToMethod;
use crate::api::on_disconnect::OnDisconnect;
use crate::api::stats::ClientStats;
use crate::engine::shared::Engine;
use crate::error::call::CallError;
use crate::error::connect::ClientError;

/// A connection to a server whose functions it calls. Clones share it, and any number of threads may call.
///
/// When the connection breaks, calls in flight fail, and the client connects again by itself. Calls made
/// meanwhile wait for that, up to `connect_timeout`.
///
/// When the last clone is dropped, it **waits** for the calls whose futures were dropped, up to
/// `close_timeout` (default 10 s). Calls whose futures are kept continue. Then it says goodbye. On a poller's
/// thread, while a panic unwinds, and in a thread that is killed, it does not wait, and all calls continue.
///
/// In a forked process, all calls fail with [`CallError::Forked`]. There, no use of the client or its futures
/// touches the connection, and neither does dropping them. Start processes by executing a program instead.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Ends the client when the last clone is gone.
struct Handle {
    engine: Arc<Engine>,
    /// The default of calls.
    on_disconnect: OnDisconnect,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the server at `address`. Waits for it for up to a minute.
    ///
    /// Addresses are `tcp://HOST:PORT`, `ipc:///PATH` and `ipc://@NAME`. **Blocks** until connected.
    ///
    /// # Errors
    /// Returns [`ClientError`] with the reason and the attempts.
    pub fn connect(address: &str) -> Result<Client, ClientError> {
        Client::builder(address).connect()
    }

    /// Returns a builder of a client with its own settings, for the server at `address`.
    pub fn builder(address: &str) -> ClientBuilder {
        ClientBuilder::new(address)
    }

    pub(crate) fn new(engine: Arc<Engine>, on_disconnect: OnDisconnect) -> Client {
        Client { handle: Arc::new(Handle { engine, on_disconnect }) }
    }

    /// Creates a call of `method` with `args`, which is not sent yet.
    ///
    /// Returns a [`Tree`](teleport_transport::wire::Tree) for a method called by its name, and the result
    /// type of an [`Rpc`](teleport_transport::wire::Rpc).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use teleport_client::{Client, wire::{Array, Rpc, tree}};
    /// const NORM: Rpc<Array, f64> = Rpc::new("norm");
    ///
    /// let client = Client::connect("tcp://localhost:2222")?;
    /// let reply = client.call("add", tree!({"foo": 1, "bar": 1})).wait()?;
    /// assert_eq!(reply.field::<i64>("result")?, 2);
    /// let norm: f64 = client.call(NORM, Array::zeros::<f32>([64, 64])).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn call<A: IntoTree, M: ToMethod<A>>(&self, method: M, args: A) -> Call<M::Reply> {
        let Handle { engine, on_disconnect } = &*self.handle;
        Call::new(engine.clone(), method.into_name(), args.into_tree(), *on_disconnect)
    }

    /// Allocates an array of `shape` from the pool. It is writable, and warm if it reuses memory of earlier
    /// messages.
    ///
    /// Its content is unspecified, except that booleans are false. Filling and sending it touches no fresh
    /// pages. For large arrays, this is several times faster than a new vector.
    ///
    /// # Errors
    /// Returns [`MemoryError`] if the system gives no memory, or if the size of the array overflows.
    pub fn alloc<T: Element>(&self, shape: impl Into<Shape>) -> Result<Array, MemoryError> {
        self.handle.engine.settings.config.pool.alloc_array::<T>(shape)
    }

    /// Returns the oldest unreported failure of a call whose future was dropped.
    ///
    /// Up to 64 failures are kept. Later ones are only logged.
    ///
    /// # Errors
    /// That failure.
    pub fn check(&self) -> Result<(), CallError> {
        let engine = &self.handle.engine;
        if !engine.process.is_current() {
            return Ok(());
        }
        engine.with(|client| client.failures.take()).map_or(Ok(()), Err)
    }

    /// Returns the current statistics.
    pub fn stats(&self) -> ClientStats {
        let engine = &self.handle.engine;
        if !engine.process.is_current() {
            return ClientStats::default();
        }
        let (stats, link) = engine.with(|client| {
            let (sends_per_second, receives_per_second) = client.counters.rates(Instant::now());
            let counters = &client.counters;
            let stats = ClientStats {
                server: None,
                futures: client.table.futures(),
                in_flight: client.in_flight(),
                waiting: client.slots.line().len(),
                held_bytes: engine.budget.used_bytes(),
                lent_bytes: engine.settings.config.lent.as_ref().map_or(0, Lent::bytes),
                awaiting_memory: engine.budget.waiting(),
                connects: counters.connects,
                sends: counters.sends,
                receives: counters.receives,
                sent_bytes: counters.sent_bytes,
                received_bytes: counters.received_bytes,
                sends_per_second,
                receives_per_second,
            };
            (stats, client.connection.open().and_then(|open| open.link.upgrade()))
        });
        ClientStats { server: link.map(|link| link.peer_address().to_owned()), ..stats }
    }

    /// The address that the client was made with.
    pub fn address(&self) -> &str {
        &self.handle.engine.settings.address
    }

    /// Closes the client for all its clones.
    ///
    /// Accepts no more calls, **waits** for those in flight up to `close_timeout` (default 10 s), says
    /// goodbye, and ends the remaining calls with [`CallError::Closed`]. Closing again does nothing. On a
    /// poller's thread it does not wait. With the feature `threads`, a `Thread` of `teleport-proc` that is
    /// killed does not wait either, and unwinds once the client is closed.
    ///
    /// # Errors
    /// Returns the first failure of a call whose future was dropped, like [`check`](Client::check).
    pub fn close(&self) -> Result<(), CallError> {
        let engine = &self.handle.engine;
        if !engine.process.is_current() {
            return Ok(());
        }
        let within = if on_poller_thread() { Duration::ZERO } else { engine.settings.close_timeout };
        if let Err(interrupted) = engine.close(within) {
            interrupted.unwind();
        }
        self.check()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.engine.process.is_current() {
            return;
        }
        let waits = !on_poller_thread() && !std::thread::panicking();
        self.engine.release(waits.then_some(self.engine.settings.close_timeout));
        if let Some(error) = self.engine.with(|client| client.failures.take()) {
            tracing::warn!(%error, "a call failed, and the client was dropped before anyone asked `check`");
        }
    }
}
