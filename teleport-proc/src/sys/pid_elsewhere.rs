//! Processes by number, where there are no descriptors for them: macOS and the BSDs.
//!
//! A number may go to another process once its own has ended and was waited for, and these systems have nothing that
//! would exclude it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::Signal;

/// A process, as long as its number is its own.
#[derive(Debug)]
pub(crate) struct ProcessFd {
    pid: Pid,
    /// Tells when it ends.
    queue: Kqueue,
}

impl ProcessFd {
    /// The process that has this number now; `ESRCH` if there is none.
    pub(crate) fn open(pid: i32) -> io::Result<ProcessFd> {
        let queue = Kqueue::new()?;
        let flags = EvFlags::EV_ADD;
        let event = KEvent::new(pid as usize, EventFilter::EVFILT_PROC, flags, FilterFlag::NOTE_EXIT, 0, 0);
        queue.kevent(&[event], &mut [], None)?;
        Ok(ProcessFd { pid: Pid::from_raw(pid), queue })
    }

    /// The same process, for a process that has been forked meanwhile: queues are not copied.
    pub(crate) fn again(&self) -> io::Result<ProcessFd> {
        ProcessFd::open(self.pid.as_raw())
    }

    /// Sends a signal; `ESRCH` if the process has ended and was waited for.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(self.pid, signal)?)
    }

    /// **Blocks** until the process has ended, at most until `deadline`; without one, for ever. Says whether it has.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        // The event is left in the queue, so that others see it too.
        super::readable(&self.queue, deadline)
    }
}

impl ProcessFd {
    /// The descriptor, for another process: a queue stays where it is.
    pub(crate) fn sendable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl AsFd for ProcessFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
