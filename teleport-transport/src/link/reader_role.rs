//! A thread that waits for an answer reads the connection itself: it leads.
//!
//! Without this, the event loop would read the answer and then wake the thread, which costs two changes of
//! threads for each call. So a thread that is about to wait takes the read role if no other has it: the event
//! loop stops watching the socket, the thread sleeps in `poll(2)` on it and on its own waker, and reads what
//! comes, also for the threads that follow.
//!
//! When it leaves, nobody takes over at once, since the thread most likely calls again: a loop of calls needs
//! no system call for taking turns. See [`Status`](super::status::Status) and [`leave_unread`]. Without open
//! calls only pings and a goodbye can come, and the event loop watches again once nobody has led for
//! [`UNWATCHED`].
//!
//! Never blocks past the time given. Bounds: one leader per link, one read-ahead buffer per thread that
//! waits.

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
/// Take it before sending what is to be waited for, and wait with [`block_on`](crate::block_on): nobody else
/// reads the link meanwhile.
#[derive(Debug)]
pub struct ReaderRole {
    link: Arc<Link>,
}

impl Link {
    /// Makes this thread the one that reads the link, until the returned value is dropped. Returns `None` if
    /// the link is over, or if another thread reads it.
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
    /// Waits until something comes, the thread is woken or the time is over, and reads what came. Returns
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

    /// Reads what has come, without asking first if there is something: that would be a system call more for
    /// each answer. Returns `None` if there is no reason to wake, and otherwise if the link goes on.
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
        // Also with calls open: checks end with them, and they may be withdrawn before.
        if port.status.leave() {
            port.send(Command::Timeout(port.key, Instant::now() + UNWATCHED));
        }
        // After that: a call that is made meanwhile finds that nobody reads, or is found here.
        let mut sending = self.link.writer.lock();
        if sending.outbound.open_calls() > 0 {
            leave_unread(port, &mut sending, || self.link.handler.is_waited_for());
        }
    }
}
