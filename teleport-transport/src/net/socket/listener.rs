//! Listening sockets.
//!
//! Flow: [`Address`] -> [`Listener::bind`] -> a poller registers it -> [`Listener::accept`] until it returns
//! `None`. Bound: the kernel queues at most [`MAX_WAITING_CONNECTIONS`] connections, or `net.core.somaxconn`
//! if that is less.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixListener;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::Socket;
use super::error::{AcceptError, BindError};
use super::file::{self, SocketFile};
use crate::net::address::{Address, Host};
use crate::sys;

/// Enough for thousands of clients that start at once. The kernel's default limit is 4,096 too.
const MAX_WAITING_CONNECTIONS: u16 = 4096;

/// A non-blocking listening socket. Dropping it closes it, and removes its socket file.
#[derive(Debug)]
pub struct Listener {
    /// The first field, so that it is dropped while the listener is open: see `SocketFile`.
    _file: Option<SocketFile>,
    inner: Inner,
    address: Address,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at `address`.
    ///
    /// - `*` is one socket for IPv4 and IPv6, or for IPv4 alone if IPv6 is off.
    /// - A host's name means the first of its addresses that this machine has: `localhost` is `[::1]` *or*
    ///   `127.0.0.1`. Resolving it may block.
    /// - A dead server's socket file is replaced. To detect one, `bind` opens and closes a connection, which
    ///   a living server may notice. The folder's permissions and the process's umask decide who may connect.
    ///
    /// # Errors
    /// Returns [`BindError`], most often [`InUse`](BindError::InUse) because another server has the address.
    pub fn bind(address: &Address) -> Result<Listener, BindError> {
        address.check().map_err(|problem| address.error(problem))?;
        let listener = match address {
            Address::Tcp { host, port } => bind_tcp(address, host, *port)?,
            Address::Path(path) => {
                let (listener, file) = SocketFile::bind(path)?;
                Listener { _file: Some(file), inner: Inner::Unix(listener), address: address.clone() }
            }
            Address::Abstract(_) => bind_abstract(address)?,
        };
        listener.set_nonblocking().map_err(|source| BindError::Io { address: address.clone(), source })?;
        Ok(listener)
    }

    /// Returns the actual address: the IP address of a host's name, the port that was chosen for port 0, and
    /// `tcp://[::]:PORT` for `tcp://*:PORT` (`tcp://0.0.0.0:PORT` if IPv6 is off).
    ///
    /// A client on this machine can connect to this address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts the next connection. Returns `None` if none waits. Skips connections that failed while they
    /// waited.
    ///
    /// # Errors
    /// Returns [`AcceptError::Exhausted`] if no descriptor is left. Accept again later.
    pub fn accept(&self) -> Result<Option<Socket>, AcceptError> {
        loop {
            match self.try_accept() {
                Ok(socket) => return Ok(Some(socket)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(source) if sys::is_exhausted(&source) => return Err(AcceptError::Exhausted { source }),
                // Each iteration takes one connection off the queue, so the loop ends.
                Err(error) if sys::is_lost_connection(&error) => {
                    tracing::debug!(address = %self.address, %error, "a connection failed before it was accepted");
                }
                Err(source) => return Err(AcceptError::Failed { source }),
            }
        }
    }

    fn try_accept(&self) -> io::Result<Socket> {
        match &self.inner {
            Inner::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Socket::from_tcp(stream, peer)
            }
            Inner::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Socket::from_unix(stream, &self.address)
            }
        }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match &self.inner {
            Inner::Tcp(listener) => listener.set_nonblocking(true),
            Inner::Unix(listener) => listener.set_nonblocking(true),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.inner {
            Inner::Tcp(listener) => listener.as_fd(),
            Inner::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// On `&Listener`, as on `&Socket`.
impl Source for &Listener {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}

fn bind_abstract(address: &Address) -> Result<Listener, BindError> {
    let bound = file::unix_name(address).and_then(|name| UnixListener::bind_addr(&name));
    match bound {
        Ok(listener) => Ok(Listener { _file: None, inner: Inner::Unix(listener), address: address.clone() }),
        Err(error) => Err(bind_error(address, error)),
    }
}

fn bind_tcp(address: &Address, host: &Host, port: u16) -> Result<Listener, BindError> {
    let places =
        places(host, port).map_err(|source| BindError::Resolve { address: address.clone(), source })?;
    let listener = first_local(&places, |place| sys::listen_tcp(place, MAX_WAITING_CONNECTIONS));
    let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (place, listener) = bound.map_err(|error| bind_error(address, error))?;
    Ok(Listener { _file: None, inner: Inner::Tcp(listener), address: Address::of_tcp(place) })
}

/// Listens at the first of `places` that this machine has.
///
/// Skips only addresses that the machine does not have. If addresses in use were skipped too, two servers at
/// `localhost` would share its clients at random.
fn first_local<T>(
    places: &[SocketAddr],
    mut listen: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut absent = io::Error::new(io::ErrorKind::AddrNotAvailable, "its host has no address");
    for &place in places {
        match listen(place) {
            Err(error) if sys::is_absent_address(&error) => absent = error,
            result => return result,
        }
    }
    Err(absent)
}

/// Returns the socket addresses that `host` means to a server, in the order in which they are tried.
fn places(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(match host {
        Host::Any => vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()],
        Host::Ip(ip) => vec![SocketAddr::from((*ip, port))],
        Host::Name(name) => (name.as_str(), port).to_socket_addrs()?.collect(),
    })
}

fn bind_error(address: &Address, source: io::Error) -> BindError {
    let address = address.clone();
    if source.kind() == io::ErrorKind::AddrInUse {
        BindError::InUse { address }
    } else if source.kind() == io::ErrorKind::AddrNotAvailable || sys::is_absent_address(&source) {
        BindError::NotLocal { address, source }
    } else {
        BindError::Io { address, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listens with the given outcomes. Returns the addresses that were tried.
    fn listen(host: &Host, outcomes: &[Option<i32>]) -> (Vec<String>, io::Result<String>) {
        let mut tried = Vec::new();
        let result = first_local(&places(host, 7).unwrap(), |place| {
            tried.push(place.to_string());
            match outcomes[tried.len() - 1] {
                None => Ok(place.to_string()),
                Some(code) => Err(io::Error::from_raw_os_error(code)),
            }
        });
        (tried, result)
    }

    #[test]
    fn a_star_falls_back_to_ipv4_only_where_ipv6_is_off() {
        let [absent, no_family, in_use] = sys::tests::LISTEN_ERRORS;
        let both = ["[::]:7", "0.0.0.0:7"];
        assert_eq!(listen(&Host::Any, &[None]).1.unwrap(), both[0]);
        for code in [absent, no_family] {
            let (tried, result) = listen(&Host::Any, &[Some(code), None]);
            assert_eq!((tried, result.unwrap().as_str()), (both.map(str::to_owned).to_vec(), both[1]));
        }
        let (tried, result) = listen(&Host::Any, &[Some(in_use)]);
        assert_eq!((tried.len(), result.unwrap_err().raw_os_error()), (1, Some(in_use)));
        let (tried, result) = listen(&Host::Any, &[Some(no_family), Some(absent)]);
        assert_eq!((tried.len(), result.unwrap_err().raw_os_error()), (2, Some(absent)));
    }

    #[test]
    fn a_host_without_addresses_is_not_local() {
        let error = first_local::<()>(&[], |_| Ok(())).unwrap_err();
        let address: Address = "tcp://nowhere:7".parse().unwrap();
        assert!(matches!(bind_error(&address, error), BindError::NotLocal { .. }));
    }
}
