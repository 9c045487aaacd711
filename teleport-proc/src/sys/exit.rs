//! How a process ended.

use std::fmt::{self, Display, Formatter};

use nix::sys::signal::Signal;

/// The code of every Rust program that ends with a panic.
pub(crate) const PANIC_CODE: i32 = 101;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended by itself with code 0.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// Whether that is how a panic ends a process.
    pub(crate) fn is_of_panic(self) -> bool {
        [Exit::Code(PANIC_CODE), Exit::Signal(Signal::SIGABRT as i32)].contains(&self)
    }
}

impl Display for Exit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}{}", Name(*signal)),
        }
    }
}

/// ` (SIGKILL)`
struct Name(i32);

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Signal::try_from(self.0).map_or(Ok(()), |signal| write!(f, " ({signal})"))
    }
}
