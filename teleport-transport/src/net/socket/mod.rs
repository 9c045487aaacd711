//! Connected stream sockets, TCP and Unix behind one type, and the listeners that accept them.
//!
//! Flow: [`Address`] -> [`Socket::connect`] or `Listener::accept` -> a non-blocking [`Socket`], which a
//! poller registers with mio. It reads and writes through `&self`, so its two directions can have two locks.
//! A socket never buffers a byte and never blocks once it is connected. Each `Socket` and `Listener` is one
//! descriptor.

mod dial;
mod error;
mod file;
pub(crate) mod listener;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::fork_guard::{ForkGuard, wrong_process};
use crate::net::address::Address;
use crate::sys;

pub use error::{AcceptError, Attempt, BindError, ConnectError};

/// The bytes that the kernel may hold unsent for a new TCP socket: enough to keep a slow link busy.
pub(crate) const MIN_NOTSENT_BYTES: u32 = 128 << 10;

/// A connected, non-blocking stream socket, tuned for Teleport.
///
/// TCP sockets send small messages at once (`TCP_NODELAY`). The kernel holds at most 128 KiB unsent
/// (`TCP_NOTSENT_LOWAT`), or more if the peer takes it within 0.4 ms. A vanished machine is noticed within
/// two minutes, even when idle (keep-alive). Unix sockets get a send buffer of 256 KiB, or what
/// `net.core.wmem_max` allows.
///
/// A socket reads and writes through `&self`. Two threads that read at once would each get parts of the
/// stream, so hold a lock for each direction. Dropping the socket closes it. In a forked child every use of
/// it fails, since that would corrupt the parent's stream.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    peer: String,
    is_unix: bool,
    /// A forked child shares the stream and must not touch it.
    fork_guard: ForkGuard,
}

impl Socket {
    /// Connects. **Blocks** until connected, or until `deadline` plus the time that the system takes to
    /// resolve a host's name. Never call it on a poller's thread.
    ///
    /// If a host has several addresses, they are tried in the system's order. Each gets an equal share of the
    /// time that is left, so an address that drops packets does not use it up. Without a deadline the
    /// kernel's time-outs apply: about two minutes for each TCP address, and none for a Unix socket whose
    /// server does not accept.
    ///
    /// # Errors
    /// Returns [`ConnectError`] for a bad address, a name that is not found, or with the error of each
    /// address.
    pub fn connect(address: &Address, deadline: Option<Instant>) -> Result<Socket, ConnectError> {
        dial::connect(address, deadline)
    }

    /// Reads into `segments`, in order. Returns how many bytes were read.
    ///
    /// 0 means the end of the stream, unless `segments` had no room. At most 1,024 segments are used.
    ///
    /// # Errors
    /// Returns [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing has arrived. Any other error means that
    /// the connection has failed.
    pub fn read_vectored(&self, segments: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.check_process()?;
        sys::read_vectored(self.fd.as_fd(), segments)
    }

    /// Writes from `segments`, in order. Returns how many bytes the socket took. At most 1,024 segments are
    /// used. Never raises `SIGPIPE`.
    ///
    /// # Errors
    /// Returns [`WouldBlock`](io::ErrorKind::WouldBlock) if the socket is full. Any other error means that
    /// the connection has failed.
    pub fn write_vectored(&self, segments: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_process()?;
        sys::write_vectored(self.fd.as_fd(), segments)
    }

    /// Limits the bytes that the kernel holds unsent for a TCP socket. The socket becomes writable when half
    /// of them are sent. Does nothing for a Unix socket, whose send buffer is the limit.
    ///
    /// # Errors
    /// Returns the system's error.
    pub(crate) fn set_max_unsent(&self, bytes: u32) -> io::Result<()> {
        if self.is_unix { Ok(()) } else { sys::set_tcp_not_sent_low(self.fd.as_fd(), bytes) }
    }

    /// Shuts down both directions. The peer reads the end of the stream; readers and writers of this side
    /// wake up.
    ///
    /// # Errors
    /// Returns [`NotConnected`](io::ErrorKind::NotConnected) if the connection is already gone.
    pub fn shutdown(&self) -> io::Result<()> {
        self.check_process()?;
        sys::shutdown(self.fd.as_fd())
    }

    /// Shuts down the direction to the peer, which reads the end of the stream and may still send.
    ///
    /// # Errors
    /// Returns [`NotConnected`](io::ErrorKind::NotConnected) if the connection is already gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.check_process()?;
        sys::shutdown_write(self.fd.as_fd())
    }

    fn check_process(&self) -> io::Result<()> {
        if self.fork_guard.is_current() { Ok(()) } else { Err(wrong_process()) }
    }

    /// Returns a description of the peer for logs: `tcp://10.0.0.7:40112`, or `ipc:///run/x.sock (pid 71, uid
    /// 1000)`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Returns true for a Unix socket, whose peer is on this machine.
    pub fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// Tunes a TCP stream.
    fn from_tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        sys::tune_tcp(stream.as_fd(), MIN_NOTSENT_BYTES)?;
        Ok(Socket {
            fd: stream.into(),
            peer: Address::of_tcp(peer).to_string(),
            is_unix: false,
            fork_guard: ForkGuard::current(),
        })
    }

    /// Tunes a Unix stream of the socket at `address`.
    fn from_unix(stream: UnixStream, address: &Address) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        sys::tune_unix(stream.as_fd())?;
        let peer = match sys::peer_credentials(stream.as_fd()) {
            Ok((pid, uid)) => format!("{address} (pid {pid}, uid {uid})"),
            Err(_) => address.to_string(),
        };
        Ok(Socket { fd: stream.into(), peer, is_unix: true, fork_guard: ForkGuard::current() })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// On `&Socket`, since a poller reregisters it while other threads read and write.
impl Source for &Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.check_process()?;
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.check_process()?;
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.check_process()?;
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests;
