//! Locks on directories.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// An exclusive `flock` on a directory, held until it is dropped or the process ends. It creates no file.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: Flock<File>,
}

impl DirectoryLock {
    /// Takes the lock. Returns `WouldBlock` if another holder has it.
    pub(crate) fn try_lock(folder: &Path) -> io::Result<DirectoryLock> {
        let file = File::open(folder)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(DirectoryLock { _file: file }),
            Err((_, error)) => Err(error.into()),
        }
    }
}
