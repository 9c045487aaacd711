//! The builder of a client.

use std::sync::Arc;
use std::time::Duration;

use teleport_transport::{Config, Lent, machine_memory_bytes, on_poller_thread, random_id};

use crate::api::client::Client;
use crate::api::on_disconnect::OnDisconnect;
use crate::connect::resolver::Resolver;
use crate::engine::dialing;
use crate::engine::shared::{Engine, Settings};
use crate::error::connect::{BoxError, ClientError};

/// With less memory most results would wait at the server.
const MIN_MEMORY: u64 = 1 << 20;

/// Settings of a client. Each has a default.
///
/// ```no_run
/// use std::time::Duration;
/// use teleport_client::Client;
///
/// let client = Client::builder("slurm://trainer")
///     .name("actor-3")
///     .max_inflight(64)
///     .max_silence(Duration::from_secs(30))
///     .resolver("slurm://*", |_name| std::env::var("TRAINER"))
///     .connect()?;
/// # Ok::<(), teleport_client::ClientError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect`"]
pub struct ClientBuilder {
    settings: Settings,
    on_disconnect: OnDisconnect,
}

impl ClientBuilder {
    pub(crate) fn new(address: &str) -> ClientBuilder {
        let settings = Settings {
            address: address.into(),
            max_inflight: 16,
            connect_timeout: Some(Duration::from_secs(60)),
            close_timeout: Duration::from_secs(10),
            errors_from_next_call: false,
            max_memory: (machine_memory_bytes() / 4).max(MIN_MEMORY),
            resolvers: Vec::new(),
            config: Arc::new(Config { resume: true, ..Config::default() }),
            dialer: dialing::start,
        };
        ClientBuilder { settings, on_disconnect: OnDisconnect::Fail }
    }

    fn config(&mut self) -> &mut Config {
        Arc::make_mut(&mut self.settings.config)
    }

    /// Sets the client's name, which the server shows in its logs and to its functions. At most 256 bytes are
    /// sent. Default: empty.
    pub fn name(mut self, name: &str) -> ClientBuilder {
        name.clone_into(&mut self.config().name);
        self
    }

    /// Bounds the calls that are in flight at once, at least 1. More calls wait.
    ///
    /// A call is in flight until its result has arrived. A server may allow a connection fewer calls.
    /// Default: 16.
    #[doc(alias = "maxinflight")]
    pub fn max_inflight(mut self, calls: usize) -> ClientBuilder {
        self.settings.max_inflight = calls.max(1);
        self
    }

    /// Bounds how long `connect` waits for its server, and how long a call waits for a new connection. Zero
    /// tries each address of the server once. Default: 60 s.
    pub fn connect_timeout(mut self, time: Duration) -> ClientBuilder {
        self.settings.connect_timeout = Some(time);
        self
    }

    /// Waits for the server without a limit.
    pub fn no_connect_timeout(mut self) -> ClientBuilder {
        self.settings.connect_timeout = None;
        self
    }

    /// Sets what happens to calls in flight when the connection is lost, unless a call sets it. Default:
    /// [`OnDisconnect::Fail`].
    pub fn on_disconnect(mut self, on_disconnect: OnDisconnect) -> ClientBuilder {
        self.on_disconnect = on_disconnect;
        self
    }

    /// Bounds how long closing, and dropping the last clone, waits for calls in flight. Default: 10 s.
    pub fn close_timeout(mut self, time: Duration) -> ClientBuilder {
        self.settings.close_timeout = time;
        self
    }

    /// Sends a ping after this time without received bytes, to tell a busy server from a dead one. Default:
    /// 10 s.
    #[doc(alias = "pings")]
    pub fn ping_interval(mut self, time: Duration) -> ClientBuilder {
        self.config().ping_interval = time;
        self
    }

    /// Ends the connection after this time without received bytes. Calls in flight then fail with
    /// [`CallError::NotAlive`](crate::CallError::NotAlive). Keep it well above `ping_interval`. Default: 120
    /// s.
    #[doc(alias = "maxage")]
    pub fn max_silence(mut self, time: Duration) -> ClientBuilder {
        self.config().max_silence = time;
        self
    }

