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
use std::time::Instant;

use super::coalesce::leave_unread;
use super::link::Link;
use super::reader::{UNWATCHED, read};
use super::sleeper::{Sleeper, left_until};
use crate::reactor::mailbox::Command;
use crate::reactor::source::{Scratch, Turn};

/// The right to read a link in place of its event loop, which gets it back when this is dropped.
///
/// Take it before sending the call, and wait with [`block_on`](crate::block_on): nobody else reads the link
/// meanwhile.
#[derive(Debug)]
pub struct ReaderRole {
    link: Arc<Link>,
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
        Some(ReaderRole { link: self.clone() })
    }
}

impl ReaderRole {
    /// Waits until bytes arrive, the thread is woken or the time is over, and reads what arrived. Returns
    /// false if the link is over.
    pub(super) fn wait(&self, sleeper: &Sleeper, scratch: &mut Scratch, until: Option<Instant>) -> bool {
        let spin = &self.link.spin;
        let since = match spin.find(left_until(until), |now| self.try_read(sleeper, scratch, now)) {
            Ok(goes_on) => return goes_on,
            Err(since) => since,
        };
        if !sleeper.can_poll() {
            return false;
        }
        let Some(readable) = self.link.port.sleep(sleeper, left_until(until)) else { return false };
        if readable {
            spin.woke(since);
        }
        !readable || read(&self.link, scratch, Instant::now()) != Turn::Gone
    }

    /// Reads without polling first, which saves a system call for each answer. Returns `None` if nothing
    /// happened, otherwise false if the link is over.
    fn try_read(&self, sleeper: &Sleeper, scratch: &mut Scratch, now: Instant) -> Option<bool> {
        if sleeper.state.is_woken() {
            return Some(true);
        }
        match read(&self.link, scratch, now) {
            Turn::Empty => None,
            turn => Some(turn != Turn::Gone),
        }
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
