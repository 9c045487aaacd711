//! The configuration of one end of a connection: limits, times, names. A plain struct with documented
//! defaults.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::time::Duration;

use teleport_wire::{Hello, Id128, Limits};

use crate::memory::pool::Pool;
use crate::memory::user_held::Lent;
use crate::role::Role;

/// Longer times make no difference in practice, and adding them to a clock could overflow.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The behaviour and the limits of a connection.
///
/// ```
/// use teleport_transport::Config;
/// let config = Config { name: "trainer".into(), ..Config::default() };
/// assert_eq!(config.eager_credit_bytes, 1 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this side, for the peer's logs. At most 256 bytes. Default: empty.
    pub name: String,
    /// Limits on received messages. The handshake announces them to the peer, which must respect them.
    pub limits: Limits,
    /// The number of calls that a client may have open on one connection. A client announces its maximum,
    /// which the server logs. Default: 4,096.
    pub max_open_calls: u32,
    /// The memory for names, shapes and nodes of unanswered calls on one connection, without their payload. A
    /// call past it fails with the error `overloaded`; a single call always fits. A client holds this much
    /// for the result of each call in flight. Default: 256 MiB, enough for 4,096 calls of about 100 named
    /// arrays each.
    pub max_structure_bytes: u64,
    /// The payload bytes that the peer may send without a grant. Larger messages wait for a grant. Each
    /// connection that uses this credit takes this much memory, and up to 4 KiB for the small message of each
    /// open call. Default: 1 MiB.
    pub eager_credit_bytes: u64,
    /// A ping is sent after this time without received bytes. Default: 10 s.
    pub ping_interval: Duration,
    /// The connection ends after this time without received bytes. Default: 120 s.
    pub max_silence: Duration,
    /// The peer must complete the handshake within this time. Default: 10 s.
    pub handshake_timeout: Duration,
    /// The minimum rate of a server's client, in bytes per second. It applies while the client holds memory
    /// for which other clients wait: half-sent arguments or unfetched results. A client that moves less
    /// payload in that direction has these calls fail with the error `too_slow`. 0 disables the check.
    /// Default: 64 KiB.
    pub min_rate: u64,
    /// The time for which a client may be slower. Not public: for tests.
    #[doc(hidden)]
    pub min_rate_window: Duration,
    /// Identifies this instance, also among earlier ones at the same address. If a peer finds another
    /// instance after it reconnects, its calls and sessions there are lost. Default: one id for the process.
    pub instance: Id128,
    /// The session of a client, whose calls may survive a lost connection. Use the same id for each of its
    /// connections. Default: none.
    pub session: Id128,
    /// True if the layer above can resume calls: a client that has a `session`, or a server that keeps
    /// answers until they are acknowledged. Default: false.
    pub resume: bool,
    /// Adds checksums to payload in both directions. It is enough if one side sets this. A message with
    /// corrupted payload fails with the error `checksum`. Headers and metadata always have checksums.
    /// Default: false.
    pub checksum: bool,
    /// The time for which a waiting thread spins before it sleeps. If answers arrive within this time,
    /// spinning is several times as fast as being woken. The thread yields to other threads meanwhile, and
    /// spins less often after spins that found nothing. Zero disables spinning; the maximum is 1 ms. Default:
    /// 50 µs.
    pub spin: Duration,
    /// The pool for received payload. Default: the pool of the process.
    pub pool: Pool,
    /// Counts received memory that users hold. Default: none.
    pub lent: Option<Lent>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: String::new(),
            limits: Limits::default(),
            max_open_calls: 4096,
            max_structure_bytes: 256 << 20,
            eager_credit_bytes: 1 << 20,
            ping_interval: Duration::from_secs(10),
            max_silence: Duration::from_secs(120),
            handshake_timeout: Duration::from_secs(10),
            min_rate: 64 << 10,
            min_rate_window: Duration::from_secs(5),
            instance: process_id(),
            session: Id128::NONE,
            resume: false,
            checksum: false,
            spin: Duration::from_micros(50),
            pool: Pool::global().clone(),
            lent: None,
        }
    }
}

impl Config {
    pub(crate) fn hello(&self, role: Role) -> Hello {
        let feature = |wanted, bit| if wanted { bit } else { 0 };
        Hello {
            features: feature(self.checksum, Hello::CHECKSUM) | feature(self.resume, Hello::RESUME),
            limits: self.limits,
            eager_credit_bytes: self.eager_credit_bytes,
            max_open_calls: self.max_open_calls,
            instance: self.instance,
            session: if role == Role::Client { self.session } else { Id128::NONE },
            name: self.name.clone(),
            auth: Vec::new(),
        }
    }
}

fn process_id() -> Id128 {
    static ID: OnceLock<Id128> = OnceLock::new();
    *ID.get_or_init(random_id)
}

/// Returns 128 random bits that identify a session, a server or a process. A session's id is a secret: it
/// gives access to the session's results.
pub fn random_id() -> Id128 {
    // The system's randomness keys each `RandomState`.
    let half = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.finish().to_le_bytes()
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half());
    id[8..].copy_from_slice(&half());
    Id128(id)
}
