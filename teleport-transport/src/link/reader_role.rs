//! Lets a thread that waits for an answer read the connection itself: it leads.
//!
//! Otherwise the event loop would read the answer and wake the thread, which costs two context switches for
//! each call. So a thread that is about to wait takes the read role if it is free. The event loop then stops
//! watching the socket. The thread sleeps in `poll(2)` on the socket and on its own waker, and reads all
//! answers, also those of other waiting threads.
//!
//! When the leader leaves, nobody takes over at once, since it most likely calls again: a loop of calls needs
//! no system call to change roles. See [`Status`](super::status::Status) and [`leave_unread`]. Without open
//! calls, only pings and a goodbye can arrive, and the event loop watches again after nobody has led for
//! [`UNWATCHED`].
//!
//! Never blocks past the given time. Bounds: one leader per link, one read-ahead buffer per waiting thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coalesce::leave_unread;
use super::link::Link;
use super::port::Flush as _;
use super::reader::{UNWATCHED, read};
use super::sleeper::Sleeper;
use crate::reactor::mailbox::Command;
use crate::reactor::source::{Scratch, Turn};

/// The right to read a link in place of its event loop, which gets it back when this is dropped.
///
/// Take it before sending the call, and wait with [`block_on`](crate::block_on): nobody else reads the link
/// meanwhile.
#[derive(Debug)]
pub struct ReaderRole {
    link: Arc<Link>,
    /// The start of the last spin, if it found nothing.
    since: Option<Instant>,
}

impl Link {
    /// Makes this thread the reader of the link until the returned value is dropped. Returns `None` if the
    /// link is over or another thread leads.
    pub fn lead(self: &Arc<Self>) -> Option<ReaderRole> {
        if self.closed.get().is_some() || !self.port.is_current() {
            return None;
        }
        if self.port.status.lead()? {
            self.writer.lock().register(&self.port);
        }
        Some(ReaderRole { link: self.clone(), since: None })
    }
}

impl ReaderRole {
    /// Returns true if the next wait should spin before it sleeps.
    pub(super) fn may_spin(&mut self) -> bool {
        self.since = None;
        self.link.spin.should_try()
    }

    /// Reads until something arrives, for at most the spin time and at most `left`. Reading without polling
    /// first saves a system call for each answer. Returns `Empty` if nothing arrived.
    pub(super) fn spin(&mut self, scratch: &mut Scratch, left: Option<Duration>) -> Turn {
        self.link.flush_coalesced();
        let start = Instant::now();
        let look = |now| Some(read(&self.link, scratch, now)).filter(|turn| *turn != Turn::Empty);
        let found = self.link.spin.run(start, left, look);
        self.since = found.is_none().then_some(start);
        found.unwrap_or(Turn::Empty)
    }

    /// Sleeps until bytes arrive, the thread is woken or `left` is over, and reads what arrived.
    pub(super) fn sleep(&mut self, sleeper: &Sleeper, scratch: &mut Scratch, left: Option<Duration>) -> Turn {
        self.link.flush_coalesced();
        let Link { spin, port, .. } = &*self.link;
        let since = self.since.or_else(|| spin.is_on().then(Instant::now));
        let Some(is_readable) = sleeper.can_poll().then(|| port.sleep(sleeper, left)).flatten() else {
            return Turn::Gone;
        };
        if !is_readable {
            return Turn::Empty;
        }
        let now = Instant::now();
        if let Some(since) = since {
            spin.woke(since, now);
        }
        read(&self.link, scratch, now)
    }
}

impl Drop for ReaderRole {
    fn drop(&mut self) {
        let port = &self.link.port;
        // Also if calls are open: checks end with them, and the calls may be withdrawn earlier.
        if port.status.leave() {
            port.send(Command::Timeout(port.key, Instant::now() + UNWATCHED));
        }
        // After leaving: a concurrent call either finds that nobody reads, or is found here.
        let mut sending = self.link.writer.lock();
        if sending.outbound.open_calls() > 0 {
            leave_unread(port, &mut sending, || self.link.handler.is_waited_for());
        }
    }
}
