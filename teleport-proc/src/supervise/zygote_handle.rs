//! The owner's end of the zygote.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::ProcError;
use crate::supervise::control::{self, Control};
use crate::supervise::ids::{MARK_VARIABLE, ZYGOTE_MARK};
use crate::sys::{self, Received};
use crate::tree::snapshot::SUPERVISOR_NAME;

/// A program needs milliseconds to reach `init`. One that has not done so by then never will.
pub(crate) const MAX_START: Duration = Duration::from_secs(60);

/// The zygote of this process.
static ZYGOTE: Mutex<Option<ZygoteHandle>> = Mutex::new(None);

#[derive(Debug)]
pub(crate) struct ZygoteHandle {
    /// The process id of the owner. A process that was forked from it needs a zygote of its own.
    owner: u32,
    socket: OwnedFd,
    child: Child,
}

/// Sends a request to the zygote, after starting it if there is none. Keep the result until the request is
/// answered: requests are served one after the other, which bounds what is in progress.
pub(crate) fn send_request(
    name: &str,
    fds: &[BorrowedFd<'_>],
) -> Result<MutexGuard<'static, Option<ZygoteHandle>>, ProcError> {
    let mut slot = ZYGOTE.lock().unwrap_or_else(PoisonError::into_inner);
    let this = std::process::id();
    // The zygote of the process that this one was forked from: only its descriptor is closed.
    drop(slot.take_if(|zygote| zygote.owner != this));
    if slot.as_ref().is_some_and(|zygote| control::send(&zygote.socket, Control::Start, fds).is_err())
        && let Some(dead) = slot.take()
    {
        dead.end();
    }
    if slot.is_none() {
        let zygote = slot.insert(ZygoteHandle::new(name)?);
        let sent = control::send(&zygote.socket, Control::Start, fds);
        sent.map_err(ProcError::start(name, "the zygote process cannot be asked"))?;
    }
    Ok(slot)
}

impl ZygoteHandle {
    /// Executes this program again as a zygote, and waits until it is ready.
    fn new(name: &str) -> Result<ZygoteHandle, ProcError> {
        let failed = |what| ProcError::start(name, what);
        let (ours, theirs) = sys::pair().map_err(failed("no sockets to the zygote process can be made"))?;
        let path = sys::program_path().map_err(failed("the path of this program is not known"))?;
        let child = Command::new(path)
            .arg0(SUPERVISOR_NAME)
            .env(MARK_VARIABLE, ZYGOTE_MARK)
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("the zygote process cannot be started"))?;
        let zygote = ZygoteHandle { owner: std::process::id(), socket: ours, child };
        let name = name.to_owned();
        // Silence until then is `Received::Nothing`.
        let waited = sys::readable(&zygote.socket, Some(Instant::now() + MAX_START));
        let error = match waited.and_then(|_| control::receive(&zygote.socket)) {
            Ok(Received::Message(Control::Ready, _)) => return Ok(zygote),
            Ok(Received::Message(Control::Threads { count }, _)) => ProcError::EarlyThreads { name, count },
            Ok(Received::Nothing) => ProcError::InitNotReached { name, waited: Some(MAX_START) },
            _ => ProcError::InitNotReached { name, waited: None },
        };
        zygote.end();
        Err(error)
    }

    /// Kills a zygote that does not answer.
    fn end(mut self) {
        // Errors mean that it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
