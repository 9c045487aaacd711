//! Why a socket could not be opened, accepted or connected.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::net::address::{Address, AddressError};

/// Why a server cannot listen at an address.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address itself is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A living server has the address: end it, or choose another one.
    #[error("cannot listen at {address}: another process does so already; end it or choose another address")]
    InUse {
        /// The address that was asked for.
        address: Address,
    },
    /// The path of a socket file leads to something else, which is never removed.
    #[error("cannot listen at ipc://{}: a file that is no socket is there; move it away or choose another path", path.display())]
    NotASocket {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The host's name was not found.
    #[error("cannot listen at {address}: its host was not found: {source}")]
    Resolve {
        /// The address that was asked for.
        address: Address,
        /// What the name look-up said.
        source: io::Error,
    },
    /// No network interface of this machine has the address.
    #[error(
        "cannot listen at {address}: no interface of this machine has it ({source}); tcp://*:PORT takes every one"
    )]
    NotLocal {
        /// The address that was asked for.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused for another reason: no permission for the port or the folder, no such folder, …
    #[error("cannot listen at {address}: {source}")]
    Io {
        /// The address that was asked for.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a listener has no next connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The process or the machine has no descriptor or memory for it (`EMFILE`, `ENFILE`, `ENOBUFS`,
    /// `ENOMEM`).
    ///
    /// The connection stays in the kernel's queue, and an edge-triggered poller is not told of it again:
    /// accept again once a descriptor was closed, or after a while.
    #[error("cannot accept a connection now: {source}; raise the limit of open files (ulimit -n)")]
    Exhausted {
        /// What the kernel said.
        source: io::Error,
    },
    /// The listener itself does not work.
    #[error("cannot accept connections: {source}")]
    Failed {
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a client has no connection. All but [`Address`](ConnectError::Address) may pass with time.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address itself is wrong: trying again does not help.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The host's name was not found.
    #[error("cannot connect to {address}: its host was not found: {source}")]
    Resolve {
        /// The address that was asked for.
        address: Address,
        /// What the name look-up said.
        source: io::Error,
    },
    /// Nobody answered at any address.
    #[error("cannot connect to {address}: {}", Attempts(attempts))]
    Failed {
        /// The address that was asked for.
        address: Address,
        /// What became of each address that its host has, in the order in which they were tried.
        attempts: Vec<Attempt>,
    },
}

/// One address that a client tried.
#[derive(Debug)]
pub struct Attempt {
    /// The address, with an IP address where the host had a name.
    pub address: Address,
    /// Why there is no connection; [`TimedOut`](io::ErrorKind::TimedOut) also where no time was left to try.
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
