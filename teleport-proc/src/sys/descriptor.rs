//! Descriptors: those that a process is started with, and those that it must not keep.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

use super::poll_timeout;

/// Memory that is a file: it can be given to another process, grows as it is written, and leaves nothing behind.
pub(crate) fn memory() -> io::Result<File> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        Ok(memfd_create(c"teleport-proc", MFdFlags::MFD_CLOEXEC)?.into())
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let template = std::env::temp_dir().join("teleport-proc-XXXXXX");
        let (file, path) = nix::unistd::mkstemp(&template)?;
        nix::unistd::unlink(&path)?;
        close_on_exec(&file)?;
        Ok(file.into())
    }
}

/// `/dev/null`, to read and write.
pub(crate) fn null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// The current folder, to go to later.
pub(crate) fn current_folder() -> io::Result<File> {
    File::open(".")
}

/// Has a descriptor closed when this process executes another program.
pub(crate) fn close_on_exec(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Has reading and writing fail instead of waiting.
pub(crate) fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The descriptor of this number, that this process was started with; closed on exec from now on.
///
/// # Safety
/// Nothing in this process has it or will get it again.
pub(crate) unsafe fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asked for its flags only, and whether it is there.
    let there = unsafe { libc::fcntl(number, libc::F_GETFD) };
    Errno::result(there)?;
    // SAFETY: it is open, and the caller says that nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    close_on_exec(&fd)?;
    Ok(fd)
}

/// Closes all descriptors of this process but some.
///
/// # Safety
/// Nothing uses any of the others afterwards, or closes them: so this process leaves without destructors.
pub(crate) unsafe fn close_all_but(keep: &[RawFd]) {
    let mut keep = keep.to_vec();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 0;
    for number in keep.into_iter().chain([RawFd::MAX]) {
        if first < number {
            // SAFETY: as the caller says.
            unsafe { close_range(first, number - 1) };
        }
        first = number.saturating_add(1);
    }
}

/// Closes a descriptor that something else in this process believes to have.
///
/// # Safety
/// That never uses or closes it.
pub(crate) unsafe fn close(number: RawFd) {
    // SAFETY: as the caller says.
    unsafe { libc::close(number) };
}

/// # Safety
/// As [`close_all_but`].
unsafe fn close_range(first: RawFd, last: RawFd) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // SAFETY: closes descriptors, and touches no memory.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result == 0 {
            return;
        }
    }
    // The call came with Linux 5.9, and nowhere else.
    // SAFETY: only asks.
    let open = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(0, 1 << 20) as RawFd;
    for number in first..=last.min(open) {
        // SAFETY: as the caller says; a number that is not open is refused.
        unsafe { libc::close(number) };
    }
}

/// **Blocks** until something can be read, or the other end is closed, at most until `deadline`. Says whether.
pub(crate) fn readable(fd: &impl AsFd, deadline: Option<Instant>) -> io::Result<bool> {
    any_readable(&[fd.as_fd()], deadline)
}

/// As [`readable`], for one of several.
pub(crate) fn any_readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
        match poll(&mut fds, poll_timeout(deadline)) {
            Ok(0) if over => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Puts `/dev/null` in place of the three standard descriptors.
pub(crate) fn forget_standard() -> io::Result<()> {
    let null = null()?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// A copy of a descriptor whose number is none of the first few, closed on exec.
pub(crate) fn copy_high(fd: &impl AsFd) -> io::Result<OwnedFd> {
    const FIRST: RawFd = 10;
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST))?;
    // SAFETY: the kernel has just made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts a descriptor where a program that is executed next looks for it.
///
/// # Safety
/// This process executes another program next, or leaves without destructors: nothing uses the descriptor that had the
/// number before.
pub(crate) unsafe fn place(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: as the caller says.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    Errno::result(result)?;
    Ok(())
}
