//! This process: its signals, its group, its parent and its end.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

use super::platform::{self, ProcessFd};

/// Leaves the terminal, whose Ctrl-C is for the owner alone.
pub(crate) fn leave_terminal() {
    // This fails for the leader of a session or group, which has left already.
    let _ = nix::unistd::setsid();
}

/// Gives this process a group of its own, so that a signal to its group does not reach its reaper.
pub(crate) fn leave_group() {
    let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
}

/// Ignores all signals that can be ignored, except SIGCHLD.
pub(crate) fn ignore_signals() {
    Signal::iterator().for_each(|signal| set_ignored(signal, signal != Signal::SIGCHLD));
}

/// Gives all signals their default action.
pub(super) fn reset_signals() {
    Signal::iterator().for_each(|signal| set_ignored(signal, false));
}

/// Ignores SIGPIPE, as Rust programs do before `main`: a write to a closed pipe fails instead.
pub(crate) fn ignore_broken_pipes() {
    set_ignored(Signal::SIGPIPE, true);
}

/// Ignores a signal, or gives it its default action.
fn set_ignored(signal: Signal, ignored: bool) {
    let handler = if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
    // SAFETY: the handler is no function, so nothing can run at a bad time. SIGKILL and SIGSTOP refuse.
    let _ = unsafe { nix::sys::signal::signal(signal, handler) };
}

/// Blocks all signals, and returns the mask from before.
pub(crate) fn block_signals() -> io::Result<SigSet> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(before)
}

/// Undoes [`block_signals`].
pub(crate) fn restore_signals(before: &SigSet) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(before), None)?)
}

/// Returns the id of the parent of this process.
pub(crate) fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Opens the parent of this process, whose id is `pid`. Fails if the parent has ended.
pub(crate) fn open_parent(pid: i32) -> io::Result<ProcessFd> {
    let parent = ProcessFd::open(pid)?;
    // The id means the parent for as long as it is the parent, so it did when it was opened.
    if self::parent() == pid { Ok(parent) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Removes a variable from the environment, unless another thread might be reading it.
pub(crate) fn remove_variable(name: &str) {
    if platform::threads().is_ok_and(|threads| threads.len() == 1) {
        // SAFETY: this is the only thread.
        unsafe { std::env::remove_var(name) };
    }
}

/// Ends this process at once, without destructors and exit handlers.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: the call does not return, and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Ends this process with SIGKILL.
pub(crate) fn kill_this() {
    // This cannot fail, and does not return.
    let _ = nix::sys::signal::kill(Pid::this(), Signal::SIGKILL);
}
