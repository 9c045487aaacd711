//! A link as its event loop sees it, and how it is attached.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handler::Handler;
use super::link::Link;
use super::port::Flush;
use super::status::Flag;
use super::{closing, coalesce, reader};
use crate::config::Config;
use crate::memory::budget::Budget;
use crate::net::socket::Socket;
use crate::protocol::{Closed, Role};
use crate::reactor::mailbox::Command;
use crate::reactor::poller::Poller;
use crate::reactor::source::{Request, Requested, Scratch, Source, Turn};

impl Poller {
    /// Takes over a connected socket and begins the handshake. With a `budget`, large messages wait for
    /// memory from it. Without one, all are accepted.
    ///
    /// # Errors
    /// Returns the system's error if it cannot watch the socket.
    pub fn attach<H: Handler>(
        &self,
        socket: Socket,
        role: Role,
        config: &Arc<Config>,
        budget: Option<Budget>,
        handler: Arc<H>,
    ) -> io::Result<Arc<Link>> {
        let link = Link::new(self, socket, role, config, budget, handler);
        link.writer.lock().try_register(&link.port)?;
        if self.send(Command::Attach(Box::new(link.clone()))) {
            Ok(link)
        } else {
            Err(io::Error::other("the poller has ended"))
        }
    }
}

// For the counted reference, so that the event loop need not count another one for each turn.
impl Source for Arc<Link> {
    fn key(&self) -> usize {
        self.port.key
    }

    fn spin_time(&self) -> Duration {
        self.spin.time()
    }

    fn only_reads(&self) -> bool {
        self.port.status.only_reads()
    }

    fn on_attached(&self) {
        self.port.status.watch();
        // Also if a thread leads: a writable event may have been lost.
        self.writer.lock().register(&self.port);
        self.flush();
    }

    fn on_detached(&self) {
        // Frees the memory of incomplete messages. Running calls may hold the link for long.
        self.receiving.lock().end();
    }

    fn on_writable(&self) {
        self.writer.on_writable(&self.port);
    }

    fn on_stream_end(&self) {
        self.port.status.set(Flag::ENDS);
    }

    fn read(&self, scratch: &mut Scratch, now: Instant) -> Turn {
        reader::read(self, scratch, now)
    }

    fn handle_timeout(&self, scratch: &mut Scratch, now: Instant) -> Option<Instant> {
        reader::handle_timeout(self, scratch, now)
    }

    fn handle_check(&self, now: Instant) -> Option<Instant> {
        coalesce::check(&self.port, &self.writer, now, self.closed.get().is_none())
    }

    fn end(&self, scratch: &mut Scratch) {
        closing::abort(self, Closed::Here, scratch);
    }
}

impl Requested for Link {
    fn handle_request(self: Arc<Self>, request: Request, scratch: &mut Scratch) {
        match request {
            Request::Grant { id, charge } => {
                let mut receiving = self.receiving.lock();
                self.memory.grant(&self.port, &self.writer, &mut receiving.inbound, id, charge);
                drop(receiving);
                self.flush();
            }
            Request::Want { id } => self.want(id),
            Request::Drained => self.handler.drained(&self),
            Request::Abort => closing::abort(&self, Closed::Here, scratch),
        }
    }
}
