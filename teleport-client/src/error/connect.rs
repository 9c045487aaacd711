//! Why a client could not connect: as a whole, in one attempt, or in asking a resolver.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::ErrorKind;
use teleport_transport::{AddressError, ConnectError};

use crate::error::call::LastAttempt;

/// Why a client was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is wrong: trying again does not help.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No server answered in time. Start it, correct the address, or wait longer.
    #[error(
        "no server at {address} within {waited:.1?} ({attempts} attempt{}; `connect_timeout` sets how long){}",
        if *attempts == 1 { "" } else { "s" },
        LastAttempt(last)
    )]
    TimedOut {
        /// The address as it was given.
        address: Arc<str>,
        /// How long the client tried.
        waited: Duration,
        /// How often it tried.
        attempts: u64,
        /// Why the last attempt failed; none if it is still under way.
        last: Option<Arc<AttemptError>>,
    },
    /// Something answered that will not serve this client however long it waits: it speaks another protocol, or
    /// refuses.
    #[error("the server at {address} does not take this client: {reason}")]
    Refused {
        /// The address as it was given.
        address: Arc<str>,
        /// What happened.
        reason: Arc<AttemptError>,
    },
    /// The system has no descriptor or thread left for a client.
    #[error("the system gives no thread or descriptor for a client: {0}")]
    System(#[source] io::Error),
    /// Connecting blocks, and a poller's thread must not.
    #[error("connecting on a poller's thread would wait for itself: connect on another thread")]
    OnPoller,
}

/// Why one attempt to connect failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// A resolver gave no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A resolver gave something that is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody accepted the connection.
    #[error(transparent)]
    Socket(#[from] ConnectError),
    /// The system cannot watch the socket.
    #[error("cannot watch the socket: {0}")]
    System(#[source] io::Error),
    /// The connection ended before both sides had introduced themselves.
    #[error("{peer}: {reason}")]
    Handshake {
        /// Who was at the other end.
        peer: String,
        /// Why the connection ended.
        reason: Arc<Closed>,
    },
    /// The client was closed meanwhile.
    #[error("the client was closed")]
    Closed,
}

impl AttemptError {
    /// Whether trying again cannot help a client that has never been connected.
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

/// Why a resolver gave no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Its function returned an error or panicked.
    #[error("the resolver of {address} failed: {source}")]
    Failed {
        /// What it was asked for.
        address: String,
        /// What it said.
        source: crate::BoxError,
    },
    /// Names stand for each other, or too many for one another.
    #[error("names lead to each other without end: {}", chain.join(" -> "))]
    Loop {
        /// Each name and what it stands for.
        chain: Vec<String>,
    },
}
