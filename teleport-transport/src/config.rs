//! What both ends of a connection are configured with: limits, times, names. A plain struct with documented defaults.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::time::Duration;

use teleport_wire::{Hello, Id128, Limits};

use crate::memory::pool::Pool;
use crate::memory::user_held::Lent;
use crate::role::Role;

/// Longer times are none in practice, and adding them to a clock could overflow it.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How a connection behaves and what it accepts.
///
/// ```
/// use teleport_transport::Config;
/// let config = Config { name: "trainer".into(), ..Config::default() };
/// assert_eq!(config.eager_credit_bytes, 1 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// What this side calls itself; the peer sees it in its logs. At most 256 bytes. Default: empty.
    pub name: String,
    /// Limits on what is received; the peer learns them and keeps to them.
    pub limits: Limits,
    /// Calls that a client may have open on one connection. A client tells its server how many it will have at most, for the
    /// server's log. Default: 4,096.
    pub max_open_calls: u32,
    /// Memory that names, shapes and nodes of the calls that have no answer may take on one connection, their payload not
    /// counted. A call past it is answered with the error `overloaded`; one alone always fits. A client holds as much for
    /// each of its own calls in flight as one result may have. Default: 256 MiB, which is 4,096 calls of about 100 named
    /// arrays each.
    pub max_structure_bytes: u64,
    /// Payload that the peer may send without asking; larger messages wait for a grant. Costs the same amount of memory
    /// per connection, when used. Default: 1 MiB.
    pub eager_credit_bytes: u64,
    /// A ping is sent when nothing was received for so long. Default: 10 s.
    pub ping_interval: Duration,
    /// The connection ends when nothing was received for so long. Default: 120 s.
    pub max_silence: Duration,
    /// The peer must have introduced itself within this time. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Bytes per second, for a server. A client that holds memory which other clients wait for, in arguments that it has half
    /// sent or in results that it has not fetched, must move as much payload in that direction, or these calls fail with
    /// the error `too_slow`. 0 for never. Default: 64 KiB.
    pub min_rate: u64,
    /// How long a client may be slower. Not part of the public interface: tests make it short.
    #[doc(hidden)]
    pub pace_window: Duration,
    /// Tells this side from every other, also from an earlier one at the same address: a peer that finds another one knows
    /// that what it left here is gone. Default: one for the process.
    pub instance: Id128,
    /// A client's session, whose calls may survive a lost connection; the same on each of its connections. Default: none.
    pub session: Id128,
    /// Whether the layer above can resume: as a client with a `session`, or as a server that keeps answers until they are
    /// acknowledged. Default: no.
    pub resume: bool,
    /// Payload is sent with a checksum, and the peer is asked for the same; it is enough that one side asks. A message whose
    /// payload was changed on its way fails with the error `checksum`. Headers and metadata always have checksums.
    /// Default: no.
    pub checksum: bool,
    /// How long a thread that waits looks for what comes before it sleeps, which is several times as fast as being woken where
    /// answers come that soon. It lets other threads run meanwhile, and stops looking where that has been in vain too often.
    /// Zero for never; more than 1 ms counts as 1 ms. Default: 50 µs.
    pub spin: Duration,
    /// Where received payload is put. Default: the pool of the process.
    pub pool: Pool,
    /// Counts received memory that users hold. Default: none, and nothing is counted.
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
            pace_window: Duration::from_secs(5),
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

/// 128 random bits that tell a session, a server or a process from every other. Who knows a session can take its results:
/// show it to nobody.
pub fn random_id() -> Id128 {
    // Each `RandomState` is keyed by the system's randomness.
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
