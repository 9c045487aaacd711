//! The exit of a process.

use std::fmt::{self, Display, Formatter};

use nix::sys::signal::Signal;

/// The exit code or signal with which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// The process exited with this code.
    Code(i32),
    /// The process was ended by this signal.
    Signal(i32),
}

impl Exit {
    /// The exit code of every Rust program that ends with a panic.
    pub(crate) const PANIC_CODE: i32 = 101;

    /// Returns whether the process exited with code 0.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// Returns whether a panic ends a process in this way.
    pub(crate) fn is_of_panic(self) -> bool {
        [Exit::Code(Exit::PANIC_CODE), Exit::Signal(Signal::SIGABRT as i32)].contains(&self)
    }
}

impl Display for Exit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "code {code}"),
            Exit::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}
