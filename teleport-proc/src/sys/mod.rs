//! The one place that speaks to the kernel through nix and libc.
//!
//! Each function is one or two system calls with an `io::Result`; what they are for is decided by the modules that call
//! them. Linux and the other Unix systems differ here and nowhere else. What is safe to call says so by being safe.

mod cgroup;
mod descriptor;
mod exit;
mod fork;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod pidfd;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "pid_elsewhere.rs"]
mod pidfd;
mod signals;
mod socket;
mod table;
mod watch;

use std::io;
use std::time::Instant;

use nix::poll::PollTimeout;

pub(crate) use cgroup::{has_changed, has_mark, mark, try_lock};
pub(crate) use descriptor::{
    any_readable, close, close_all_but, close_on_exec, copy_high, current_folder, forget_standard, inherited,
    memory, null, readable, set_nonblocking,
};
pub use exit::Exit;
pub(crate) use exit::PANIC_CODE;
pub(crate) use fork::{
    Fork, Program, Reaped, become_guard, block_signals, execute, fork, fork_into, fork_patiently,
    ignore_broken_pipes, ignore_signals, kill_this, leave, leave_group, leave_terminal, parent, reap,
    reap_any, reap_if_ended, remove_variable, restore_signals, set_name, signal_child, threads,
};
pub(crate) use nix::sys::signal::Signal;
pub(crate) use pidfd::ProcessFd;
pub(crate) use signals::{Signals, forget_signals};
pub(crate) use socket::{MESSAGE_BYTES, Received, pair, pipe, receive, send};
pub(crate) use table::{Entry, Id, children, process, processes};
pub(crate) use watch::Watch;

/// Whether a call failed because its process is not there any more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// The time until `deadline` as `poll` takes it, rounded up: a sleep that ends early would be slept again, for no time.
fn poll_timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let millis = deadline.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
