//! What this process has logged, for tests whose server runs in it.

use std::io;
use std::sync::{Mutex, Once};

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// What this process has logged since it was asked for first.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Log {
    /// Collects from now on, if nobody has asked for it before.
    pub fn open() -> Log {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).init());
        Log
    }

    /// Whether there is a line with this text.
    pub fn has(self, text: &str) -> bool {
        !self.lines(text).is_empty()
    }

    /// The lines with this text.
    pub fn lines(self, text: &str) -> Vec<String> {
        let logged = LOGGED.lock().expect("nobody panics with it");
        let logged = String::from_utf8_lossy(&logged);
        logged.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
