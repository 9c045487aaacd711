//! Plain sockets: how to listen and connect, their options, and how a side waits for them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The default buffer of a Unix socket costs a fifth of its speed. The kernel doubles this value, and has
/// its own limit.
const UNIX_SEND_BUFFER_BYTES: usize = 1 << 20;

/// The time for which a read spins before it blocks: Teleport's default.
pub(super) const SPIN: Duration = Duration::from_micros(50);

/// The reads between two yields, as Teleport does.
pub(super) const LOOKS_PER_YIELD: u32 = 4;

/// How a side waits for its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Waiting {
    Blocking,
    Spinning,
}

impl Waiting {
    /// Returns the settings for the report.
    pub(in super::super) fn settings(self) -> String {
        let waiting = match self {
            Waiting::Blocking => "reads that block",
            Waiting::Spinning => "reads that spin for 50 us before they block",
        };
        format!(
            "{waiting}, of at most 1 MiB; TCP_NODELAY; warm memory in huge pages; many small messages per write"
        )
    }

    /// The same for contenders that serve many clients.
    pub(in super::super) fn settings_of_many(self) -> String {
        let waiting = match self {
            Waiting::Blocking => "one thread per side, which blocks in epoll_wait",
            Waiting::Spinning => "one thread per side, which spins for 50 us before it blocks in epoll_wait",
        };
        format!("{waiting}; TCP_NODELAY; one read and one write per message; warm memory for each connection")
    }

    fn of<S: Read + Write + AsFd + Send + 'static>(
        self,
        stream: S,
        set_nonblocking: impl FnOnce(&S, bool) -> io::Result<()>,
    ) -> io::Result<Box<dyn Stream>> {
        if self == Waiting::Blocking {
            return Ok(Box::new(stream));
        }
        set_nonblocking(&stream, true)?;
        Ok(Box::new(Spinning(stream)))
    }
}

pub(super) trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A non-blocking socket behind blocking calls.
struct Spinning<S>(S);

/// Blocks until the socket is ready.
pub(super) fn block(socket: impl AsFd, until: PollFlags) -> io::Result<()> {
    poll(&mut [PollFd::new(socket.as_fd(), until)], PollTimeout::NONE)?;
    Ok(())
}

impl<S: Read + AsFd> Read for Spinning<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut start = None;
        loop {
            for _ in 0..LOOKS_PER_YIELD {
                match self.0.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
            }
            if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
                block(&self.0, PollFlags::POLLIN)?;
            } else {
                thread::yield_now();
            }
        }
    }
}

impl<S: Write + AsFd> Write for Spinning<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    block(&self.0, PollFlags::POLLOUT)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A listening socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at `tcp://HOST:PORT` or `ipc://@NAME`, and says where.
    pub(super) fn bind(address: &str) -> io::Result<(Listener, String)> {
        if let Some(name) = address.strip_prefix("ipc://@") {
            let place = SocketAddr::from_abstract_name(name)?;
            return Ok((Listener::Unix(UnixListener::bind_addr(&place)?), address.to_owned()));
        }
        let listener = TcpListener::bind(address.trim_start_matches("tcp://"))?;
        let address = format!("tcp://{}", listener.local_addr()?);
        Ok((Listener::Tcp(listener), address))
    }

    pub(super) fn accept(&self, waiting: Waiting) -> io::Result<Box<dyn Stream>> {
        match self {
            Listener::Unix(listener) => tuned_unix(listener.accept()?.0, waiting),
            Listener::Tcp(listener) => tuned(listener.accept()?.0, waiting),
        }
    }

    /// Accepts a connection whose reads and writes never block.
    pub(super) fn accept_unblocked(&self) -> io::Result<File> {
        match self {
            Listener::Unix(listener) => unblocked_unix(listener.accept()?.0),
            Listener::Tcp(listener) => unblocked(listener.accept()?.0),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

fn tuned(stream: TcpStream, waiting: Waiting) -> io::Result<Box<dyn Stream>> {
    stream.set_nodelay(true)?;
    waiting.of(stream, TcpStream::set_nonblocking)
}

fn tuned_unix(stream: UnixStream, waiting: Waiting) -> io::Result<Box<dyn Stream>> {
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::SndBuf, &UNIX_SEND_BUFFER_BYTES)?;
    waiting.of(stream, UnixStream::set_nonblocking)
}

pub(super) fn connect(address: &str, waiting: Waiting) -> io::Result<Box<dyn Stream>> {
    match address.strip_prefix("ipc://@") {
        Some(name) => {
            let place = SocketAddr::from_abstract_name(name)?;
            tuned_unix(UnixStream::connect_addr(&place)?, waiting)
        }
        None => tuned(TcpStream::connect(address.trim_start_matches("tcp://"))?, waiting),
    }
}

/// Connects with reads and writes that never block.
pub(super) fn connect_unblocked(address: &str) -> io::Result<File> {
    match address.strip_prefix("ipc://@") {
        Some(name) => unblocked_unix(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?),
        None => unblocked(TcpStream::connect(address.trim_start_matches("tcp://"))?),
    }
}

fn unblocked(stream: TcpStream) -> io::Result<File> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(File::from(OwnedFd::from(stream)))
}

/// The default buffers have room for more than is ever on the way.
fn unblocked_unix(stream: UnixStream) -> io::Result<File> {
    stream.set_nonblocking(true)?;
    Ok(File::from(OwnedFd::from(stream)))
}
