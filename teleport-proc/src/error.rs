//! Why a process or thread did not start, or did not end well.
//!
//! Facts only; the texts name the value, the limit and the remedy. Errors can be cloned, since each is told as often as
//! it is asked for.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What processes, threads and groups can fail with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProcError {
    /// The system did not do what was asked: it has no descriptors, processes or memory left, or forbids it.
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
}

impl Display for ProcError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
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
            ProcError::System { source, .. } => Some(&**source),
            ProcError::StillRunning { .. } => None,
        }
    }
}
