//! The addresses of servers: `tcp://HOST:PORT`, `ipc:///PATH`, `ipc://@NAME`.
//!
//! Flow: text -> [`Address`], checked once -> the sockets. Displaying and parsing an address round-trip, so a
//! client can use the address that a listener reports. Nothing here opens a socket or resolves a name.
//!
//! To add a scheme: extend [`Address`] and `parse` here, then `Listener::bind` and `Socket::connect` in
//! [`socket`](crate::net::socket). Bound: socket paths and names have at most [`MAX_SOCKET_NAME_BYTES`], the
//! size of the kernel's `sockaddr_un`.

mod error;
mod host;

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use error::{AddressError, AddressProblem};
pub use host::Host;

/// The maximum length of a socket file's path or of an abstract name: `sun_path` has 108 bytes, one of which
/// is a zero.
pub const MAX_SOCKET_NAME_BYTES: usize = 107;

/// An address that a server can listen at or a client connect to.
///
/// | text | meaning for a server | meaning for a client |
/// |---|---|---|
/// | `tcp://host:2222` | the host's first address on this machine | each of its addresses in turn |
/// | `tcp://10.0.0.5:2222`, `tcp://[::1]:2222` | that address only | that address |
/// | `tcp://*:2222` | every address of this machine, IPv4 and IPv6 | this machine |
/// | `tcp://[::]:2222` | the same, or an error where IPv6 is off | this machine |
/// | `tcp://0.0.0.0:2222` | every IPv4 address of this machine | this machine |
/// | `tcp://host:0` | a free port, see `Listener::address` | an error |
/// | `ipc:///run/x.sock` | a socket file | a socket file |
/// | `ipc://@name` | an abstract name (Linux), which leaves no file | the same |
///
/// # Example
/// ```
/// use teleport_transport::{Address, Host};
///
/// let address: Address = "tcp://[::1]:2222".parse()?;
/// assert_eq!(address, Address::Tcp { host: Host::Ip("::1".parse()?), port: 2222 });
/// assert_eq!(address.to_string(), "tcp://[::1]:2222");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// TCP over IPv4 or IPv6.
    Tcp {
        /// The machine to connect to, or the local address to listen at.
        host: Host,
        /// The port; 0 lets a server take a free one.
        port: u16,
    },
    /// A Unix socket with a file, by its absolute path.
    Path(PathBuf),
    /// A Unix socket with an abstract name. It has no file and ends with its last user.
    Abstract(String),
}

impl Address {
    /// Returns the address of a TCP socket. An IPv4 peer of an IPv6 socket is shown as IPv4.
    pub(crate) fn of_tcp(socket: SocketAddr) -> Address {
        let host = match socket {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Host::Name(format!("{}%{}", v6.ip(), v6.scope_id())),
            _ => Host::Ip(socket.ip().to_canonical()),
        };
        Address::Tcp { host, port: socket.port() }
    }

    /// Returns true for a Unix socket, whose two ends are on one machine.
    pub fn is_unix(&self) -> bool {
        !matches!(self, Address::Tcp { .. })
    }

    /// Checks an address. Parsing and the sockets use the same check.
    pub(crate) fn check(&self) -> Result<(), AddressProblem> {
        match self {
            Address::Tcp { host: Host::Name(name), .. } => host::check_name(name),
            Address::Tcp { .. } => Ok(()),
            Address::Path(path) => check_path(path),
            Address::Abstract(name) => check_abstract(name),
        }
    }

    /// Returns an error about this address.
    pub(crate) fn error(&self, problem: AddressProblem) -> AddressError {
        AddressError { address: self.to_string(), problem }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Parses an address.
    ///
    /// # Errors
    /// Returns [`AddressError`] with the whole text, the problem, and the correct form.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text)
            .and_then(|address| address.check().map(|()| address))
            .map_err(|problem| AddressError { address: text.to_owned(), problem })
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Address::Path(path) => write!(f, "ipc://{}", path.display()),
            Address::Abstract(name) => write!(f, "ipc://@{name}"),
        }
    }
}

fn parse(text: &str) -> Result<Address, AddressProblem> {
    let (scheme, rest) = text.split_once("://").ok_or(AddressProblem::NoScheme)?;
    match scheme {
        "tcp" => parse_tcp(rest),
        "ipc" => Ok(match rest.strip_prefix('@') {
            Some(name) => Address::Abstract(name.to_owned()),
            None => Address::Path(PathBuf::from(rest)),
        }),
        _ => Err(AddressProblem::UnknownScheme { scheme: scheme.to_owned() }),
    }
}

fn parse_tcp(rest: &str) -> Result<Address, AddressProblem> {
    let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressProblem::UnclosedBracket)?;
        (Host::in_brackets(host)?, rest.strip_prefix(':').ok_or(AddressProblem::NoPort)?)
    } else {
        let (host, port) = rest.rsplit_once(':').ok_or(AddressProblem::NoPort)?;
        (Host::bare(host)?, port)
    };
    Ok(Address::Tcp { host, port: parse_port(port)? })
}

fn parse_port(text: &str) -> Result<u16, AddressProblem> {
    if text.is_empty() {
        return Err(AddressProblem::NoPort);
    }
    // `u16::from_str` would also accept "+80".
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { text.parse().ok() } else { None };
    port.ok_or_else(|| AddressProblem::BadPort { port: text.to_owned() })
}

fn check_path(path: &Path) -> Result<(), AddressProblem> {
    let bytes = path.as_os_str().as_encoded_bytes();
    match bytes {
        [] => Err(AddressProblem::NoPath),
        _ if !path.is_absolute() => Err(AddressProblem::RelativePath),
        [.., b'/'] => Err(AddressProblem::NoPath),
        _ if bytes.contains(&0) => Err(AddressProblem::ZeroByte),
        _ => check_length(bytes.len()),
    }
}

fn check_abstract(name: &str) -> Result<(), AddressProblem> {
    match name.as_bytes() {
        [] => Err(AddressProblem::NoName),
        bytes if bytes.contains(&0) => Err(AddressProblem::ZeroByte),
        bytes => check_length(bytes.len()),
    }
}

fn check_length(bytes: usize) -> Result<(), AddressProblem> {
    if bytes <= MAX_SOCKET_NAME_BYTES {
        return Ok(());
    }
    Err(AddressProblem::TooLong { bytes, max_bytes: MAX_SOCKET_NAME_BYTES })
}

#[cfg(test)]
mod tests;
