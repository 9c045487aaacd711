//! A flag that ends a sleep in `poll(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// Any thread raises it; the thread that waits for it lowers it.
#[derive(Debug)]
pub(crate) struct EventFlag(EventFd);

impl EventFlag {
    pub(crate) fn new() -> io::Result<EventFlag> {
        Ok(EventFlag(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    pub(crate) fn raise(&self) {
        // Fails only after 2^64 raises without a wait: the flag is raised then.
        let _ = self.0.write(1);
    }

    /// Sleeps until the flag is raised, `socket` is readable or has failed, or `left` has passed. Lowers the
    /// flag. Returns true if the socket is to be read.
    pub(crate) fn wait_with(&self, socket: &impl AsFd, left: Option<Duration>) -> bool {
        let mut fds =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // Rounded up: a sleep that ends early would be repeated with a time-out of zero.
        let millis = left.map(|left| left.as_micros().div_ceil(1000));
        let timeout = millis
            .map_or(PollTimeout::NONE, |millis| PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX));
        // A signal ends the sleep too; the caller checks again.
        if poll(&mut fds, timeout).is_err() {
            return false;
        }
        if fds[1].any().unwrap_or(true) {
            // Fails only if it was not raised.
            let _ = self.0.read();
        }
        fds[0].any().unwrap_or(true)
    }
}

/// Sleeps until `poll` has events, or `time` has passed. Finer than the poll's own time-out of whole
/// milliseconds.
pub(crate) fn wait_for(poll: &mio::Poll, time: Duration) {
    // SAFETY: the descriptor belongs to `poll`, which is borrowed until this returns.
    let descriptor = unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) };
    let mut fds = [PollFd::new(descriptor, PollFlags::POLLIN)];
    // A signal ends the sleep too; the caller checks again.
    let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(time)), None);
}
