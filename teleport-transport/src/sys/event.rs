//! A flag that ends a sleep in `poll(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

/// Raised by any thread; lowered by the one that waits for it.
#[derive(Debug)]
pub(crate) struct EventFlag(EventFd);

impl EventFlag {
    pub(crate) fn new() -> io::Result<EventFlag> {
        Ok(EventFlag(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    pub(crate) fn raise(&self) {
        // Fails only when it was raised 2^64 times and not lowered: it is raised then.
        let _ = self.0.write(1);
    }

    /// Sleeps until the flag is raised, `socket` can be read or has failed, or `left` is over. Lowers the flag; says
    /// whether the socket wants to be read.
    pub(crate) fn wait_with(&self, socket: &impl AsFd, left: Option<Duration>) -> bool {
        let mut fds =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        // Rounded up: a sleep that ends early would be slept again, for no time at all.
        let millis = left.map(|left| left.as_micros().div_ceil(1000));
        let timeout = millis
            .map_or(PollTimeout::NONE, |millis| PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX));
        // A signal ends the sleep too; who waits looks again.
        if poll(&mut fds, timeout).is_err() {
            return false;
        }
        if fds[1].any().unwrap_or(true) {
            // Fails only when it was not raised.
            let _ = self.0.read();
        }
        fds[0].any().unwrap_or(true)
    }
}

/// Sleeps until `poll` has something to tell, or `time` is over, which its own timeout, in whole milliseconds, cannot say.
pub(crate) fn wait_for(poll: &mio::Poll, time: Duration) {
    // SAFETY: the descriptor belongs to `poll`, which is borrowed until this returns.
    let descriptor = unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) };
    let mut fds = [PollFd::new(descriptor, PollFlags::POLLIN)];
    // A signal ends the sleep too; the caller looks again.
    let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(time)), None);
}
