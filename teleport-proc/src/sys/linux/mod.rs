//! The parts of `sys` that only Linux has. The module `elsewhere` has the same functions for other systems.

mod pidfd;
mod proc_fs;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, SockFlag, SockType};

pub(crate) use pidfd::ProcessFd;
pub(crate) use proc_fs::{children, mapped_file, process, processes, program_path, threads};

/// These sockets keep messages apart.
pub(super) const SOCKET_TYPE: SockType = SockType::SeqPacket;
pub(super) const SOCKET_FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC;
pub(super) const SEND_FLAGS: MsgFlags = MsgFlags::MSG_NOSIGNAL;
pub(super) const RECEIVE_FLAGS: MsgFlags = MsgFlags::MSG_CMSG_CLOEXEC;

/// Makes a file in memory, which can be given to another process.
pub(crate) fn memory() -> io::Result<File> {
    Ok(memfd_create(c"teleport-proc", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Makes a pipe and returns its ends, first the one to read from. Both are closed on exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Closes all descriptors of a range. Fails before Linux 5.9.
///
/// # Safety
/// Nothing uses or closes any of them afterwards.
pub(super) unsafe fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: the caller's promise; no memory is touched.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Adopts the children of every process below this one that ends.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Gives this process a name, of which the system keeps 15 bytes.
pub(crate) fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // This fails for no name.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Forks into the cgroup whose folder is given. Returns the id of the child, and 0 in the child.
///
/// # Safety
/// As for `sys::fork_into`, and this process has one thread.
pub(super) unsafe fn clone_into(cgroup: &impl AsFd) -> io::Result<i32> {
    /// The arguments of `clone3`, up to the last one that is needed.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let arguments = CloneArguments {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_fd().as_raw_fd() as u64,
        ..CloneArguments::default()
    };
    let size = std::mem::size_of_val(&arguments);
    // SAFETY: the arguments are what the kernel expects. Without a stack and without shared memory the call
    // copies this process as `fork` does, and by the caller's promise this thread is the only one.
    let result = Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) })?;
    Ok(result as i32)
}

const MARK: &[u8] = b"1";

/// Returns whether the extended attribute `name` of a folder is set to 1.
pub(crate) fn has_mark(folder: &Path, name: &CStr) -> bool {
    let Ok(folder) = CString::new(folder.as_os_str().as_bytes()) else { return false };
    let mut value = [0; MARK.len() + 1];
    // SAFETY: both strings end with a zero byte, and the kernel writes at most the length of `value`.
    let length =
        unsafe { libc::getxattr(folder.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    usize::try_from(length).is_ok_and(|length| &value[..length] == MARK)
}

/// Sets the extended attribute `name` of a folder to 1.
pub(crate) fn mark(folder: &Path, name: &CStr) -> io::Result<()> {
    let folder = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: both strings end with a zero byte, and the value has the given length.
    let result =
        unsafe { libc::setxattr(folder.as_ptr(), name.as_ptr(), MARK.as_ptr().cast(), MARK.len(), 0) };
    Errno::result(result)?;
    Ok(())
}

/// Is readable when a child has ended. SIGCHLD must be blocked.
#[derive(Debug)]
pub(super) struct Children(SignalFd);

impl Children {
    pub(super) fn new() -> io::Result<Children> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        Ok(Children(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    pub(super) fn clear(&self) {
        // One signal stands for any number of children, so one read is enough.
        let _ = self.0.read_signal();
    }
}

impl AsFd for Children {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
