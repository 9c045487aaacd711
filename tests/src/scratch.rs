//! Places that no other test has.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number that no other test of this machine has at the moment.
fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An `ipc://@name` address of its own.
pub fn abstract_address() -> String {
    format!("ipc://@teleport-test-{}", unique())
}

/// A folder of its own, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// Makes the folder. Its path is short, since socket files have at most 107 bytes.
    #[allow(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Scratch {
        let folder = std::env::temp_dir().join(format!("teleport-test-{}", unique()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        Scratch { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The address of a socket file in it.
    pub fn socket(&self) -> String {
        format!("ipc://{}", self.file("socket").display())
    }

    /// The names of the files in it.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).expect("the folder is there");
        entries
            .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind lies in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
