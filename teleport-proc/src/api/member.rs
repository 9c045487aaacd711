//! The members of a group: processes and threads behind one trait.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::error::ProcError;
use crate::supervise::run::Run;
use crate::supervise::settings::Settings;

/// A process or thread of a [`Group`](crate::Group).
pub struct Member(pub(crate) Arc<dyn Task>);

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("name", &self.0.settings().name).finish_non_exhaustive()
    }
}

/// A process or thread without the type of its result.
pub(crate) trait Task: Send + Sync {
    fn settings(&self) -> &Settings;
    fn start(&self) -> Result<(), ProcError>;
    fn is_running(&self) -> bool;

    /// Returns the error with which it has failed, if it has ended and was not killed.
    fn check(&self) -> Result<(), ProcError>;

    /// Asks it to end. Does nothing if it is not running.
    fn ask_to_end(&self);

    /// Ends it by force, without waiting. Does nothing if it is not running.
    fn kill_now(&self);

    /// Returns the time within which it must end after `kill_now`.
    fn max_dying(&self) -> Duration;

    /// Returns the error for a task that has not ended in that time.
    fn still_running(&self) -> ProcError;

    /// Returns a run whose descriptor is readable when it has ended, or wakes the waker then.
    fn watch(&self, waker: &Waker) -> Option<Arc<Run>>;
}
