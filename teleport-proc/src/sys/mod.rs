//! The only module that calls the kernel through nix and libc.
//!
//! Each function wraps one or two system calls. The modules that call them decide what they are for.
//! Linux and other Unix systems differ in the folders `linux` and `elsewhere`, and nowhere else.

mod descriptor;
mod exit;
mod fork;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "linux/mod.rs"]
mod platform;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "elsewhere/mod.rs"]
mod platform;
mod poll;
mod process_table;
mod signals;
mod socket;
mod this_process;
mod watch;

pub(crate) use descriptor::{
    close, close_all_but, copy_high, current_folder, forget_standard, inherited, nonblocking_pipe, null,
    read_range, try_lock,
};
pub use exit::Exit;
pub(crate) use fork::{
    Fork, execute, fork, fork_into, fork_patiently, reap, reap_ended, reap_if_ended, signal_child,
};
pub(crate) use nix::sys::signal::Signal;
pub(crate) use platform::{
    ProcessFd, become_subreaper, children, has_mark, mapped_file, mark, memory, pipe, process, processes,
    program_path, set_name, threads,
};
pub(crate) use poll::{any_readable, has_changed, readable};
pub(crate) use process_table::{Entry, Id};
pub(crate) use signals::{Signals, forget_signals};
pub(crate) use socket::{Message, Received, pair, receive, send};
pub(crate) use this_process::{
    block_signals, ignore_broken_pipes, ignore_signals, kill_this, leave, leave_group, leave_terminal,
    open_parent, parent, remove_variable, restore_signals,
};
pub(crate) use watch::Watch;

/// Returns whether a call failed because its process is gone.
pub(crate) fn is_gone(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}
