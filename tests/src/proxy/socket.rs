//! Sockets of both sorts, which never block, and the listeners that they come from.

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
    /// Listens at an address of the same sort as this one, and gives it.
    pub(super) fn bind_like(server: &str) -> (Listener, String) {
        if server.starts_with("tcp://") {
            let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
            listener.set_nonblocking(true).expect("sockets can be asked");
            let address = format!("tcp://{}", listener.local_addr().expect("it is bound"));
            (Listener::Tcp(listener), address)
        } else {
            let address = abstract_address();
            let listener = UnixListener::bind_addr(&unix_address(&address)).expect("nobody has this name");
            listener.set_nonblocking(true).expect("sockets can be asked");
            (Listener::Unix(listener), address)
        }
    }

    /// The next connection, if one is there.
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
    /// # Errors
    /// Nobody listens there.
    pub(super) fn connect(address: &str) -> io::Result<Socket> {
        let socket = match address.strip_prefix("tcp://") {
            Some(place) => Socket::Tcp(TcpStream::connect(place)?),
            None => Socket::Unix(UnixStream::connect_addr(&unix_address(address))?),
        };
        Ok(socket.prepared())
    }

    fn prepared(self) -> Socket {
        let prepared = match &self {
            // Pieces must leave as they are written.
            Socket::Tcp(stream) => stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)),
            Socket::Unix(stream) => stream.set_nonblocking(true),
        };
        prepared.expect("sockets can be asked");
        self
    }

    /// Tells the peer that nothing more will come.
    pub(super) fn finish(&self) {
        // An error means that the peer has gone.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Closes it so that the peer is told of a reset.
    pub(super) fn reset(self) {
        if let Socket::Tcp(stream) = &self {
            let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(stream, Linger, &now).expect("sockets can be asked");
        }
    }

    /// # Errors
    /// As the system has it; [`is_passing`] tells whether it is none.
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).read(bytes),
            Socket::Unix(stream) => (&*stream).read(bytes),
        }
    }

    /// # Errors
    /// As the system has it; [`is_passing`] tells whether it is none.
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

/// Whether this error says to try again when the socket is ready, or that a connection has gone before it was accepted.
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
