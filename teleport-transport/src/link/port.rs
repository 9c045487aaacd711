//! The socket of a link, and its registration with the event loop.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Weak;
use std::time::Duration;

use mio::event::Source as _;
use mio::{Interest, Token};
use parking_lot::RwLock;

use super::sleeper::Sleeper;
use super::status::Status;
use crate::net::socket::Socket;
use crate::protocol::{MAX_SEGMENTS_PER_WRITE, WriteBuffer};
use crate::reactor::mailbox::Command;
use crate::reactor::poller::Poller;
use crate::reactor::source::{Request, Source};

/// A link, for parts that must not depend on its type.
pub(super) trait Flush: std::fmt::Debug + Send + Sync {
    /// Writes what is queued, unless another thread or the event loop does.
    fn flush(&self);

    /// Like `flush`, but only if a call is held back.
    fn flush_coalesced(&self);
}

pub(super) struct Port {
    pub(super) key: usize,
    pub(super) event_loop: LoopHandle,
    pub(super) status: Status,
    /// `None` once the descriptor is closed. Locked in shared mode for one non-blocking system call, and by a
    /// thread that sleeps on the socket.
    socket: RwLock<Option<Socket>>,
}

/// The event loop of a link.
#[derive(Clone)]
pub(super) struct LoopHandle {
    poller: Poller,
    link: Weak<dyn Source>,
}

impl LoopHandle {
    /// Lets the event loop handle a request of this link soon.
    pub(super) fn request(&self, request: Request) {
        if let Some(link) = self.link.upgrade() {
            self.poller.send(Command::Request(link, request));
        }
    }
}

impl Port {
    pub(super) fn new(key: usize, poller: &Poller, socket: Socket, link: Weak<dyn Source>) -> Port {
        let event_loop = LoopHandle { poller: poller.clone(), link };
        Port { key, event_loop, status: Status::new(), socket: RwLock::new(Some(socket)) }
    }

    /// Returns true unless this process was forked from the link's. Check this before taking a lock: its
    /// holder may not exist here.
    pub(super) fn is_current(&self) -> bool {
        self.event_loop.poller.is_current()
    }

    pub(super) fn send(&self, command: Command) {
        self.event_loop.poller.send(command);
    }

    /// Registers the interest that `status` holds with the kernel. The kernel then reports readiness even if
    /// it has before. `registered` is the last registered interest.
    ///
    /// # Errors
    /// Returns the system's error. The socket is then not watched.
    pub(super) fn register(&self, registered: &mut Option<Interest>) -> io::Result<()> {
        let socket = self.socket.read();
        let Some(mut socket) = socket.as_ref() else { return Ok(()) };
        let (registry, token, interest) =
            (self.event_loop.poller.registry(), Token(self.key), self.status.interest());
        let result = match (interest, registered.take()) {
            (Some(interest), Some(_)) => socket.reregister(registry, token, interest),
            (Some(interest), None) => socket.register(registry, token, interest),
            (None, Some(_)) => socket.deregister(registry),
            (None, None) => Ok(()),
        };
        *registered = interest.filter(|_| result.is_ok());
        result
    }

    // ---- The socket ----

    pub(super) fn read(&self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.socket.read().as_ref().ok_or(io::ErrorKind::NotConnected)?.read_vectored(slices)
    }

    /// Writes once. Returns the bytes that the socket took and those that it was offered, since one system
    /// call takes a limited number of segments.
    pub(super) fn write(&self, buffer: &WriteBuffer) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let filled = buffer.slices(&mut slices);
        let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
        let socket = self.socket.read();
        let socket = socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        Ok((socket.write_vectored(&slices[..filled])?, offered))
    }

    /// Bounds the unsent bytes in the kernel. On failure, the earlier bound stays.
    pub(super) fn set_max_unsent(&self, bytes: u32) {
        let _ = self.socket.read().as_ref().map(|socket| socket.set_max_unsent(bytes));
    }

    /// Sleeps until the socket is readable, the thread is woken or `left` is over. Returns true for the
    /// first, and `None` if the socket is closed.
    pub(super) fn sleep(&self, sleeper: &Sleeper, left: Option<Duration>) -> Option<bool> {
        self.socket.read().as_ref().map(|socket| sleeper.poll(socket, left))
    }

    /// Shuts the writing direction down. An error means that the connection is gone, which reading will find.
    pub(super) fn shutdown_write(&self) {
        let _ = self.socket.read().as_ref().map(Socket::shutdown_write);
    }

    /// Closes the descriptor and lets the event loop forget the link.
    pub(super) fn close(&self) {
        // Wakes a thread that sleeps on the socket. An error means that the connection is gone already.
        let _ = self.socket.read().as_ref().map(Socket::shutdown);
        // Taking the lock waits for readers and writers: nobody uses the descriptor when it is closed and its
        // number reused.
        drop(self.socket.write().take());
        self.send(Command::Detach(self.key));
    }
}
