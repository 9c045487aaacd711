//! Starts processes, and waits for those that have ended.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::descriptor;
use super::exit::Exit;
use super::platform;
use super::this_process::{leave_group, reset_signals, restore_signals};

/// A reaper that has reported the end of its process ends, and is waited for, well within ten of these.
const FORK_PAUSE: Duration = Duration::from_millis(10);
const MAX_FORK_TRIES: usize = 10;

/// Tells the two processes apart after a fork.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    Parent { child: i32 },
    Child,
}

/// Copies this process. Fails if it has more than one thread.
///
/// The copy of a process with several threads has only the thread that forked. Every lock that the others
/// held would stay locked in it forever.
pub(crate) fn fork() -> io::Result<Fork> {
    check_threads()?;
    // SAFETY: this thread is the only one, so no other holds a lock.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent { child: child.as_raw() }),
        ForkResult::Child => Ok(Fork::Child),
    }
}

fn check_threads() -> io::Result<()> {
    if platform::threads()?.len() > 1 {
        return Err(io::Error::other("this process has more than one thread"));
    }
    Ok(())
}

/// Forks like [`fork`], with the copy in the cgroup of the given folder. Moving it there later takes
/// milliseconds.
///
/// Fails before Linux 5.7, where a container forbids the call, and if the cgroup refuses the process.
///
/// # Safety
/// The copy executes another program or leaves, since the C library does not know that it is a copy.
pub(crate) unsafe fn fork_into(cgroup: &impl AsFd) -> io::Result<Fork> {
    check_threads()?;
    // SAFETY: the caller's promise, and this thread is the only one.
    match unsafe { platform::clone_into(cgroup) }? {
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child }),
    }
}

/// Forks like [`fork`], but tries again for a while if the user has as many processes as the system allows.
///
/// A process that has ended counts until it is waited for, which `meanwhile` may do.
pub(crate) fn fork_patiently(mut meanwhile: impl FnMut()) -> io::Result<Fork> {
    for _ in 0..MAX_FORK_TRIES {
        match fork() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(FORK_PAUSE);
                meanwhile();
            }
            result => return result,
        }
    }
    fork()
}

/// Becomes another program, with default signal handling and `descriptors` as 0, 1, 2 and so on. Returns only
/// if that fails.
///
/// # Safety
/// If it returns, this process leaves without destructors: its descriptors are no longer what they were.
pub(crate) unsafe fn execute(
    path: &CStr,
    arguments: &[CString],
    environment: &[CString],
    folder: &OwnedFd,
    descriptors: &[OwnedFd],
) -> io::Result<Infallible> {
    leave_group();
    nix::unistd::fchdir(folder)?;
    let copies = descriptors.iter().map(descriptor::copy_high).collect::<io::Result<Vec<_>>>()?;
    for (number, copy) in copies.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { descriptor::place(copy, number as RawFd) }?;
    }
    reset_signals();
    restore_signals(&SigSet::empty())?;
    Ok(nix::unistd::execve(path, arguments, environment)?)
}

/// Waits for all children that have ended, and calls `ended` for each. Returns whether others are left. All
/// children of this process have to belong to the caller.
pub(crate) fn reap_ended(mut ended: impl FnMut(i32, Exit)) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended(pid.as_raw(), Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended(pid.as_raw(), Exit::Signal(signal as i32)),
            Ok(WaitStatus::StillAlive) => return true,
            // Stops and continuations are not asked for.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// **Blocks** until a child of this process has ended. Another part of the program may have waited for it.
pub(crate) fn reap(pid: i32) {
    while let Err(Errno::EINTR) = waitpid(Pid::from_raw(pid), None) {}
}

/// Waits for a child of this process if it has ended. Returns whether the child is gone.
pub(crate) fn reap_if_ended(pid: i32) -> bool {
    !matches!(waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
}

/// Sends a signal to a child that nobody waits for meanwhile, so that no other process can have its id.
pub(crate) fn signal_child(pid: i32, signal: Signal) {
    // This fails if the child has ended or belongs to another user.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}
