//! Processes by number, where there are no descriptors for them: macOS and the BSDs.
//!
//! A number may go to another process once its own has ended and was waited for, and these systems have nothing that
//! would exclude it.

use std::io;
use std::time::Instant;

use nix::errno::Errno;
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

    /// Sends a signal; `ESRCH` if the process has ended and was waited for.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(self.pid, signal)?)
    }

    /// **Blocks** until the process has ended, at most until `deadline`; without one, for ever. Says whether it has.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        let none = KEvent::new(0, EventFilter::EVFILT_PROC, EvFlags::empty(), FilterFlag::empty(), 0, 0);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let time = left.map(|left| libc::timespec {
                tv_sec: left.as_secs() as libc::time_t,
                tv_nsec: left.subsec_nanos().into(),
            });
            match self.queue.kevent(&[], &mut [none], time) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
