//! Processes that nobody here has a handle to, by their number.

use std::time::{Duration, Instant};

use crate::cancel::deadline::moment;
use crate::error::ProcError;
use crate::sys::{self, ProcessFd};
use crate::tree::kill_tree::KillTree;

/// How long what was killed may take to be gone, before that is an error.
pub(crate) const MAX_DYING: Duration = Duration::from_secs(10);

/// One look that finds nothing could have missed what started meanwhile, so there is another after each kill; a tree
/// that still grows after so many is told of as still running.
const MAX_STRIKES: usize = 1000;

/// Whether a process runs. One that has ended does not, also while nobody has waited for it.
///
/// ```
/// assert!(teleport_proc::proc_alive(std::process::id()));
/// ```
pub fn proc_alive(pid: u32) -> bool {
    let process = i32::try_from(pid).ok().filter(|pid| *pid > 0).map(ProcessFd::open);
    // Whoever may not be asked is there all the same.
    process.is_some_and(|process| match process {
        Ok(process) => !process.wait(Some(Instant::now())).unwrap_or(false),
        Err(error) => !sys::is_gone(&error),
    })
}

/// Ends a process and everything that it has started: first with SIGTERM, then, what is left after `grace`, with SIGKILL.
/// No grace at all: with SIGKILL at once. **Blocks** until all have ended, for up to 10 s beyond the grace.
///
/// Processes whose parents ended before are found only where they were taken over by another process of the tree. A child
/// of this process stays a zombie until whoever started it waits for it. It is no error if there is no such process.
///
/// If this process is among them, because it is meant itself or was started by it, it ends last, with SIGKILL, and this does
/// not return.
///
/// ```no_run
/// # fn main() -> Result<(), teleport_proc::ProcError> {
/// teleport_proc::kill_proc(4242, std::time::Duration::from_secs(3))
/// # }
/// ```
///
/// # Errors
/// [`StillRunning`](ProcError::StillRunning), and [`System`](ProcError::System) if the processes cannot be listed.
pub fn kill_proc(pid: u32, grace: Duration) -> Result<(), ProcError> {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return Ok(()) };
    end(KillTree::tree(pid).map_err(failed())?, grace)
}

/// Ends every process that this one has started, in whatever way, and what those have started, as [`kill_proc`] does.
///
/// Not found are those whose parents ended before.
///
/// # Errors
/// As [`kill_proc`].
pub fn kill_subprocs(grace: Duration) -> Result<(), ProcError> {
    end(KillTree::below_this(), grace)
}

fn failed() -> impl FnOnce(std::io::Error) -> ProcError {
    ProcError::system("cannot look at the processes that are to end")
}

fn end(mut kill_tree: KillTree, grace: Duration) -> Result<(), ProcError> {
    let over = |kill_tree: &mut KillTree| kill_tree.is_over().map_err(failed());
    if !grace.is_zero() {
        kill_tree.terminate().map_err(failed())?;
        kill_tree.wait(false, moment(grace)).map_err(failed())?;
    }
    let deadline = Instant::now() + MAX_DYING;
    for _ in 0..MAX_STRIKES {
        kill_tree.kill().map_err(failed())?;
        if kill_tree.wait(true, deadline).map_err(failed())? && over(&mut kill_tree)? {
            if kill_tree.is_part() {
                sys::kill_this();
            }
            return Ok(());
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    Err(ProcError::StillRunning { pids: kill_tree.left(), waited: MAX_DYING })
}