    /// Sets how long a thread that waits for a result spins before it sleeps.
    ///
    /// If results arrive within this time, this saves waking a thread, which is most of the time of a small
    /// call. Other threads can run meanwhile. If results often arrive later, threads sleep at once. Zero
    /// disables spinning. More than 1 ms counts as 1 ms. Default: 50 µs.
    pub fn spin(mut self, time: Duration) -> ClientBuilder {
        self.config().spin = time;
        self
    }

    /// Sends arguments with a checksum, which the server checks. Both sides then read each byte once more.
    /// Headers, names and shapes always have checksums. Default: no.
    pub fn checksum(mut self, checksum: bool) -> ClientBuilder {
        self.config().checksum = checksum;
        self
    }

    /// Bounds the size of a result. The server sends an error instead of a larger one. Default: 16 GiB.
    pub fn max_message_bytes(mut self, bytes: u64) -> ClientBuilder {
        self.config().limits.max_message_bytes = bytes;
        self
    }

    /// Bounds the memory for results that have arrived but were not read, at least 1 MiB.
    ///
    /// A result that finds no room stays at the server, and keeps its slot of `max_inflight`, until other
    /// results are read or dropped, **or until a caller waits for it**. A future that is waited for, polled,
    /// asked or dropped gets its result at once, even if there is no room. If it still has no result after a
    /// second or two, the results of earlier calls are fetched too, since the server may have no room for
    /// more. So a caller that only sends and never reads will wait for a slot.
    ///
    /// Small results of up to 1 MiB in all, for each connection, do not count. Neither does a result that was
    /// read: it belongs to the caller. Default: a quarter of the machine's memory, or of its control group's
    /// limit.
    pub fn max_memory(mut self, bytes: u64) -> ClientBuilder {
        self.settings.max_memory = bytes.max(MIN_MEMORY);
        self
    }

    /// Registers `function` to resolve a name to an address. It runs at each connect, on a thread that may
    /// block.
    ///
    /// `pattern` is the whole address, or has one `*` that stands for any text. The function gets that text
    /// (for `slurm://*` and `slurm://trainer`, this is `trainer`), or the whole address if there is no `*`.
    /// The first pattern that matches counts. The function may return another name to resolve. Names that
    /// form a loop are an error.
    pub fn resolver<E: Into<BoxError>>(
        mut self,
        pattern: &str,
        function: impl Fn(&str) -> Result<String, E> + Send + Sync + 'static,
    ) -> ClientBuilder {
        let function = Arc::new(move |name: &str| function(name).map_err(Into::into));
        self.settings.resolvers.push(Resolver::new(pattern, function));
        self
    }

    /// Lets the next call report the failure of a call whose future was dropped.
    ///
    /// That next call is not sent, and fails with [`CallError::Earlier`](crate::CallError::Earlier). Each
    /// failure is reported once: here or by [`Client::check`]. Default: no.
    pub fn errors_from_next_call(mut self, from_next_call: bool) -> ClientBuilder {
        self.settings.errors_from_next_call = from_next_call;
        self
    }

    /// Connects, and **blocks** until the server has answered, for up to `connect_timeout`.
    ///
    /// # Errors
    /// Returns [`ClientError`]: at once for a bad address or a peer that speaks another protocol, otherwise
    /// after `connect_timeout`, with the reason of the last attempt.
    pub fn connect(mut self) -> Result<Client, ClientError> {
        if on_poller_thread() {
            return Err(ClientError::OnPoller);
        }
        // Each client has its own configuration, since a builder can be used again.
        let max_open_calls = u32::try_from(self.settings.max_inflight).unwrap_or(u32::MAX);
        let (session, lent) = (random_id(), Some(Lent::default()));
        let config = self.config();
        *config = Config { session, lent, max_open_calls, ..config.clone() };
        let engine = Engine::new(self.settings).map_err(ClientError::System)?;
        // If it is dropped without a connection, it ends the thread that connects.
        let client = Client::new(engine.clone(), self.on_disconnect);
        dialing::connect(&engine)?;
        Ok(client)
    }
}
