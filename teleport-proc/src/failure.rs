//! The error or panic with which a function of a process or thread failed.

use std::error::Error;
use std::fmt::{self, Display, Formatter};

use crate::codec::BoxError;

/// A longer message is truncated.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// A longer backtrace is truncated. Hundreds of frames fit.
const MAX_BACKTRACE_BYTES: usize = 256 << 10;

/// The error that a function returned, or its panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub(crate) message: String,
    pub(crate) backtrace: Option<String>,
    pub(crate) panicked: bool,
}

impl Failure {
    pub(crate) fn of_error(error: &BoxError) -> Failure {
        Failure {
            message: truncated(full_text(&**error), MAX_MESSAGE_BYTES),
            backtrace: own_backtrace(&**error).map(|text| truncated(text, MAX_BACKTRACE_BYTES)),
            panicked: false,
        }
    }

    pub(crate) fn of_panic(text: String, location: Option<String>, backtrace: Option<String>) -> Failure {
        let text = truncated(text, MAX_MESSAGE_BYTES - 1024);
        Failure {
            message: location.map_or(text.clone(), |location| format!("{text} (at {location})")),
            backtrace: backtrace.map(|text| truncated(text, MAX_BACKTRACE_BYTES)),
            panicked: true,
        }
    }

    /// Returns the text of the error and its sources, or the message of the panic and its place in the
    /// source. It has at most 64 KiB.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the backtrace, which has at most 256 KiB.
    ///
    /// A panic has one unless `RUST_BACKTRACE=0` is set. An error has one if it shows one with `{:?}`, as
    /// errors of `anyhow` do.
    pub fn backtrace(&self) -> Option<&str> {
        self.backtrace.as_deref()
    }

    /// Returns whether the function panicked.
    pub fn panicked(&self) -> bool {
        self.panicked
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.panicked { "panicked: " } else { "" }, self.message)
    }
}

/// Joins the texts of an error and its sources, without those that an earlier one contains.
fn full_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

/// Returns the backtrace in the debug text of an error. Stable Rust has no other way to ask for it.
fn own_backtrace(error: &dyn Error) -> Option<String> {
    let text = format!("{error:?}");
    let (_, backtrace) = text.split_once("Stack backtrace:\n")?;
    Some(backtrace.to_owned())
}

fn truncated(mut text: String, max_bytes: usize) -> String {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_includes_its_sources() {
        let inner = std::io::Error::other("inner");
        let failure = Failure::of_error(&BoxError::from(crate::ProcError::system("outer")(inner)));
        assert_eq!(failure.message(), "outer: inner");
        let long: BoxError = "ü".repeat(MAX_MESSAGE_BYTES).into();
        assert_eq!(Failure::of_error(&long).message().len(), MAX_MESSAGE_BYTES);
    }
}
