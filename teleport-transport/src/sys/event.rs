//! A flag that ends a sleep in `poll(2)`.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

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
