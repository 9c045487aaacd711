//! The errors of starting and ending a server, and the errors that functions may return.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;

use teleport_transport::BindError;
use teleport_transport::wire::{ErrorKind, Ran, RemoteError, TreeError};

use crate::api::batch_options::BatchProblem;

/// The reason why a server did not start or did not end well, or the failure of a function.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The server cannot listen at its address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system has no thread, descriptor or memory left for the server itself.
    #[error("cannot start {what}: {source}")]
    Io {
        /// The thing that could not be started.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// Two functions have the same name.
    #[error("method {name:?} is registered twice: give each function a name of its own")]
    DuplicateMethod {
        /// The name.
        name: String,
    },
    /// A method's name is empty or too long.
    #[error("method {name:?} has a name of {bytes} bytes: it must have 1 to {max_bytes}")]
    MethodName {
        /// The name.
        name: String,
        /// Its length.
        bytes: usize,
        /// The limit of the format.
        max_bytes: usize,
    },
    /// An inline method was given workers.
    #[error(
        "method {name:?} is inline and has `workers`: it runs on the poller; use `Method::new` for a pool of its own"
    )]
    InlineWithWorkers {
        /// The method.
        name: String,
    },
    /// The options of a batched method are wrong.
    #[error("method {name:?}: {problem}")]
    Batch {
        /// The method.
        name: String,
        /// The problem.
        problem: BatchProblem,
    },
    /// A done function belongs to a method that is not logged.
    #[error("method {name:?} has a done function, but gives no logs: register it with `Method::logged`")]
    NotLogged {
        /// The method.
        name: String,
    },
    /// A done function belongs to a method that does not exist.
    #[error("there is a done function for {name:?}, but no such method")]
    DoneWithoutMethod {
        /// The name of the missing method.
        name: String,
    },
    /// A method has two done functions.
    #[error("method {name:?} has two done functions")]
    DuplicateDone {
        /// The method.
        name: String,
    },
    /// A function failed, panicked, or returned a result that cannot be sent. Its caller got the error too.
    #[error("method {method:?}, called by {caller}: {error}")]
    Function {
        /// The method.
        method: String,
        /// The name of the client, or its address if it has no name. For a batch, the client of the first
        /// row and the number of others.
        caller: String,
        /// The error that the caller got.
        error: Box<RemoteError>,
    },
    /// A done function failed or panicked.
    #[error("the done function of method {method:?}: {message}")]
    Done {
        /// The method that the logs belong to.
        method: String,
        /// Its error.
        message: String,
    },
    /// Functions did not return in time when the server closed. Their threads were left behind.
    #[error("closed, but after {waited_ms} ms these still ran: {}; their threads were left behind", running.join(", "))]
    StillRunning {
        /// Each function with its thread.
        running: Vec<String>,
        /// The time that closing waited, in milliseconds.
        waited_ms: u64,
    },
    /// This process was forked from the one that has the server's threads and sockets.
    #[error("the server belongs to the process that this one was forked from")]
    Forked,
    /// A thread of the server waited for the server to end.
    #[error("a function of the server cannot wait for the server to end: it would wait for itself")]
    OnOwnThread,
}

/// Any error that a function may return. The operator `?` converts every error to it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An error with a code of the application's own.
///
/// A function may return any error, and its caller gets the text. This error also carries a code, so that
/// callers can tell failures apart without reading text. It may be anywhere in an error's chain of sources.
///
/// ```
/// use teleport_server::{BoxError, Failure, Methods};
/// use teleport_server::wire::{Tree, tree};
///
/// let methods = Methods::new().register("load", |name: String| -> Result<Tree, BoxError> {
///     let bytes = std::fs::read(&name)
///         .map_err(|error| Failure::with_code("no_file", name).caused_by(error))?;
///     Ok(tree!({"bytes": bytes}))
/// });
/// ```
#[derive(Debug)]
pub struct Failure {
    code: String,
    message: String,
    source: Option<BoxError>,
}

impl Failure {
    /// Creates an error with a code (of which at most 256 bytes are sent) and a text for people (at most 16
    /// KiB).
    pub fn with_code(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { code: code.into(), message: message.into(), source: None }
    }

    /// Adds a cause, whose text is added to the message that the caller gets.
    #[must_use]
    pub fn caused_by(self, source: impl Into<BoxError>) -> Failure {
        Failure { source: Some(source.into()), ..self }
    }

    /// Returns the application's code.
    pub fn code(&self) -> &str {
        &self.code
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Converts a function's error to the error that its caller gets.
pub(crate) fn failed(error: &BoxError) -> RemoteError {
    let code = chain(&**error).find_map(|link| link.downcast_ref::<Failure>()).map_or("", Failure::code);
    RemoteError::new(ErrorKind::Failed, Ran::Yes, full_text(&**error)).with_code(code)
}

/// Converts the reason why arguments do not fit to the error that their caller gets.
pub(crate) fn misfit(error: &TreeError) -> RemoteError {
    RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string())
}

/// Returns an error and its causes, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// Joins the texts of an error and its causes, except those that repeat an earlier one.
pub(crate) fn full_text(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for part in chain(error).map(ToString::to_string) {
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_printed_once() {
        let inner = std::io::Error::other("disk full");
        let error: BoxError = Failure::with_code("no_space", "cannot save").caused_by(inner).into();
        let remote = failed(&error);
        assert_eq!((remote.code.as_str(), remote.message.as_str()), ("no_space", "cannot save: disk full"));
        assert_eq!((remote.kind, remote.ran), (ErrorKind::Failed, Ran::Yes));

        let repeated: BoxError = Failure::with_code("", "cannot save: disk full")
            .caused_by(std::io::Error::other("disk full"))
            .into();
        assert_eq!(failed(&repeated).message, "cannot save: disk full");
    }

    #[test]
    fn a_code_is_found_under_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("while stepping")]
        struct Outer(#[source] Failure);
        let error: BoxError = Outer(Failure::with_code("not_ready", "no weights yet")).into();
        let remote = failed(&error);
        assert_eq!(
            (remote.code.as_str(), remote.message.as_str()),
            ("not_ready", "while stepping: no weights yet")
        );
    }
}
