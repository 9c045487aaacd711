//! The parts of a link that its threads share without a lock: its event loop, its status, and a handle of its
//! socket.
//!
//! Each user of the socket has a reference of its own, which needs no further lock: the receiving half to
//! read, the sending half to register, and the thread with the write token to write. Closing takes these
//! away. The last one closes the descriptor, so no thread uses its number afterwards.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mio::event::Source as _;
use mio::{Interest, Token};

use super::sleeper::Sleeper;
use super::status::Status;
use crate::net::socket::Socket;
use crate::reactor::mailbox::Command;
use crate::reactor::poller::Poller;
use crate::reactor::source::{Request, Requested};

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
    /// For a thread that sleeps on the socket, and to shut it down.
    socket: Weak<Socket>,
}

/// The event loop of a link.
#[derive(Clone)]
pub(super) struct LoopHandle {
    poller: Poller,
    link: Weak<dyn Requested>,
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
    pub(super) fn new(key: usize, poller: &Poller, socket: &Arc<Socket>, link: Weak<dyn Requested>) -> Port {
        let event_loop = LoopHandle { poller: poller.clone(), link };
        Port { key, event_loop, status: Status::new(), socket: Arc::downgrade(socket) }
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
    pub(super) fn register(&self, socket: &Socket, registered: &mut Option<Interest>) -> io::Result<()> {
        let mut socket = socket;
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

    /// Sleeps until the socket is readable, the thread is woken or `left` is over. Returns true for the
    /// first, and `None` if the socket is closed.
    pub(super) fn sleep(&self, sleeper: &Sleeper, left: Option<Duration>) -> Option<bool> {
        self.socket.upgrade().map(|socket| sleeper.poll(&socket, left))
    }

    /// Wakes the threads that use the socket, and lets the event loop forget the link.
    pub(super) fn shut_down(&self) {
        // An error means that the connection is gone already.
        let _ = self.socket.upgrade().map(|socket| socket.shutdown());
        self.send(Command::Detach(self.key));
    }
}
