//! Non-blocking TCP and Unix sockets and their listeners.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::scratch::abstract_address;

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens at a new address of the same scheme as `server`. Returns the listener and its address.
    pub(super) fn bind_like(server: &str) -> (Listener, String) {
        if server.starts_with("tcp://") {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            listener.set_nonblocking(true).expect("the socket takes the option");
            let address = format!("tcp://{}", listener.local_addr().expect("it is bound"));
            (Listener::Tcp(listener), address)
        } else {
            let address = abstract_address();
            let listener = UnixListener::bind_addr(&unix_address(&address)).expect("the name is free");
            listener.set_nonblocking(true).expect("the socket takes the option");
            (Listener::Unix(listener), address)
        }
    }

    /// Returns the next connection, if one is waiting.
    pub(super) fn accept(&self) -> Option<Socket> {
        let socket = match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
        };
        match socket {
            Ok(socket) => Some(socket.prepared()),
            Err(error) if is_passing(&error) => None,
            Err(error) => panic!("the proxy cannot accept: {error}"),
        }
    }
}

impl Socket {
    /// Connects to the server at `address`.
    ///
    /// # Errors
    /// If no server listens at `address`.
    pub(super) fn connect(address: &str) -> io::Result<Socket> {
        let socket = match address.strip_prefix("tcp://") {
            Some(place) => Socket::Tcp(TcpStream::connect(place)?),
            None => Socket::Unix(UnixStream::connect_addr(&unix_address(address))?),
        };
        Ok(socket.prepared())
    }

    fn prepared(self) -> Socket {
        let prepared = match &self {
            // Each piece must leave as soon as it is written.
            Socket::Tcp(stream) => stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)),
            Socket::Unix(stream) => stream.set_nonblocking(true),
        };
        prepared.expect("the socket takes the option");
        self
    }

    /// Shuts down both halves of the connection.
    pub(super) fn finish(&self) {
        // An error means that the peer is gone.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Closes the socket with a reset.
    pub(super) fn reset(self) {
        if let Socket::Tcp(stream) = &self {
            let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(stream, Linger, &now).expect("the socket takes the option");
        }
    }

    /// Reads what has arrived.
    ///
    /// # Errors
    /// Passes on the system's error. If [`is_passing`] returns true for it, try again later.
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).read(bytes),
            Socket::Unix(stream) => (&*stream).read(bytes),
        }
    }

    /// Writes as much as fits the socket.
    ///
    /// # Errors
    /// Passes on the system's error. If [`is_passing`] returns true for it, try again later.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).write(bytes),
            Socket::Unix(stream) => (&*stream).write(bytes),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Returns true if the operation should be tried again later: the socket was not ready, or a connection ended
/// before it was accepted.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

fn unix_address(address: &str) -> SocketAddr {
    let place = address.strip_prefix("ipc://").expect("tcp or ipc");
    match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(place),
    }
    .expect("the name is short")
}
