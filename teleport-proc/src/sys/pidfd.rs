//! Processes by descriptor: the number of one that has ended may go to another, its descriptor does not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;

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

    /// The same process, for a process that has been forked meanwhile.
    pub(crate) fn again(&self) -> io::Result<ProcessFd> {
        Ok(ProcessFd(self.0.try_clone()?))
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
        super::readable(&self.0, deadline)
    }
}

impl ProcessFd {
    /// The descriptor, for another process: it becomes readable there when this one has ended.
    pub(crate) fn sendable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

impl AsFd for ProcessFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
