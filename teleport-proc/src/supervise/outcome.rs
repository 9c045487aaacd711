//! The outcome of a function, in memory that its process writes and its owner reads.
//!
//! ```text
//! state | length of what follows | value, or message and backtrace of a failure
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::codec::{Reader, Writer};
use crate::failure::Failure;
use crate::sys;

/// The memory of one outcome.
#[derive(Debug)]
pub(crate) struct ResultFile(pub(crate) File);

/// The progress of a function.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The process did not come as far as `init`.
    Nothing,
    /// The process ended while the function ran.
    Running,
    /// The same, after this panic, which has ended the process or was caught by the function.
    Panicking(Failure),
    Value(Vec<u8>),
    Failure(Failure),
}

const RUNNING: u64 = 1;
const VALUE: u64 = 2;
const FAILURE: u64 = 3;
const PANIC: u64 = 4;
const PANICKING: u64 = 5;

/// The state and the length.
const HEAD_BYTES: u64 = 16;

impl ResultFile {
    pub(crate) fn write_running(&self) -> io::Result<()> {
        self.write_head(RUNNING, 0)
    }

    /// Writes a result. The head is written last, so that a process killed meanwhile has no result.
    pub(crate) fn write(&self, result: &Result<Vec<u8>, Failure>) -> io::Result<()> {
        self.write_running()?;
        let mut writer = Writer::default();
        let (state, bytes) = match result {
            Ok(bytes) => (VALUE, bytes),
            Err(failure) => {
                writer.bytes(failure.message.as_bytes());
                failure.backtrace.iter().for_each(|text| writer.bytes(text.as_bytes()));
                (if failure.panicked { PANIC } else { FAILURE }, &writer.0)
            }
        };
        self.0.write_all_at(bytes, HEAD_BYTES)?;
        self.write_head(state, bytes.len() as u64)
    }

    /// Turns a written panic into one that the function may have caught.
    pub(crate) fn write_caught(&self) -> io::Result<()> {
        self.0.write_all_at(&PANICKING.to_le_bytes(), 0)
    }

    fn write_head(&self, state: u64, bytes: u64) -> io::Result<()> {
        let mut writer = Writer::default();
        writer.number(state);
        writer.number(bytes);
        self.0.write_all_at(&writer.0, 0)
    }

    pub(crate) fn read(&self) -> io::Result<Outcome> {
        let head = sys::read_range(&self.0, 0, HEAD_BYTES)?;
        let mut head = Reader(&head);
        let (Ok(state), Ok(length)) = (head.number(), head.number()) else { return Ok(Outcome::Nothing) };
        let bytes = sys::read_range(&self.0, HEAD_BYTES, length)?;
        Ok(match state {
            VALUE => Outcome::Value(bytes),
            FAILURE | PANIC | PANICKING => {
                let mut reader = Reader(&bytes);
                let mut text = || reader.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let (message, backtrace) = (text().unwrap_or_default(), text().ok());
                let failure = Failure { message, backtrace, panicked: state != FAILURE };
                if state == PANICKING { Outcome::Panicking(failure) } else { Outcome::Failure(failure) }
            }
            _ => Outcome::Running,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read() {
        let file = ResultFile(sys::memory().unwrap());
        assert!(matches!(file.read().unwrap(), Outcome::Nothing));
        file.write_running().unwrap();
        assert!(matches!(file.read().unwrap(), Outcome::Running));
        let failure = Failure { message: "no".into(), backtrace: Some("here".into()), panicked: true };
        file.write(&Err(failure.clone())).unwrap();
        assert!(matches!(file.read().unwrap(), Outcome::Failure(read) if read == failure));
        file.write_caught().unwrap();
        assert!(matches!(file.read().unwrap(), Outcome::Panicking(read) if read == failure));
        file.write(&Ok(vec![7; 100])).unwrap();
        assert!(matches!(file.read().unwrap(), Outcome::Value(bytes) if bytes == [7; 100]));
    }
}
