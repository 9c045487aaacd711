//! Attributes and locks of the folders of cgroups.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{has_mark, mark};

/// Returns false: only Linux has cgroups.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn has_mark(_folder: &Path, _name: &CStr) -> bool {
    false
}

/// Fails: only Linux has cgroups.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn mark(_folder: &Path, _name: &CStr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    use super::{CStr, Errno, Path, io};

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
}
