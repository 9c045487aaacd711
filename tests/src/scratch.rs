//! Addresses and folders that no other test uses.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Returns a name that no other running test on this machine uses.
fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns a new `ipc://@name` address.
pub fn abstract_address() -> String {
    format!("ipc://@teleport-test-{}", unique())
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Creates the folder. Its path is short because the path of a socket file has at most 107 bytes.
    #[allow(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Scratch {
        let folder = std::env::temp_dir().join(format!("teleport-test-{}", unique()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        Scratch { folder }
    }

    /// Returns the path of the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the address of a socket file in the folder.
    pub fn socket(&self) -> String {
        format!("ipc://{}", self.file("socket").display())
    }

    /// Returns the names of the files in the folder.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).expect("the folder exists");
        entries
            .map(|entry| entry.expect("the entry can be read").file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Files that cannot be removed stay in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
