//! What folders of cgroups know beside their files: marks, who has them locked, and that they changed.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::poll_timeout;

/// Whether the attribute `name` of a folder is there, and 1. Elsewhere than on Linux there are none.
pub(crate) fn has_mark(folder: &Path, name: &CStr) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        linux::has_mark(folder, name)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (folder, name);
        false
    }
}

/// Makes that so.
pub(crate) fn mark(folder: &Path, name: &CStr) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        linux::mark(folder, name)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (folder, name);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Locks what a file is open for, as long as this process or one that was forked from it has it open, unless another has.
/// Says whether.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: it is open, and no memory is touched.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// **Blocks** until a file of a cgroup says something else than when it was read, at most until `deadline`. Says whether.
pub(crate) fn has_changed(file: &File, deadline: Instant) -> io::Result<bool> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
    loop {
        let over = deadline <= Instant::now();
        match poll(&mut fds, poll_timeout(Some(deadline))) {
            Ok(0) if over => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::ffi::{CStr, CString};
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use nix::errno::Errno;

    const MARK: &[u8] = b"1";

    pub(super) fn has_mark(folder: &Path, name: &CStr) -> bool {
        let Ok(folder) = CString::new(folder.as_os_str().as_bytes()) else { return false };
        let mut value = [0; MARK.len() + 1];
        // SAFETY: both are strings with an end, and no more is written than there is room for.
        let length =
            unsafe { libc::getxattr(folder.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        usize::try_from(length).is_ok_and(|length| &value[..length] == MARK)
    }

    pub(super) fn mark(folder: &Path, name: &CStr) -> io::Result<()> {
        let folder = CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: both are strings with an end, and the value is as long as it is said to be.
        let result =
            unsafe { libc::setxattr(folder.as_ptr(), name.as_ptr(), MARK.as_ptr().cast(), MARK.len(), 0) };
        Errno::result(result)?;
        Ok(())
    }
}
