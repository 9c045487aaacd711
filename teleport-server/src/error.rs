//! Why a server does not start, or ends otherwise than by being closed.

use std::io;

use crate::batch::options::BatchProblem;
use teleport_transport::BindError;
use teleport_transport::wire::RemoteError;

/// Why a server did not start or did not end well, and which of its functions failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot listen at its address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system has no thread, descriptor or memory left for the server itself.
    #[error("cannot start {what}: {source}")]
    Io {
        /// What was to be started.
        what: String,
        /// What the system said.
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
    /// A method is batched in a way that does not work.
    #[error("method {name:?}: {problem}")]
    Batch {
        /// The method.
        name: String,
        /// What is wrong.
        problem: BatchProblem,
    },
    /// A done function belongs to a method that gives no logs.
    #[error("method {name:?} has a done function, but gives no logs: register it with `Method::logged`")]
    NotLogged {
        /// The method.
        name: String,
    },
    /// A done function belongs to a method that does not exist.
    #[error("there is a done function for {name:?}, but no such method")]
    DoneWithoutMethod {
        /// What it was to belong to.
        name: String,
    },
    /// A method has two done functions.
    #[error("method {name:?} has two done functions")]
    DuplicateDone {
        /// The method.
        name: String,
    },
    /// A function failed, panicked, or gave a result that cannot be sent. Its caller was told.
    #[error("method {method:?}, called by {caller}: {error}")]
    Function {
        /// The method.
        method: String,
        /// The name of the client, or its address where it has no name; of a batch that of the first row, and how many others.
        caller: String,
        /// What the caller was told.
        error: Box<RemoteError>,
    },
    /// A done function failed or panicked.
    #[error("the done function of method {method:?}: {message}")]
    Done {
        /// The method whose logs it got.
        method: String,
        /// Its error.
        message: String,
    },
    /// When the server closed, functions did not return in time. Their threads were left behind.
    #[error("closed, but after {waited_ms} ms these still ran: {}; their threads were left behind", running.join(", "))]
    StillRunning {
        /// Each function with its thread.
        running: Vec<String>,
        /// How long closing waited, in milliseconds.
        waited_ms: u64,
    },
    /// This process was forked from the one that has the server: its threads and sockets are over there.
    #[error("the server belongs to the process that this one was forked from")]
    Forked,
    /// A thread of the server itself waits for the server to end.
    #[error("a function of the server cannot wait for the server to end: it would wait for itself")]
    OnOwnThread,
}
