//! The only module that calls the kernel through nix and libc.
//!
//! Each function wraps one or two system calls. The modules that call them decide what they are for. Linux
//! and other Unix systems differ in this module and nowhere else.

mod cgroup;
mod descriptor;
mod exit;
mod fork;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod pidfd;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "pid_elsewhere.rs"]
mod pidfd;
mod poll;
mod process_table;
mod signals;
mod socket;
mod this_process;
mod watch;

pub(crate) use cgroup::{has_mark, mark, try_lock};
pub(crate) use descriptor::{
    close, close_all_but, copy_high, current_folder, forget_standard, inherited, memory, nonblocking_pipe,
    null, pipe, read_range,
};
pub use exit::Exit;
pub(crate) use exit::PANIC_CODE;
pub(crate) use fork::{
    Fork, Reaped, execute, fork, fork_into, fork_patiently, reap, reap_any, reap_if_ended, signal_child,
};
pub(crate) use nix::sys::signal::Signal;
pub(crate) use pidfd::ProcessFd;
pub(crate) use poll::{any_readable, has_changed, readable};
pub(crate) use process_table::{Entry, Id, children, process, processes};
pub(crate) use signals::{Signals, forget_signals};
pub(crate) use socket::{MESSAGE_BYTES, Received, pair, receive, send};
pub(crate) use this_process::{
    become_subreaper, block_signals, ignore_broken_pipes, ignore_signals, kill_this, leave, leave_group,
    leave_terminal, open_parent, parent, remove_variable, restore_signals, set_name, threads,
};
pub(crate) use watch::Watch;

/// Returns whether a call failed because its process is gone.
pub(crate) fn is_gone(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}
