//! The one place that speaks to the kernel through nix and libc.
//!
//! Each function is one or two system calls with an `io::Result`; what they are for is decided by the modules that call
//! them. Linux and the other Unix systems differ here and nowhere else. Everything here is safe to call.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod pidfd;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "pid_elsewhere.rs"]
mod pidfd;
mod table;

pub(crate) use nix::sys::signal::Signal;
pub(crate) use pidfd::ProcessFd;
pub(crate) use table::{Entry, Id, process, processes};

use std::io;

/// Whether a call failed because its process is not there any more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}
