//! File descriptors: those that a process is started with, and those that it must not keep.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::platform;

/// Reads a range of a file, up to its end.
pub(crate) fn read_range(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let length = length.min(file.metadata()?.len().saturating_sub(start));
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Opens `/dev/null` for reading and writing.
pub(crate) fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// Opens the current directory.
pub(crate) fn current_folder() -> io::Result<File> {
    File::open(".")
}

/// Makes a pipe whose ends never wait: reading and writing fail instead.
pub(crate) fn nonblocking_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = platform::pipe()?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Locks an open file, unless another open file description has locked it. Returns whether it is locked now.
///
/// The lock lasts until this process and all that were forked from it have closed the file.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and no memory is touched.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Has a descriptor closed when this process executes another program.
pub(crate) fn close_on_exec(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Takes the descriptor of this number that this process was started with. It is closed on exec from now on.
///
/// # Safety
/// Nothing else in this process owns it, and it is taken only once.
pub(crate) unsafe fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: this only reads the flags of the descriptor, and fails if it is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    Errno::result(flags)?;
    // SAFETY: it is open, and the caller says that nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    close_on_exec(&fd)?;
    Ok(fd)
}

/// Closes all descriptors of this process except those of `keep`.
///
/// # Safety
/// Nothing uses or closes any of the others afterwards. So this process has to leave without destructors.
pub(crate) unsafe fn close_all_but(keep: &[RawFd]) {
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 0;
    for number in keep.into_iter().chain([RawFd::MAX]) {
        if first < number {
            // SAFETY: the caller's promise.
            unsafe { close_range(first, number - 1) };
        }
        first = number.saturating_add(1);
    }
}

/// Closes a descriptor that another value in this process owns.
///
/// # Safety
/// The owner never uses or closes it again.
pub(crate) unsafe fn close(number: RawFd) {
    // SAFETY: the caller's promise.
    unsafe { libc::close(number) };
}

/// # Safety
/// As for [`close_all_but`].
unsafe fn close_range(first: RawFd, last: RawFd) {
    // SAFETY: the caller's promise.
    if unsafe { platform::close_range(first, last) }.is_ok() {
        return;
    }
    // SAFETY: this only reads a limit.
    let open = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(0, 1 << 20) as RawFd;
    for number in first..=last.min(open) {
        // SAFETY: the caller's promise; the call fails for a number that is not open.
        unsafe { libc::close(number) };
    }
}

/// Replaces the three standard descriptors by `/dev/null`.
pub(crate) fn forget_standard() -> io::Result<()> {
    let null = null()?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Copies a descriptor to a number that is at least 10. The copy is closed on exec.
pub(crate) fn copy_high(fd: &impl AsFd) -> io::Result<OwnedFd> {
    const FIRST: RawFd = 10;
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST))?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Copies a descriptor to a number at which the next program expects it.
///
/// # Safety
/// This process executes another program next, or leaves without destructors, so that nothing uses the
/// descriptor that had the number before.
pub(crate) unsafe fn place(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    Errno::result(result)?;
    Ok(())
}
