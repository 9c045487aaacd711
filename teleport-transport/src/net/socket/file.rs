//! Socket files: each has one living owner. A dead server's file is replaced, and a server removes its own.
//!
//! Binding and removing a socket file take an exclusive `flock` on its folder. So no other server interferes
//! between finding a file dead and replacing it, or between binding and listening. The lock leaves no file
//! behind. Folders that cannot be locked (no read permission, some network file systems) are used without a
//! lock.
//!
//! Never removes a file that is not a socket, a living server's file, or a file with which another server has
//! replaced this one. Bound: waits at most [`MAX_LOCK_WAIT`] for the folder's lock.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::error::BindError;
use crate::fork_guard::ForkGuard;
use crate::net::address::Address;
use crate::sys::{self, DirectoryLock};

/// The lock is held for four system calls. A process that holds it longer is stopped or malicious.
const MAX_LOCK_WAIT: Duration = Duration::from_secs(2);
/// The time between two attempts, since `flock` has no time-out.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// Returns the kernel's form of a checked Unix address.
pub(super) fn unix_name(address: &Address) -> io::Result<SocketAddr> {
    match address {
        Address::Path(path) => SocketAddr::from_pathname(path),
        Address::Abstract(name) => SocketAddr::from_abstract_name(name),
        Address::Tcp { .. } => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// A socket file that this process created. Dropping it removes the file, unless another server has replaced
/// it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode. While the listener is open, no other file can have this inode, so a `SocketFile`
    /// must be dropped before its listener.
    identity: (u64, u64),
    /// A forked child must not remove its parent's file.
    fork_guard: ForkGuard,
}

impl SocketFile {
    /// Creates the file and listens at it.
    pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
        let address = Address::Path(path.to_owned());
        let io_error = |source| BindError::Io { address: address.clone(), source };
        let name = unix_name(&address).map_err(io_error)?;
        let _lock = lock_folder(path, MAX_LOCK_WAIT).map_err(io_error)?;
        remove_dead_file(path, &address, &name)?;
        let listener = UnixListener::bind_addr(&name).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address: address.clone() },
            _ => io_error(source),
        })?;
        let identity = identity(path).map_err(io_error)?;
        let file = SocketFile { path: path.to_owned(), identity, fork_guard: ForkGuard::current() };
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.fork_guard.is_current() {
            return;
        }
        // Without the lock another server might replace the file between the comparison and the removal. A
        // file that stays is dead, and the next server replaces it.
        let Ok(_lock) = lock_folder(&self.path, MAX_LOCK_WAIT) else { return };
        if !identity(&self.path).is_ok_and(|found| found == self.identity) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a dead server's file. Refuses anything else at `path`.
fn remove_dead_file(path: &Path, address: &Address, name: &SocketAddr) -> Result<(), BindError> {
    let io_error = |source| BindError::Io { address: address.clone(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    if sys::is_listening(name).map_err(io_error)? {
        return Err(BindError::InUse { address: address.clone() });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(error)),
        _ => Ok(()),
    }
}

/// Locks the folder of `path`. Returns `None` if the folder cannot be locked.
fn lock_folder(path: &Path, max_wait: Duration) -> io::Result<Option<DirectoryLock>> {
    let folder = path.parent().unwrap_or(path);
    let deadline = Instant::now() + max_wait;
    loop {
        match DirectoryLock::try_lock(folder) {
            Ok(lock) => return Ok(Some(lock)),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(None),
            Err(_) if Instant::now() >= deadline => {
                let text = format!("another process holds the lock on {}", folder.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(_) => thread::sleep(LOCK_RETRY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_by_one_at_a_time() {
        let folder = std::env::temp_dir().join(format!("teleport-lock-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("x");
        let lock = lock_folder(&path, Duration::ZERO).unwrap();
        assert!(lock.is_some());
        let error = lock_folder(&path, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
        drop(lock);
        assert!(lock_folder(&path, Duration::ZERO).unwrap().is_some());
        fs::remove_dir(&folder).unwrap();
        assert!(lock_folder(&path, Duration::ZERO).unwrap().is_none(), "no folder, no lock");
    }

    #[test]
    fn a_forked_child_leaves_the_file() {
        let path = std::env::temp_dir().join(format!("teleport-fork-{}", std::process::id()));
        let (_listener, mut file) = SocketFile::bind(&path).unwrap();
        let parent = std::mem::replace(&mut file.fork_guard, ForkGuard::elsewhere()); // as a child sees it
        drop(file);
        assert!(path.exists());
        drop(SocketFile { identity: identity(&path).unwrap(), path: path.clone(), fork_guard: parent });
        assert!(!path.exists());
    }
}
