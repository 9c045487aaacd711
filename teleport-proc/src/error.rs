//! Why a process or thread did not start, or did not end well.
//!
//! Facts only; the texts name the value, the limit and the remedy. Errors can be cloned, since each is told as often as
//! it is asked for.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::BoxError;
use crate::failure::Failure;
use crate::sys::Exit;

/// What processes, threads and groups can fail with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProcError {
    /// The function of a process or thread returned an error or panicked.
    Failed {
        /// The process or thread.
        name: String,
        /// What with.
        failure: Box<Failure>,
    },
    /// A process ended by a signal or with a code, without a result: most often before its function did.
    Exited {
        /// The process.
        name: String,
        /// How.
        exit: Exit,
    },
    /// It was ended by [`kill`](crate::Process::kill) or by the end of a grace, so there is no result.
    Killed {
        /// The process or thread.
        name: String,
    },
    /// What watched over a process was itself killed. What it watched over is killed too, and how that ended is not known.
    Lost {
        /// The process.
        name: String,
    },
    /// This program does not call [`init`](crate::init) first in `main`, so it cannot be executed again. Nothing was
    /// started.
    NotInitialized {
        /// The process that was to start.
        name: String,
    },
    /// This program was executed again and did not come to [`init`](crate::init).
    InitNotReached {
        /// The process that was to start.
        name: String,
        /// How long it was waited for; none if the new process ended.
        waited: Option<Duration>,
    },
    /// A process was to be forked off one that has more than one thread. Nothing was started.
    Threads {
        /// The process that was to start.
        name: String,
        /// The names of this process's threads.
        threads: Vec<String>,
    },
    /// This program started threads before it came to `init`, so that nothing can be forked from it when it is executed again.
    /// Nothing was started.
    EarlyThreads {
        /// The process that was to start.
        name: String,
        /// How many threads it had.
        count: u32,
    },
    /// The function belongs to a library that was loaded, and may be elsewhere in a new process. Nothing was started.
    ForeignFunction {
        /// The process that was to start.
        name: String,
        /// The file of the library.
        library: String,
    },
    /// The system did not do what starting takes: it has no descriptors, processes or memory left, or forbids it.
    Start {
        /// The process or thread that was to start.
        name: String,
        /// What failed.
        what: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A thread that was killed has come to no point at which it could end. It ends at the next, if it comes to one.
    ThreadRuns {
        /// The thread.
        name: String,
        /// Its grace.
        waited: Duration,
    },
    /// The program is built with `panic = "abort"`, so that a thread cannot unwind. Nothing was started.
    NeedsUnwind {
        /// The thread that was to start.
        name: String,
    },
    /// It runs already.
    AlreadyStarted {
        /// The process or thread.
        name: String,
    },
    /// It was never started.
    NotStarted {
        /// The process or thread.
        name: String,
    },
    /// Whose process it is has been forked, and this is the child: it is the parent's to ask.
    Forked {
        /// The process.
        name: String,
    },
    /// The argument of a process cannot be turned into bytes. Nothing was started.
    Argument {
        /// The process that was to start.
        name: String,
        /// What does not fit.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The result of a process does not fit its type.
    Result {
        /// The process.
        name: String,
        /// What does not fit.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The system did not do what was asked.
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Processes are still there although they were killed: the kernel does something for them that cannot be
    /// interrupted, or they belong to another user.
    StillRunning {
        /// Which.
        pids: Vec<u32>,
        /// How long it was waited after they were killed.
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

    /// What the function failed with, if this is why.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            ProcError::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }
}

impl Display for ProcError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ProcError::Failed { name, failure } => write!(f, "{name}: {failure}"),
            ProcError::Exited { name, exit } => {
                write!(f, "{name}: the process ended with {exit}, and its function gave no result")
            }
            ProcError::Killed { name } => write!(f, "{name}: was killed, so there is no result"),
            ProcError::Lost { name } => {
                write!(f, "{name}: the process that watched over it was killed, so how it ended is not known")
            }
            ProcError::NotInitialized { name } => write!(
                f,
                "{name}: this program cannot be executed again: call `init()` first in `main`, or put \
                `init_before_main!()` into a file of tests"
            ),
            ProcError::InitNotReached { name, waited: Some(waited) } => write!(
                f,
                "{name}: this program was executed again and did not come to `init()` within {waited:?}: call it \
                first in `main`"
            ),
            ProcError::InitNotReached { name, waited: None } => write!(
                f,
                "{name}: this program was executed again and ended before it came to `init()`: call it first in `main`"
            ),
            ProcError::EarlyThreads { name, count } => write!(
                f,
                "{name}: this program had {count} threads when it came to `init()`: call it first in `main`, before a runtime \
                (as of `#[tokio::main]`, whose `main` runs in one), a logger or anything else starts threads"
            ),
            ProcError::Threads { name, threads } => write!(
                f,
                "{name}: a process with {} threads ({}) cannot be forked, since what the others have locked would stay \
                locked: use `Process::new`, or fork before they start",
                threads.len(),
                threads.join(", ")
            ),
            ProcError::ForeignFunction { name, library } => write!(
                f,
                "{name}: the function belongs to {library}, which may lie elsewhere in a new process: pass a function \
                of the program itself"
            ),
            ProcError::Start { name, what, source } => write!(f, "{name}: {what}: {source}"),
            ProcError::ThreadRuns { name, waited } => write!(
                f,
                "{name}: the thread has come to no point at which it could end within {waited:?} after it was killed: \
                call `checkpoint()` where it computes for long"
            ),
            ProcError::NeedsUnwind { name } => write!(
                f,
                "{name}: the program is built with `panic = \"abort\"`, and its threads could not be ended: build it \
                with `panic = \"unwind\"`"
            ),
            ProcError::AlreadyStarted { name } => write!(f, "{name}: runs already"),
            ProcError::NotStarted { name } => write!(f, "{name}: was not started"),
            ProcError::Forked { name } => {
                write!(
                    f,
                    "{name}: belongs to the process that this one was forked from, which must be asked instead"
                )
            }
            ProcError::Argument { name, source } => write!(f, "{name}: the argument does not fit: {source}"),
            ProcError::Result { name, source } => write!(f, "{name}: the result does not fit: {source}"),
            ProcError::System { what, source } => write!(f, "{what}: {source}"),
            ProcError::StillRunning { pids, waited } => write!(
                f,
                "processes {pids:?} are still there {waited:?} after they were killed: the kernel does something for \
                them that cannot be interrupted, or they belong to another user"
            ),
        }
    }
}

impl Error for ProcError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ProcError::System { source, .. } | ProcError::Start { source, .. } => Some(&**source),
            ProcError::Argument { source, .. } | ProcError::Result { source, .. } => Some(&**source),
            _ => None,
        }
    }
}
