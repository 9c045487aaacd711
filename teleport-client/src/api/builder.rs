//! What a client can be told before it connects.

use std::sync::Arc;
use std::time::Duration;

use teleport_transport::wire::Limits;
use teleport_transport::{Config, Lent, machine_memory_bytes, on_poller_thread, random_id};

use crate::BoxError;
use crate::api::client::Client;
use crate::api::on_disconnect::OnDisconnect;
use crate::connect::dial;
use crate::connect::resolver::Resolver;
use crate::engine::shared::{Engine, Settings};
use crate::error::connect::ClientError;

/// Less would have most results wait.
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
    address: String,
    max_inflight: usize,
    connect_timeout: Option<Duration>,
    close_timeout: Duration,
    errors_from_next_call: bool,
    on_disconnect: OnDisconnect,
    max_memory: u64,
    resolvers: Vec<Resolver>,
    config: Config,
}

impl ClientBuilder {
    pub(crate) fn new(address: &str) -> ClientBuilder {
        ClientBuilder {
            address: address.to_owned(),
            max_inflight: 16,
            connect_timeout: Some(Duration::from_secs(60)),
            close_timeout: Duration::from_secs(10),
            errors_from_next_call: false,
            on_disconnect: OnDisconnect::Fail,
            max_memory: (machine_memory_bytes() / 4).max(MIN_MEMORY),
            resolvers: Vec::new(),
            config: Config { resume: true, ..Config::default() },
        }
    }

    /// What the client calls itself: the server shows it in its logs and to its functions. At most 256 bytes travel.
    /// Default: empty.
    pub fn name(mut self, name: &str) -> ClientBuilder {
        name.clone_into(&mut self.config.name);
        self
    }

    /// Calls that may be in flight at once, at least 1; more wait. A call is in flight until its result has come. A server
    /// that allows a connection fewer bounds it further. Default: 16.
    #[doc(alias = "maxinflight")]
    pub fn max_inflight(mut self, calls: usize) -> ClientBuilder {
        self.max_inflight = calls;
        self
    }

    /// How long `connect` waits for its server, and a call for a connection that was lost. Zero tries each address of the
    /// server once. Default: 60 s.
    pub fn connect_timeout(mut self, time: Duration) -> ClientBuilder {
        self.connect_timeout = Some(time);
        self
    }

    /// Waits for the server for as long as it takes.
    pub fn no_connect_timeout(mut self) -> ClientBuilder {
        self.connect_timeout = None;
        self
    }

    /// What becomes of calls in flight when the connection is lost; calls can differ. Default: [`OnDisconnect::Fail`].
    pub fn on_disconnect(mut self, on_disconnect: OnDisconnect) -> ClientBuilder {
        self.on_disconnect = on_disconnect;
        self
    }

    /// How long closing, and dropping the last clone, waits for calls in flight. Default: 10 s.
    pub fn close_timeout(mut self, time: Duration) -> ClientBuilder {
        self.close_timeout = time;
        self
    }

    /// A ping goes out when nothing came for so long, which shows a busy server from a dead one. Default: 10 s.
    #[doc(alias = "pings")]
    pub fn ping_interval(mut self, time: Duration) -> ClientBuilder {
        self.config.ping_interval = time;
        self
    }

    /// The server is given up when nothing came for so long; calls in flight then fail with
    /// [`CallError::NotAlive`](crate::CallError::NotAlive). Keep it well above `ping_interval`. Default: 120 s.
    #[doc(alias = "maxage")]
    pub fn max_silence(mut self, time: Duration) -> ClientBuilder {
        self.config.max_silence = time;
        self
    }

    /// How long a thread that waits for a result looks for it before it sleeps. Where results come that soon, this saves most of
    /// the time of a small call, which is the time that the system takes to wake a thread. Other threads run meanwhile, and
    /// where it has been in vain too often, threads sleep at once. Zero for never; more than 1 ms counts as 1 ms. Default: 50 µs.
    pub fn spin(mut self, time: Duration) -> ClientBuilder {
        self.config.spin = time;
        self
    }

