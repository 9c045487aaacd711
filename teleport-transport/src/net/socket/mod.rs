//! Connected stream sockets, TCP and Unix behind one type, and the listeners that accept them.
//!
//! Flow: [`Address`] -> [`Socket::connect`] or [`Listener::accept`] -> a non-blocking [`Socket`], which a
//! poller registers with mio and which reads and writes through `&self`, so that its two directions can have
//! two locks. Never buffers a byte, never knows a frame, never blocks after it is connected. Each `Socket`
//! and `Listener` is one descriptor.

mod dial;
mod error;
mod file;
mod listener;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::fork_guard::{ForkGuard, wrong_process};
use crate::link::MIN_BACKLOG_BYTES;
use crate::net::address::Address;
use crate::sys;

pub use error::{AcceptError, Attempt, BindError, ConnectError};
pub use listener::Listener;

/// A connected, non-blocking stream socket, tuned for Teleport.
///
/// TCP sockets send small messages at once (`TCP_NODELAY`), keep at most 128 KiB unsent in the kernel
/// (`TCP_NOTSENT_LOWAT`), or more if the peer takes it within 0.4 ms, and notice a vanished machine within two minutes even when idle (keep-alive). Unix
/// sockets get a send buffer of 256 KiB, or what `net.core.wmem_max` allows.
///
/// It reads and writes through `&self`; two threads that read at once would tear the stream apart, so its
/// users hold a lock for each direction. It is closed when dropped. In a process that was forked from the one that it was made
/// in, every use of it fails, since that would tear the parent's stream apart.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    peer: String,
    is_unix: bool,
    /// A process that was forked from this one shares the stream, and must not touch it.
    fork_guard: ForkGuard,
}

impl Socket {
    /// Connects, and **blocks** until connected: at most until `deadline`, plus the time that the system
    /// takes to look up a host's name. Never call it on a poller's thread.
    ///
    /// A host with several addresses has them tried in the system's order, each with its share of the time
    /// that is left, so that one that swallows packets does not use it up. Without a deadline the kernel's
    /// own time-outs hold (about two minutes for each TCP address; none for a Unix socket whose server
    /// accepts nobody).
    ///
    /// # Errors
    /// [`ConnectError`]: a bad address, a name that is not found, or what each address answered.
    pub fn connect(address: &Address, deadline: Option<Instant>) -> Result<Socket, ConnectError> {
        dial::connect(address, deadline)
    }

    /// Reads what the socket has into `segments`, in their order, and says how many bytes that were.
    ///
    /// 0 means that the peer sends no more (unless `segments` had no room). At most 1,024 segments are used.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when nothing is there; otherwise the connection has failed.
    pub fn read_vectored(&self, segments: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.check_home()?;
        sys::read_vectored(self.fd.as_fd(), segments)
    }

    /// Writes from `segments`, in their order, and says how many bytes the socket took. At most 1,024
    /// segments are used. Never raises `SIGPIPE`.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when the socket takes nothing now; otherwise the connection
    /// has failed.
    pub fn write_vectored(&self, segments: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_home()?;
        sys::write_vectored(self.fd.as_fd(), segments)
    }

    /// Bounds what the kernel holds that a TCP socket has taken and not sent; it asks for more when half of that has gone. A
    /// Unix socket has its send buffer for that, and stays as it is.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn set_max_unsent(&self, bytes: u32) -> io::Result<()> {
        if self.is_unix { Ok(()) } else { sys::set_tcp_not_sent_low(self.fd.as_fd(), bytes) }
    }

    /// Ends both directions: the peer reads to the end, and readers and writers of this side wake up.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the connection is already gone.
    pub fn shutdown(&self) -> io::Result<()> {
        self.check_home()?;
        sys::shutdown(self.fd.as_fd())
    }

    /// Ends the direction to the peer: it reads to the end, and may still send.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the connection is already gone.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.check_home()?;
        sys::shutdown_write(self.fd.as_fd())
    }

    fn check_home(&self) -> io::Result<()> {
        if self.fork_guard.is_current() { Ok(()) } else { Err(wrong_process()) }
    }

    /// Who is at the other end, for people: `tcp://10.0.0.7:40112`, or `ipc:///run/x.sock (pid 71, uid
    /// 1000)`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whether it is a Unix socket, whose peer is on this machine for certain.
    pub fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// Tunes a TCP stream.
    fn from_tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        sys::tune_tcp(stream.as_fd(), MIN_BACKLOG_BYTES)?;
        Ok(Socket {
            fd: stream.into(),
            peer: listener::tcp_address(peer).to_string(),
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

/// On `&Socket`, since a poller registers it anew while other threads read and write.
impl Source for &Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.check_home()?;
        SourceFd(&self.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.check_home()?;
        SourceFd(&self.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.check_home()?;
        SourceFd(&self.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests;
