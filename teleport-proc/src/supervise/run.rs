//! One run of a process, from its start to its end, as its owner sees it.
//!
//! The reaper of the process reports its end on a socket. The owner reads the socket when it is asked; no
//! thread waits in the background. The closed socket stays readable, so it wakes all threads that wait.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cancel::deadline::deadline;
use crate::cancel::interrupt;
use crate::error::ProcError;
use crate::supervise::control::{self, Control};
use crate::supervise::outcome::{Outcome, ResultFile};
use crate::sys::{self, Exit, Received};

/// The time that killed processes have to end, before they are reported as still running.
pub(crate) const MAX_DYING: Duration = Duration::from_secs(10);

/// A reaper that has reported the end of its process only has to exit.
const MAX_LEAVING: Duration = Duration::from_secs(1);

/// One run of a process.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    /// The process id of the owner.
    pub(crate) owner: u32,
    pub(crate) pid: u32,
    /// The socket to the reaper.
    pub(crate) control: OwnedFd,
    /// The pidfd of the reaper, where the system has them.
    pub(crate) reaper_fd: Option<OwnedFd>,
    /// The process id of the reaper, if it is a child of this process and has to be waited for.
    pub(crate) reaper: Option<i32>,
    pub(crate) result: ResultFile,
    /// The pipe of its `Stop`.
    pub(crate) stop: File,
    pub(crate) grace: Duration,
    /// True if the owner has asked for the end.
    pub(crate) asked: AtomicBool,
    pub(crate) end: Mutex<Option<Arc<End>>>,
}

/// The end of a process.
#[derive(Debug)]
pub(crate) struct End {
    /// `None` if the reaper was killed.
    pub(crate) exit: Option<Exit>,
    pub(crate) result: Result<Vec<u8>, ProcError>,
}

impl Run {
    /// **Blocks** until the process and all that it started have ended, or until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<Option<Arc<End>>, ProcError> {
        loop {
            if let Some(end) = self.poll()? {
                return Ok(Some(end));
            }
            let failed =
                |error| ProcError::system(format!("{}: cannot wait for the process", self.name))(error);
            if !interrupt::readable(&[self.descriptor()], deadline).map_err(failed)? {
                return Ok(None);
            }
        }
    }

    /// Returns the end of the process, if it has ended.
    pub(crate) fn poll(&self) -> Result<Option<Arc<End>>, ProcError> {
        if self.owner != std::process::id() {
            return Err(ProcError::Forked { name: self.name.clone() });
        }
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_some() {
            return Ok(end.clone());
        }
        let exit = match control::receive(&self.control) {
            Ok(Received::Message(Control::Ended { exit }, _)) => Some(exit),
            Ok(Received::Nothing) => return Ok(None),
            Ok(Received::Closed | Received::Message(..)) | Err(_) => None,
        };
        // Nothing is left once the reaper has exited, too. It closes the socket a moment before that. If this
        // fails, it is still there.
        let _ = sys::readable(self.reaper_fd.as_ref().unwrap_or(&self.control), deadline(MAX_LEAVING));
        if let Some(reaper) = self.reaper {
            sys::reap(reaper);
        }
        *end = Some(Arc::new(End { exit, result: self.result(exit) }));
        Ok(end.clone())
    }

    fn result(&self, exit: Option<Exit>) -> Result<Vec<u8>, ProcError> {
        let name = || self.name.clone();
        let failed = |failure| Err(ProcError::failed(&self.name, failure));
        // Acquire: pairs with the store in `ask`.
        let asked = self.asked.load(Ordering::Acquire);
        match (self.result.read(), exit) {
            // Without success, an exit handler failed after the function.
            (Ok(Outcome::Value(bytes)), Some(exit)) if exit.success() || asked => Ok(bytes),
            (Ok(Outcome::Failure(failure)), _) => failed(failure),
            // In all other cases the function caught the panic.
            (Ok(Outcome::Panicking(failure)), Some(exit)) if exit.is_of_panic() => failed(failure),
            (_, _) if asked => Err(ProcError::Killed { name: name() }),
            (_, None) => Err(ProcError::Lost { name: name() }),
            (Ok(Outcome::Nothing), Some(Exit::Code(_))) => {
                Err(ProcError::InitNotReached { name: name(), waited: None })
            }
            (_, Some(exit)) => Err(ProcError::Exited { name: name(), exit }),
        }
    }

    /// Ends the process with SIGTERM, and with SIGKILL after `grace`. **Blocks** for up to 10 s after it.
    pub(crate) fn kill(&self, grace: Duration) -> Result<(), ProcError> {
        self.terminate(grace)?;
        match self.wait(deadline(grace.saturating_add(MAX_DYING)))? {
            Some(_) => Ok(()),
            None => Err(ProcError::StillRunning { pids: vec![self.pid], waited: MAX_DYING }),
        }
    }

    /// Ends the process like [`kill`](Run::kill), without waiting for the end.
    pub(crate) fn terminate(&self, grace: Duration) -> Result<(), ProcError> {
        self.ask(|| control::send(&self.control, Control::End { grace }, &[]))
    }

    /// Asks the function to stop, without waiting for it.
    pub(crate) fn stop(&self) -> Result<(), ProcError> {
        // Nobody reads the byte.
        self.ask(|| (&self.stop).write_all(&[1]))
    }

    fn ask(&self, send: impl FnOnce() -> io::Result<()>) -> Result<(), ProcError> {
        if self.poll()?.is_none() {
            // Release: pairs with the load in `result`.
            self.asked.store(true, Ordering::Release);
            // This fails if it has ended meanwhile.
            let _ = send();
        }
        Ok(())
    }

    /// Returns a descriptor that is readable when [`poll`](Run::poll) should be called.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // In a fork of the owner, this fails.
        if self.terminate(self.grace).is_ok() && self.poll().is_ok_and(|end| end.is_none()) {
            reap_abandoned(self.reaper);
        }
    }
}

/// Reapers that are children of the process with the first id, and whose run was dropped.
static ABANDONED: Mutex<Vec<(u32, i32)>> = Mutex::new(Vec::new());

/// Waits for the abandoned reapers that have ended, and remembers another one for later.
pub(crate) fn reap_abandoned(another: Option<i32>) {
    let this = std::process::id();
    let mut abandoned = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
    abandoned.extend(another.map(|reaper| (this, reaper)));
    abandoned.retain(|(owner, reaper)| *owner == this && !sys::reap_if_ended(*reaper));
}
