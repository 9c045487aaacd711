//! The errors of opening, accepting and connecting sockets.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::net::address::{Address, AddressError};

/// The reason why a server cannot listen at an address.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address itself is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Another server listens at the address.
    #[error("cannot listen at {address}: another process listens there; end it or choose another address")]
    InUse {
        /// The requested address.
        address: Address,
    },
    /// The path exists and is not a socket. Such a file is never removed.
    #[error("cannot listen at ipc://{}: a file that is not a socket is there; move it away or choose another path", path.display())]
    NotASocket {
        /// The requested path.
        path: PathBuf,
    },
    /// The host's name was not found.
    #[error("cannot listen at {address}: its host was not found: {source}")]
    Resolve {
        /// The requested address.
        address: Address,
        /// The resolver's error.
        source: io::Error,
    },
    /// No network interface of this machine has the address.
    #[error(
        "cannot listen at {address}: no interface of this machine has it ({source}); tcp://*:PORT takes every one"
    )]
    NotLocal {
        /// The requested address.
        address: Address,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel refused for another reason: no permission for the port or the folder, no such folder, …
    #[error("cannot listen at {address}: {source}")]
    Io {
        /// The requested address.
        address: Address,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The reason why a listener cannot accept a connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The process or the machine has no descriptor or memory left (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`).
    ///
    /// The connection stays in the kernel's queue. An edge-triggered poller gets no further event for it, so
    /// accept again later.
    #[error("cannot accept a connection now: {source}; raise the limit of open files (ulimit -n)")]
    Exhausted {
        /// The kernel's error.
        source: io::Error,
    },
    /// The listener itself has failed.
    #[error("cannot accept connections: {source}")]
    Failed {
        /// The kernel's error.
        source: io::Error,
    },
}

/// The reason why a client cannot connect. Every error except [`Address`](ConnectError::Address) may be
/// temporary.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address itself is wrong: trying again does not help.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The host's name was not found.
    #[error("cannot connect to {address}: its host was not found: {source}")]
    Resolve {
        /// The requested address.
        address: Address,
        /// The resolver's error.
        source: io::Error,
    },
    /// Each address of the host failed.
    #[error("cannot connect to {address}: {}", Attempts(attempts))]
    Failed {
        /// The requested address.
        address: Address,
        /// The error of each address, in the order in which they were tried.
        attempts: Vec<Attempt>,
    },
}

/// One address that a client tried.
#[derive(Debug)]
pub struct Attempt {
    /// The address, with the IP address that the host's name resolved to.
    pub address: Address,
    /// The error; [`TimedOut`](io::ErrorKind::TimedOut) also if the deadline passed before the attempt.
    pub error: io::Error,
}

/// `[::1]:2222: Connection refused; 127.0.0.1:2222: Connection refused`
struct Attempts<'a>(&'a [Attempt]);

impl Display for Attempts<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("its host has no address"),
            [only] => write!(f, "{}", only.error),
            attempts => attempts.iter().enumerate().try_for_each(|(index, attempt)| {
                let separator = if index == 0 { "" } else { "; " };
                write!(f, "{separator}{}: {}", attempt.address, attempt.error)
            }),
        }
    }
}
