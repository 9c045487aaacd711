//! Ends processes by their id, also those that were started without this crate.

use std::time::{Duration, Instant};

use crate::cancel::deadline::moment;
use crate::error::ProcError;
use crate::supervise::run::MAX_DYING;
use crate::sys::{self, ProcessFd};
use crate::tree::kill_tree::KillTree;

/// The maximum number of kills. After each one the tree is searched again, since processes may have started
/// meanwhile. A tree that still grows after the last one is reported as still running.
const MAX_ROUNDS: usize = 1000;

/// Returns whether a process is running. A zombie is not.
///
/// # Examples
/// ```
/// assert!(teleport_proc::proc_alive(std::process::id()));
/// ```
pub fn proc_alive(pid: u32) -> bool {
    valid(pid).is_some_and(|pid| match ProcessFd::open(pid) {
        Ok(process) => !process.wait(Some(Instant::now())).unwrap_or(false),
        // A process that this one may not open still exists.
        Err(error) => !sys::is_gone(&error),
    })
}

/// Ends a process and everything that it has started: with SIGTERM, and after `grace` with SIGKILL. With a
/// grace of zero it uses only SIGKILL. **Blocks** until all have ended, for up to 10 s after `grace`.
///
/// Processes whose parents have ended are found only if another process of the tree has adopted them. A child
/// of this process stays a zombie until it is waited for. Succeeds if there is no such process.
///
/// If this process belongs to the tree, it is killed last, with SIGKILL, and the call never returns.
///
/// # Examples
/// ```no_run
/// # fn main() -> Result<(), teleport_proc::ProcError> {
/// teleport_proc::kill_proc(4242, std::time::Duration::from_secs(3))
/// # }
/// ```
///
/// # Errors
/// Returns [`StillRunning`](ProcError::StillRunning) if some do not end, and [`System`](ProcError::System)
/// if the processes cannot be listed.
pub fn kill_proc(pid: u32, grace: Duration) -> Result<(), ProcError> {
    let Some(pid) = valid(pid) else { return Ok(()) };
    end(KillTree::of(pid).map_err(failed())?, grace)
}

/// Ends every process that this one has started, and everything that those have started, as [`kill_proc`]
/// does.
///
/// Processes whose parents have ended are not found.
///
/// # Errors
/// Returns the same errors as [`kill_proc`].
pub fn kill_subprocs(grace: Duration) -> Result<(), ProcError> {
    end(KillTree::below_this(), grace)
}

fn valid(pid: u32) -> Option<i32> {
    i32::try_from(pid).ok().filter(|pid| *pid > 0)
}

fn failed() -> impl FnOnce(std::io::Error) -> ProcError {
    ProcError::system("cannot look at the processes that should end")
}

fn end(mut tree: KillTree, grace: Duration) -> Result<(), ProcError> {
    if !grace.is_zero() {
        tree.terminate().map_err(failed())?;
        tree.wait(false, moment(grace)).map_err(failed())?;
    }
    let deadline = Instant::now() + MAX_DYING;
    for _ in 0..MAX_ROUNDS {
        tree.kill().map_err(failed())?;
        if tree.wait(true, deadline).map_err(failed())? && tree.is_over().map_err(failed())? {
            if tree.contains_this() {
                sys::kill_this();
            }
            return Ok(());
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    Err(ProcError::StillRunning { pids: tree.left(), waited: MAX_DYING })
}
