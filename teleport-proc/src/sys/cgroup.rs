//! What folders of cgroups know beside their files: whom they were delegated to, who keeps them, and that they changed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use super::poll_timeout;

/// Whether a cgroup has the mark that systemd gives to what it delegates. Elsewhere than on Linux there are none.
pub(crate) fn is_delegated(folder: &Path) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        linux::is_delegated(folder)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = folder;
        false
    }
}

/// Gives a cgroup that mark.
pub(crate) fn set_delegated(folder: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        linux::set_delegated(folder)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = folder;
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

    /// The first can be given and read by everybody who may write there, the second by the superuser.
    const MARKS: [&CStr; 2] = [c"user.delegate", c"trusted.delegate"];
    const VALUE: &[u8] = b"1";

    pub(super) fn is_delegated(folder: &Path) -> bool {
        let Ok(folder) = CString::new(folder.as_os_str().as_bytes()) else { return false };
        MARKS.iter().any(|mark| {
            let mut value = [0; VALUE.len() + 1];
            // SAFETY: both are strings with an end, and no more is written than there is room for.
            let length = unsafe {
                libc::getxattr(folder.as_ptr(), mark.as_ptr(), value.as_mut_ptr().cast(), value.len())
            };
            usize::try_from(length).is_ok_and(|length| &value[..length] == VALUE)
        })
    }

    pub(super) fn set_delegated(folder: &Path) -> io::Result<()> {
        let folder = CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: both are strings with an end, and the value is as long as it is said to be.
        let result = unsafe {
            libc::setxattr(folder.as_ptr(), MARKS[0].as_ptr(), VALUE.as_ptr().cast(), VALUE.len(), 0)
        };
        Errno::result(result)?;
        Ok(())
    }
}
