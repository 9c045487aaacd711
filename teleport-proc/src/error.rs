//! The errors of starting and ending processes and threads.
//!
//! The texts name the value, the limit and the remedy. The same error is returned each time: it is `Clone`.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::BoxError;
use crate::failure::Failure;
use crate::sys::Exit;

/// The errors of processes, threads and groups.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcError {
    /// The function of a process or thread returned an error or panicked.
    #[error("{name}: {failure}")]
    Failed {
        /// The name of the process or thread.
        name: String,
        /// The error or panic.
        failure: Box<Failure>,
    },
    /// A process ended without a result, most often before its function did.
    #[error("{name}: the process ended with {exit}, and its function gave no result")]
    Exited {
        /// The name of the process.
        name: String,
        /// The exit code or signal.
        exit: Exit,
    },
    /// It was [killed](crate::Process::kill) or did not stop within its grace, so there is no result.
    #[error("{name}: was killed, so there is no result")]
    Killed {
        /// The name of the process or thread.
        name: String,
    },
    /// The reaper of a process was killed. Its process is killed too, and how it ended is not known.
    #[error("{name}: the reaper of the process was killed, so how the process ended is not known")]
    Lost {
        /// The name of the process.
        name: String,
    },
    /// This program does not call [`init`](crate::init) first in `main`. Nothing was started.
    #[error(
        "{name}: this program cannot be executed again: call `init()` first in `main`, or put \
        `init_before_main!()` into a file of tests"
    )]
    NotInitialized {
        /// The name of the process that should start.
        name: String,
    },
    /// This program was executed again and did not reach [`init`](crate::init).
    #[error(
        "{name}: this program was executed again and {}: call it first in `main`",
        init_not_reached(.waited)
    )]
    InitNotReached {
        /// The name of the process that should start.
        name: String,
        /// The time that this process waited for it, or `None` if the new process ended.
        waited: Option<Duration>,
    },
    /// A process with several threads cannot be forked. Nothing was started.
    #[error(
        "{name}: a process with {} threads ({}) cannot be forked, since locks that the others hold would stay \
        locked: use `Process::new`, or fork before they start",
        .threads.len(),
        .threads.join(", ")
    )]
    Threads {
        /// The name of the process that should start.
        name: String,
        /// The names of this process's threads.
        threads: Vec<String>,
    },
    /// This program started threads before it reached [`init`](crate::init), so that it cannot be forked
    /// when it is executed again. Nothing was started.
    #[error(
        "{name}: this program had {count} threads when it reached `init()`: call it first in `main`, before a \
        runtime (as that of `#[tokio::main]`, in which its `main` runs), a logger or anything else starts threads"
    )]
    EarlyThreads {
        /// The name of the process that should start.
        name: String,
        /// The number of threads.
        count: u32,
    },
    /// The function belongs to a shared library, not to the program. Nothing was started.
    #[error(
        "{name}: the function belongs to {library}, which may lie at another address in a new process: pass a \
        function of the program itself"
    )]
    ForeignFunction {
        /// The name of the process that should start.
        name: String,
        /// The file of the library.
        library: String,
    },
    /// The system refused to start it: it has no descriptors, processes or memory left, or forbids it.
    #[error("{name}: {what}: {source}")]
    Start {
        /// The name of the process or thread that should start.
        name: String,
        /// The step that failed.
        what: &'static str,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// A thread that was killed has not reached a cancellation point within its grace.
    #[error(
        "{name}: the thread has not reached a cancellation point within {waited:?} after it was killed: call \
        `checkpoint()` where it computes for long"
    )]
    ThreadRuns {
        /// The name of the thread.
        name: String,
        /// The grace of the thread.
        waited: Duration,
    },
    /// The program is built with `panic = "abort"`, so that a thread cannot unwind. Nothing was started.
    #[error(
        "{name}: the program is built with `panic = \"abort\"`, so its threads cannot be killed: build it with \
        `panic = \"unwind\"`"
    )]
    NeedsUnwind {
        /// The name of the thread that should start.
        name: String,
    },
    /// It is running already.
    #[error("{name}: is running already")]
    AlreadyStarted {
        /// The name of the process or thread.
        name: String,
    },
    /// It was never started.
    #[error("{name}: was not started")]
    NotStarted {
        /// The name of the process or thread.
        name: String,
    },
    /// This process was forked from the one that owns the process. Only the owner can wait for it or end it.
    #[error("{name}: belongs to the process that this one was forked from: ask that one instead")]
    Forked {
        /// The name of the process.
        name: String,
    },
    /// The argument of a process cannot be converted to bytes. Nothing was started.
    #[error("{name}: the argument cannot be converted to bytes: {source}")]
    Argument {
        /// The name of the process that should start.
        name: String,
        /// The error of the conversion.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The result cannot be converted from bytes.
    #[error("{name}: the result cannot be converted from bytes: {source}")]
    Result {
        /// The name of the process or thread.
        name: String,
        /// The error of the conversion.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A call of the system failed.
    #[error("{what}: {source}")]
    System {
        /// The purpose of the call.
        what: String,
        /// The error of the system.
        source: Arc<io::Error>,
    },
    /// Processes are still there although they were killed. Either the kernel does something for them that
    /// cannot be interrupted, or they belong to another user.
    #[error(
        "processes {pids:?} are still there {waited:?} after they were killed: either the kernel does something \
        for them that cannot be interrupted, or they belong to another user"
    )]
    StillRunning {
        /// The process ids.
        pids: Vec<u32>,
        /// The time that this process waited after it killed them.
        waited: Duration,
    },
}

impl ProcError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> ProcError {
        move |source| ProcError::System { what: what.into(), source: Arc::new(source) }
    }

    pub(crate) fn start(name: &str, what: &'static str) -> impl FnOnce(io::Error) -> ProcError {
        let name = name.to_owned();
        move |source| ProcError::Start { name, what, source: Arc::new(source) }
    }

    pub(crate) fn result(name: &str) -> impl FnOnce(BoxError) -> ProcError {
        move |source| ProcError::Result { name: name.to_owned(), source: source.into() }
    }

    pub(crate) fn failed(name: &str, failure: Failure) -> ProcError {
        ProcError::Failed { name: name.to_owned(), failure: Box::new(failure) }
    }

    /// Returns the error or panic of the function, if that is the cause.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            ProcError::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }
}

fn init_not_reached(waited: &Option<Duration>) -> String {
    match waited {
        Some(waited) => format!("did not reach `init()` within {waited:?}"),
        None => "ended before it reached `init()`".to_owned(),
    }
}
