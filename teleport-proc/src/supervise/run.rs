//! One run of a process: from its start to its end, seen from its owner.
//!
//! What happens to the process, its reaper tells on a socket. Whoever wants to know reads that: no thread waits in the
//! background. The last word stays readable as the end of the socket, so that all who wait are woken.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::by_pid::MAX_DYING;
use crate::cancel::deadline::deadline;
use crate::cancel::interrupt;
use crate::error::ProcError;
use crate::failure::{Outcome, Slot};
use crate::supervise::control::{self, Control};
use crate::supervise::zygote::Started;
use crate::sys::Exit;
use crate::sys::{self, Received};

/// A reaper that has told of the end has nothing left to do.
const MAX_LEAVING: Duration = Duration::from_secs(1);

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Run {
    name: String,
    /// Whose it is.
    owner: u32,
    started: Started,
    slot: Slot,
    stop: File,
    /// Its reaper, where that is a child of this process and must be waited for.
    reaper: Option<i32>,
    grace: Duration,
    /// Whether its end was asked for.
    asked: AtomicBool,
    end: Mutex<Option<Arc<End>>>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct End {
    /// None if its reaper was killed.
    pub(crate) exit: Option<Exit>,
    pub(crate) result: Result<Vec<u8>, ProcError>,
}

/// What a run is made of.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) name: String,
    pub(crate) started: Started,
    pub(crate) slot: Slot,
    pub(crate) stop: OwnedFd,
    pub(crate) reaper: Option<i32>,
    pub(crate) grace: Duration,
}

impl Run {
    pub(crate) fn new(parts: Writer) -> Run {
        let Writer { name, started, slot, stop, reaper, grace } = parts;
        Run {
            name,
            owner: std::process::id(),
            started,
            slot,
            stop: stop.into(),
            reaper,
            grace,
            asked: AtomicBool::new(false),
            end: Mutex::new(None),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.started.pid as u32
    }

    /// **Blocks** until the process and all that it started have ended, at most until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<Option<Arc<End>>, ProcError> {
        loop {
            if let Some(end) = self.look()? {
                return Ok(Some(end));
            }
            let what = || format!("{}: cannot wait for the process", self.name);
            if !interrupt::readable(&[self.started.control.as_fd()], deadline)
                .map_err(ProcError::system(what()))?
            {
                return Ok(None);
            }
        }
    }

    /// How it ended, if it has.
    pub(crate) fn look(&self) -> Result<Option<Arc<End>>, ProcError> {
        if self.is_foreign() {
            return Err(ProcError::Forked { name: self.name.clone() });
        }
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_some() {
            return Ok(end.clone());
        }
        let exit = match control::receive(&self.started.control) {
            Ok(Received::Message(Control::Ended { exit }, _)) => Some(exit),
            Ok(Received::Nothing) => return Ok(None),
            Ok(Received::Closed | Received::Message(..)) | Err(_) => None,
        };
        if let Some(reaper) = &self.started.reaper {
            // It is about to leave: after that, nothing is left at all. Failing, that is a moment later.
            let _ = sys::readable(reaper, deadline(MAX_LEAVING));
        }
        if let Some(reaper) = self.reaper {
            sys::reap(reaper);
        }
        *end = Some(Arc::new(End { exit, result: self.result(exit) }));
        Ok(end.clone())
    }

    fn result(&self, exit: Option<Exit>) -> Result<Vec<u8>, ProcError> {
        let name = || self.name.clone();
        let failed = |failure| Err(ProcError::Failed { name: name(), failure: Box::new(failure) });
        // Acquire: what was done before the end was asked for has been done.
        let asked = self.asked.load(Ordering::Acquire);
        match (self.slot.read(), exit) {
            // It may still fail after its function: in a destructor at its end.
            (Ok(Outcome::Value(bytes)), Some(exit)) if exit.success() || asked => Ok(bytes),
            (Ok(Outcome::Failure(failure)), _) => failed(failure),
            // Otherwise the function caught the panic itself.
            (Ok(Outcome::Panicking(failure)), Some(exit)) if exit.is_of_panic() => failed(failure),
            (_, _) if asked => Err(ProcError::Killed { name: name() }),
            (_, None) => Err(ProcError::Lost { name: name() }),
            (Ok(Outcome::Nothing), Some(Exit::Code(_))) => {
                Err(ProcError::InitNotReached { name: name(), waited: None })
            }
            (_, Some(exit)) => Err(ProcError::Exited { name: name(), exit }),
        }
    }

    /// Asks for the end, and **blocks** until it has come: for the grace, and 10 s beyond it.
    pub(crate) fn kill(&self, grace: Duration) -> Result<(), ProcError> {
        self.ask(grace)?;
        match self.wait(deadline(grace.saturating_add(MAX_DYING)))? {
            Some(_) => Ok(()),
            None => Err(ProcError::StillRunning { pids: vec![self.pid()], waited: MAX_DYING }),
        }
    }

    /// Asks for the end, and does not wait for it.
    pub(crate) fn ask(&self, grace: Duration) -> Result<(), ProcError> {
        if self.look()?.is_none() {
            // Release: see `result`.
            self.asked.store(true, Ordering::Release);
            // A failure is that it has ended meanwhile.
            let _ = control::send(&self.started.control, Control::End { grace }, &[]);
        }
        Ok(())
    }

    /// Tells the function to stop. Whoever does so waits for the end himself.
    pub(crate) fn stop(&self) -> Result<(), ProcError> {
        if self.look()?.is_none() {
            self.asked.store(true, Ordering::Release);
            // A failure is that it has ended meanwhile. Nobody reads the byte: that it is there is what is told.
            let _ = (&self.stop).write(&[1]);
        }
        Ok(())
    }

    /// Readable once there is something to [`look`](Run::look) at.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.started.control.as_fd()
    }

    /// Whether this is a process that was forked from the owner.
    fn is_foreign(&self) -> bool {
        self.owner != std::process::id()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Another process's is left alone. What cannot be asked any more has ended.
        if !self.is_foreign() && self.ask(self.grace).is_ok() && self.look().is_ok_and(|end| end.is_none()) {
            abandoned(self.reaper);
        }
    }
}

/// Keepers that are children of this process and that nobody asks about any more.
static ABANDONED: Mutex<Vec<(u32, i32)>> = Mutex::new(Vec::new());

/// Has a reaper waited for once it has ended, and waits for those that have.
pub(crate) fn abandoned(reaper: Option<i32>) {
    let this = std::process::id();
    let mut abandoned = ABANDONED.lock().unwrap_or_else(PoisonError::into_inner);
    abandoned.extend(reaper.map(|reaper| (this, reaper)));
    abandoned.retain(|(owner, reaper)| *owner == this && !sys::reap_if_ended(*reaper));
}
