//! The reasons why a client could not connect: in all, in one attempt, or in a resolver.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::ErrorKind;
use teleport_transport::{AddressError, ConnectError};

/// Any error, as resolvers may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a client was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is wrong. Trying again does not help.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No server answered in time. Start it, correct the address, or wait longer.
    #[error(
        "no server at {address} within {waited:.1?} ({attempts} attempt{}; `connect_timeout` sets how long){}",
        if *attempts == 1 { "" } else { "s" },
        last_attempt(last.as_deref())
    )]
    TimedOut {
        /// The address as given.
        address: Arc<str>,
        /// The time that the client tried.
        waited: Duration,
        /// The number of attempts.
        attempts: u64,
        /// The reason for the failure of the last attempt. `None` if the first one is still under way.
        last: Option<Arc<AttemptError>>,
    },
    /// The server speaks another protocol, or refuses this client. Waiting longer does not help.
    #[error("the server at {address} does not accept this client: {reason}")]
    Refused {
        /// The address as given.
        address: Arc<str>,
        /// The reason for the refusal.
        reason: Arc<AttemptError>,
    },
    /// The system has no descriptor or thread left for a client.
    #[error("the system has no thread or descriptor left for a client: {0}")]
    System(#[source] io::Error),
    /// Connecting blocks, which is not allowed on a poller's thread.
    #[error("connecting on a poller's thread would wait for itself: connect on another thread")]
    OnPoller,
}

/// The reason why one attempt to connect failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// A resolver returned no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A resolver returned something that is not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No server accepted the connection.
    #[error(transparent)]
    Socket(#[from] ConnectError),
    /// The system cannot watch the socket.
    #[error("cannot watch the socket: {0}")]
    System(#[source] io::Error),
    /// The connection ended before the handshake was complete.
    #[error("{peer}: {reason}")]
    Handshake {
        /// The address of the peer.
        peer: String,
        /// The reason for the end of the connection.
        reason: Arc<Closed>,
    },
    /// The client was closed meanwhile.
    #[error("the client was closed")]
    Closed,
}

impl AttemptError {
    /// Returns true if trying again cannot help a client that has never been connected.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            AttemptError::Address(_) | AttemptError::Closed => true,
            AttemptError::Socket(error) => matches!(error, ConnectError::Address(_)),
            AttemptError::Handshake { reason, .. } => {
                matches!(**reason, Closed::Protocol(_))
                    || matches!(reason.goodbye_kind(), Some(ErrorKind::Unauthorized | ErrorKind::Protocol))
            }
            AttemptError::Resolve(_) | AttemptError::System(_) => false,
        }
    }
}

/// `: cannot connect to …`
pub(crate) fn last_attempt(last: Option<&AttemptError>) -> String {
    last.map_or(String::new(), |last| format!(": {last}"))
}

/// The reason why a resolver returned no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Its function returned an error or panicked.
    #[error("the resolver of {address} failed: {source}")]
    Failed {
        /// The name to resolve.
        address: String,
        /// The error that it returned.
        source: BoxError,
    },
    /// The names form a loop, or the chain of names is too long.
    #[error("names form a loop or a chain that is too long: {}", chain.join(" -> "))]
    Loop {
        /// Each name, followed by the name that it resolves to.
        chain: Vec<String>,
    },
}
