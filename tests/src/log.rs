//! The log of this process, for tests that run a server in it.

use std::io;
use std::sync::{Mutex, Once};

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// The log of this process since the first [`Log::open`].
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Log {
    /// Starts to collect log lines, unless a test has done so before.
    pub fn open() -> Log {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).init());
        Log
    }

    /// Returns true if a line contains `text`.
    pub fn has(self, text: &str) -> bool {
        !self.lines(text).is_empty()
    }

    /// Returns the lines that contain `text`.
    pub fn lines(self, text: &str) -> Vec<String> {
        let logged = LOGGED.lock().expect("the lock is not poisoned");
        let logged = String::from_utf8_lossy(&logged);
        logged.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().expect("the lock is not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
