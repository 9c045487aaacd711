//! Handles of processes: unlike a process id, a pidfd never comes to mean another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::sys::poll::readable;

/// A process, which may have ended.
#[derive(Debug)]
pub(crate) struct ProcessFd(OwnedFd);

impl ProcessFd {
    /// Opens the process that has this id now. Fails with `ESRCH` if there is none.
    pub(crate) fn open(pid: i32) -> io::Result<ProcessFd> {
        // SAFETY: the call takes two integers and touches no memory of this process.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = Errno::result(result)? as i32;
        // SAFETY: the kernel has just made this descriptor for this call. It is closed on exec.
        Ok(ProcessFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Copies the handle, also in a process that was forked since it was opened.
    pub(crate) fn again(&self) -> io::Result<ProcessFd> {
        Ok(ProcessFd(self.0.try_clone()?))
    }

    /// Sends a signal. Fails with `ESRCH` if the process has ended and was waited for.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let info: *const libc::siginfo_t = ptr::null();
        // SAFETY: without a `siginfo_t` the kernel makes one, as for `kill`; no memory is touched.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as i32, info, 0) };
        Errno::result(result)?;
        Ok(())
    }

    /// **Blocks** until the process has ended, or until `deadline`. Returns whether it has ended.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        readable(&self.0, deadline)
    }

    /// Returns a descriptor to send to another process. It is readable there once this process has ended.
    pub(crate) fn sendable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

impl AsFd for ProcessFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
