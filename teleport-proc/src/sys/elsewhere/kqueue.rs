//! Handles of processes, and of the children of this one, by queues of the kernel.
//!
//! These systems reuse a process id once its process has ended and was waited for. A signal may then reach
//! another process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::poll::readable;

/// A process, as long as no other process has its id.
#[derive(Debug)]
pub(crate) struct ProcessFd {
    pid: Pid,
    /// Is readable once the process has ended.
    queue: Kqueue,
}

impl ProcessFd {
    /// Opens the process that has this id now. Fails with `ESRCH` if there is none.
    pub(crate) fn open(pid: i32) -> io::Result<ProcessFd> {
        let queue = Kqueue::new()?;
        let flags = EvFlags::EV_ADD;
        let event = KEvent::new(pid as usize, EventFilter::EVFILT_PROC, flags, FilterFlag::NOTE_EXIT, 0, 0);
        queue.kevent(&[event], &mut [], None)?;
        Ok(ProcessFd { pid: Pid::from_raw(pid), queue })
    }

    /// Opens the process anew, for a process that was forked since: it has no copy of the queue.
    pub(crate) fn again(&self) -> io::Result<ProcessFd> {
        ProcessFd::open(self.pid.as_raw())
    }

    /// Sends a signal. Fails with `ESRCH` if the process has ended and was waited for.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(self.pid, signal)?)
    }

    /// **Blocks** until the process has ended, or until `deadline`. Returns whether it has ended.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        // The event stays in the queue, so that later waits see it too.
        readable(&self.queue, deadline)
    }

    /// Returns no descriptor: a queue cannot be sent to another process.
    pub(crate) fn sendable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl AsFd for ProcessFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// Is readable when a child has ended.
#[derive(Debug)]
pub(crate) struct Children(Kqueue);

impl Children {
    pub(crate) fn new() -> io::Result<Children> {
        let queue = Kqueue::new()?;
        queue.kevent(&[event()], &mut [], None)?;
        Ok(Children(queue))
    }

    pub(crate) fn clear(&self) {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = self.0.kevent(&[], &mut [event()], Some(time));
    }
}

fn event() -> KEvent {
    let signal = libc::SIGCHLD as usize;
    KEvent::new(signal, EventFilter::EVFILT_SIGNAL, EvFlags::EV_ADD, FilterFlag::empty(), 0, 0)
}

impl AsFd for Children {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
