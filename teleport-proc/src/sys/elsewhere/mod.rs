//! The functions of the module `linux` for other Unix systems. They compile, and are not tested.

mod kqueue;
mod ps;

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{MsgFlags, SockFlag, SockType};

use super::descriptor::close_on_exec;

pub(super) use kqueue::Children;
pub(crate) use kqueue::ProcessFd;
pub(crate) use ps::{children, process, processes, threads};

pub(super) const SOCKET_TYPE: SockType = SockType::Stream;
pub(super) const SOCKET_FLAGS: SockFlag = SockFlag::empty();
pub(super) const SEND_FLAGS: MsgFlags = MsgFlags::empty();
pub(super) const RECEIVE_FLAGS: MsgFlags = MsgFlags::empty();

/// Makes a file without a name.
pub(crate) fn memory() -> io::Result<File> {
    let template = std::env::temp_dir().join("teleport-proc-XXXXXX");
    let (file, path) = nix::unistd::mkstemp(&template)?;
    nix::unistd::unlink(&path)?;
    close_on_exec(&file)?;
    Ok(file.into())
}

/// Makes a pipe and returns its ends, first the one to read from. Both are closed on exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe()?;
    close_on_exec(&read)?;
    close_on_exec(&write)?;
    Ok((read, write))
}

/// Fails: there is no such call.
///
/// # Safety
/// None is needed.
pub(super) unsafe fn close_range(_first: RawFd, _last: RawFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns the path at which another process finds this program.
pub(crate) fn program_path() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Returns nothing: the author of the program has to pass no functions of shared libraries.
pub(crate) fn mapped_file(_address: usize) -> io::Result<Option<(u64, String)>> {
    Ok(None)
}

/// Does nothing: there are no subreapers, and the first process of the system adopts all.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(())
}

/// Does nothing: names cannot be changed.
pub(crate) fn set_name(_name: &str) {}

/// Fails: there are no cgroups.
///
/// # Safety
/// None is needed.
pub(super) unsafe fn clone_into(_cgroup: &impl AsFd) -> io::Result<i32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns false: there are no cgroups.
pub(crate) fn has_mark(_folder: &Path, _name: &CStr) -> bool {
    false
}

/// Fails: there are no cgroups.
pub(crate) fn mark(_folder: &Path, _name: &CStr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