    /// Sends arguments with a checksum, which the server checks, at the cost of reading each byte once more on both
    /// sides. Headers, names and shapes always have one. Default: no.
    pub fn checksum(mut self, checksum: bool) -> ClientBuilder {
        self.config.checksum = checksum;
        self
    }

    /// The largest result that the client takes; a server sends an error instead of a larger one. Default: 16 GiB.
    pub fn max_message_bytes(mut self, bytes: u64) -> ClientBuilder {
        self.config.limits = Limits { max_message_bytes: bytes, ..self.config.limits };
        self
    }

    /// Memory for results that have come and whose futures were not read, at least 1 MiB; beside it, each connection takes
    /// small results of up to 1 MiB in all without asking. A result that finds no room stays at the server, and keeps its
    /// slot of `max_inflight`, until other futures are read or dropped, **or until somebody waits for it**: a future that is
    /// waited for, polled, asked or dropped gets its result at once, whatever the others hold, and one that is still waited
    /// for after a second or two also those of the calls before it, since the server may have no room for more results. So
    /// a caller that only sends, and never reads, comes to wait for a slot.
    ///
    /// What was read is the caller's own and does not count. Default: a quarter of the machine's memory, or of its control
    /// group's limit.
    pub fn max_memory(mut self, bytes: u64) -> ClientBuilder {
        self.max_memory = bytes.max(MIN_MEMORY);
        self
    }

    /// Has `function` say which address a name stands for. It is asked at each connect, on a thread that may block.
    ///
    /// `pattern` is the whole address, or has one `*` that stands for any text; the function gets that text
    /// (`slurm://*` and `slurm://trainer` give `trainer`), or the whole address where there is no `*`. The first pattern
    /// that fits counts. The answer may be a name again; names that lead to each other are an error.
    pub fn resolver<E: Into<BoxError>>(
        mut self,
        pattern: &str,
        function: impl Fn(&str) -> Result<String, E> + Send + Sync + 'static,
    ) -> ClientBuilder {
        let function = Arc::new(move |name: &str| function(name).map_err(Into::into));
        self.resolvers.push(Resolver::new(pattern, function));
        self
    }

    /// Has the failure of a call whose future was dropped come out of the next call, which is then not sent, as
    /// [`CallError::Earlier`](crate::CallError::Earlier). [`Client::check`] gives it too, whichever comes first.
    /// Default: no.
    pub fn errors_from_next_call(mut self, from_next_call: bool) -> ClientBuilder {
        self.errors_from_next_call = from_next_call;
        self
    }

    /// Connects, and **blocks** until the server has answered, for up to `connect_timeout`.
    ///
    /// # Errors
    /// [`ClientError`]: at once for a bad address and for a peer that speaks another protocol, otherwise when the time is
    /// over, with what was tried last.
    pub fn connect(self) -> Result<Client, ClientError> {
        if on_poller_thread() {
            return Err(ClientError::OnPoller);
        }
        let engine = Engine::new(Settings {
            address: self.address.into(),
            max_inflight: self.max_inflight,
            connect_timeout: self.connect_timeout,
            close_timeout: self.close_timeout,
            errors_from_next_call: self.errors_from_next_call,
            on_disconnect: self.on_disconnect,
            max_memory: self.max_memory,
            resolvers: self.resolvers,
            // Of each client its own: builders can be used again.
            config: Arc::new(Config {
                session: random_id(),
                lent: Some(Lent::default()),
                max_open_calls: u32::try_from(self.max_inflight.max(1)).unwrap_or(u32::MAX),
                ..self.config
            }),
            dialler: dial::start,
        })
        .map_err(ClientError::System)?;
        // Dropped where it does not come back with a connection, which ends the thread that connects.
        let client = Client::new(engine.clone());
        dial::connect(&engine)?;
        Ok(client)
    }
}
