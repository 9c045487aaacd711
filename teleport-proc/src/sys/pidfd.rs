//! Processes by descriptor: the number of one that has ended may go to another, its descriptor does not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Signal;

/// A process, ended or not, until this is dropped.
#[derive(Debug)]
pub(crate) struct ProcessFd(OwnedFd);

impl ProcessFd {
    /// The process that has this number now; `ESRCH` if there is none.
    pub(crate) fn open(pid: i32) -> io::Result<ProcessFd> {
        // SAFETY: the call takes two integers and touches no memory of this process.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = Errno::result(result)? as i32;
        // SAFETY: the kernel has just given this descriptor to this process, which has it nowhere else. It is
        // closed on exec.
        Ok(ProcessFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal; `ESRCH` if the process has ended and was waited for.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let info: *const libc::siginfo_t = ptr::null();
        // SAFETY: without a `siginfo_t` the kernel fills one in, as for `kill`; no memory is touched.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, info, 0) };
        Errno::result(result)?;
        Ok(())
    }

    /// **Blocks** until the process has ended, at most until `deadline`; without one, for ever. Says whether it has.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            match poll(&mut fds, until(deadline)) {
                Ok(0) if over => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The time until `deadline` as `poll` takes it, rounded up: a sleep that ends early would be slept again, for no time.
fn until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let millis = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
