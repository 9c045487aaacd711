//! The client: one connection to one server, from which any thread calls.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Array, Element, IntoTree, Shape};
use teleport_transport::{Lent, MemoryError, on_poller_thread};

use crate::api::builder::ClientBuilder;
use crate::api::call::Call;
use crate::api::method::ToMethod;
use crate::api::stats::ClientStats;
use crate::engine::shared::Engine;
use crate::error::call::CallError;
use crate::error::connect::ClientError;

/// A connection to a server whose functions it calls. Clones share it; any number of threads may call.
///
/// When the connection breaks, calls in flight fail, and the client connects again by itself; calls made meanwhile wait
/// for that, up to `connect_timeout`.
///
/// When the last clone is dropped, it **waits** for the calls whose futures were dropped, since nobody else does: up to
/// `close_timeout` (default 10 s). Calls whose futures are kept go on. Then it says goodbye. On a poller's thread, while a
/// panic unwinds, and in a thread that is killed, it does not wait, and all calls go on.
///
/// In a process that `fork` copied from the client's, all calls fail with [`CallError::Forked`], and nothing that is done with
/// the client or its futures there, dropping them included, touches the connection. Start processes by executing a program.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Ends the client when the last clone is gone.
struct Handle {
    engine: Arc<Engine>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the server at `address`, and waits for it for up to a minute.
    ///
    /// Addresses are `tcp://HOST:PORT`, `ipc:///PATH` and `ipc://@NAME`. **Blocks** until connected.
    ///
    /// # Errors
    /// [`ClientError`], which says what was tried.
    pub fn connect(address: &str) -> Result<Client, ClientError> {
        Client::builder(address).connect()
    }

    /// A client of the server at `address` with settings of its own.
    pub fn builder(address: &str) -> ClientBuilder {
        ClientBuilder::new(address)
    }

    pub(crate) fn new(engine: Arc<Engine>) -> Client {
        Client { handle: Arc::new(Handle { engine }) }
    }

    /// A call of `method` with `args`, which is not sent yet.
    ///
    /// A name gives a [`Tree`](teleport_transport::wire::Tree); an [`Rpc`](teleport_transport::wire::Rpc) gives what it
    /// says.
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
        Call::new(self.handle.engine.clone(), method.into_name(), args.into_tree())
    }

    /// An array of `shape` on memory of the pool, writable and warm where memory of earlier messages can be used again.
    ///
    /// Its content is unspecified, except that booleans are false. Filling and sending it touches no fresh pages, which
    /// for large arrays is several times faster than a new vector.
    ///
    /// # Errors
    /// [`MemoryError`] if the system gives no memory, or none could hold such an array.
    pub fn alloc<T: Element>(&self, shape: impl Into<Shape>) -> Result<Array, MemoryError> {
        self.handle.engine.settings.config.pool.alloc_array::<T>(shape)
    }

    /// Gives the oldest failure, not given before, of a call whose future was dropped.
    ///
    /// Up to 64 are kept; later ones are only logged.
    ///
    /// # Errors
    /// That failure.
    pub fn check(&self) -> Result<(), CallError> {
        let engine = &self.handle.engine;
        if engine.fork_guard.is_current() {
            engine.state.lock().take_failure().map_or(Ok(()), Err)
        } else {
            Ok(())
        }
    }

    /// Numbers of this moment.
    pub fn stats(&self) -> ClientStats {
        let engine = &self.handle.engine;
        if !engine.fork_guard.is_current() {
            return ClientStats::default();
        }
        let (server, in_flight, waiting) = {
            let state = engine.state.lock();
            let server = state.door().map(|door| door.link.peer_address().to_owned());
            (server, state.in_flight(), state.waiting())
        };
        let (sends_per_second, receives_per_second) = engine.meter.rates(Instant::now());
        let counts = &engine.meter.counts;
        ClientStats {
            server,
            futures: engine.futures.load(Ordering::Relaxed),
            in_flight,
            waiting,
            held_bytes: engine.budget.used_bytes(),
            lent_bytes: engine.settings.config.lent.as_ref().map_or(0, Lent::bytes),
            awaiting_memory: engine.budget.waiting(),
            connects: counts.connects.load(Ordering::Relaxed),
            sends: counts.sends.load(Ordering::Relaxed),
            receives: counts.receives.load(Ordering::Relaxed),
            sent_bytes: counts.sent_bytes.load(Ordering::Relaxed),
            received_bytes: counts.received_bytes.load(Ordering::Relaxed),
            sends_per_second,
            receives_per_second,
        }
    }

    /// The address that the client was made with.
    pub fn address(&self) -> &str {
        &self.handle.engine.settings.address
    }

    /// Closes the client for all its clones: takes no more calls, **waits** for those in flight up to `close_timeout`
    /// (default 10 s), says goodbye, and ends what is left with [`CallError::Closed`]. Closing again does nothing.
    /// On a poller's thread it does not wait. With the feature `threads`, neither does a `Thread` of `teleport-proc` that is killed,
    /// which unwinds once the client is closed.
    ///
    /// # Errors
    /// As [`check`](Client::check): the first failure of a call whose future was dropped.
    pub fn close(&self) -> Result<(), CallError> {
        let engine = &self.handle.engine;
        if !engine.fork_guard.is_current() {
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
        if !self.engine.fork_guard.is_current() {
            return;
        }
        if on_poller_thread() || std::thread::panicking() {
            self.engine.release_at_once();
        } else {
            self.engine.release(self.engine.settings.close_timeout);
        }
        let failure = self.engine.state.lock().take_failure();
        if let Some(error) = failure {
            tracing::warn!(%error, "a call failed, and the client was dropped before anyone asked `check`");
        }
    }
}
