//! Processes and threads that start and end together.

use std::time::Duration;

use crate::api::member::Member;
use crate::api::running_group::RunningGroup;
use crate::error::ProcError;

/// Processes and threads that start and end together.
///
/// [`run`](Group::run) starts them in the order in which they were added, and ends them one by one in the
/// reverse order. So add a member before the members that need it.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use teleport_proc::{BoxError, Group, Process, Restart, Thread, sleep};
///
/// fn serve(port: u16) -> Result<(), BoxError> {
///     Err(format!("no server listens at port {port}").into())
/// }
///
/// fn main() -> Result<(), BoxError> {
///     teleport_proc::init();
///     let group = Group::new()
///         .add(Process::new("server", serve, 2222).restart(Restart::OnFailure { limit: 3 }))
///         .add(Thread::new("client", |_stop| sleep(Duration::from_secs(60))));
///     Ok(group.run()?) // Ctrl-C ends it in order
/// }
/// ```
#[derive(Debug, Default)]
pub struct Group {
    members: Vec<Member>,
    duration: Option<Duration>,
}

impl Group {
    /// Makes a group without members.
    pub fn new() -> Group {
        Group::default()
    }

    /// Adds a process or thread that was not started.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "it is no sum, and reads as such nowhere")]
    pub fn add(self, member: impl Into<Member>) -> Group {
        self.extend([member])
    }

    /// Adds several processes or threads.
    #[must_use]
    pub fn extend<M: Into<Member>>(mut self, members: impl IntoIterator<Item = M>) -> Group {
        self.members.extend(members.into_iter().map(Into::into));
        self
    }

    /// Ends all members, in order, after this time. By default the group runs until all have ended.
    #[must_use]
    pub fn duration(self, duration: Duration) -> Group {
        Group { duration: Some(duration), ..self }
    }

    /// Starts all members, and **blocks** until all have ended.
    ///
    /// It ends them, in order, when
    /// - one has failed and is not [restarted](crate::Restart),
    /// - the [duration](Group::duration) is over, or
    /// - SIGINT or SIGTERM arrives, which has no other effect. A second signal kills all members at once.
    ///
    /// Members are asked to end by their [`Stop`](crate::Stop), and processes without one by SIGTERM. After
    /// its grace a member is killed. A killed thread has its grace once more to end.
    ///
    /// # Errors
    /// Returns the error of the first member that failed or could not be started, once the others have
    /// ended. After the duration or a signal it returns an error only if a member does not end.
    pub fn run(self) -> Result<(), ProcError> {
        RunningGroup::new(self.members, self.duration)?.run()
    }
}
