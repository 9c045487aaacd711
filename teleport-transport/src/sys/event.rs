//! A flag that ends a sleep in `poll(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
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
        // A signal ends the sleep too; the caller checks again.
        if sleep(&mut fds, left).is_err() {
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
    let _ = sleep(&mut fds, Some(time));
}

/// Sleeps until one of `fds` is ready, or `time` has passed.
///
/// `ppoll` of the C library is a cancellation point: see [`net`](super::net).
fn sleep(fds: &mut [PollFd<'_>], time: Option<Duration>) -> nix::Result<()> {
    let mut time = time.map(|time| *TimeSpec::from_duration(time).as_ref());
    let time = time.as_mut().map_or(ptr::null_mut(), ptr::from_mut::<libc::timespec>);
    let no_signals = ptr::null::<libc::sigset_t>();
    // SAFETY: a `PollFd` is a `libc::pollfd`, whose descriptor is open while it is borrowed. The kernel
    // writes only to `fds` and `time`, which live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_ppoll, fds.as_mut_ptr(), fds.len(), time, no_signals, 0) };
    Errno::result(result)?;
    Ok(())
}
