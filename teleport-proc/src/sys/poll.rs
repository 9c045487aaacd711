//! Waiting for descriptors with `poll(2)`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// **Blocks** until one of `fds` has an event, or until `deadline`. Returns whether one has.
pub(super) fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
        match poll(fds, timeout(deadline)) {
            Ok(0) if over => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the time until `deadline`, rounded up: a sleep that ended early would have to be repeated.
fn timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let millis = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// **Blocks** until `fd` is readable or its other end is closed. Returns false at the deadline.
pub(crate) fn readable(fd: &impl AsFd, deadline: Option<Instant>) -> io::Result<bool> {
    any_readable(&[fd.as_fd()], deadline)
}

/// Waits like [`readable`], for one of several descriptors.
pub(crate) fn any_readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    poll_until(&mut fds, deadline)
}

/// **Blocks** until a file of a cgroup has changed since it was read. Returns false at the deadline.
pub(crate) fn has_changed(file: &File, deadline: Instant) -> io::Result<bool> {
    poll_until(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], Some(deadline))
}
