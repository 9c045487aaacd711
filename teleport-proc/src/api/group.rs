//! Processes and threads that stand and fall together.
//!
//! One thread, the caller's, waits for all of them at once: for the sockets of the processes' reapers, for a pipe that
//! threads wake when they end, and for signals.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::api::by_pid::MAX_DYING;
use crate::api::process::{self, Process};
use crate::api::restart::{Backoff, Restart};
use crate::api::thread::{self, Thread};
use crate::cancel::deadline::deadline;
use crate::cancel::interrupt;
use crate::error::ProcError;
use crate::sys::{self, Signals};

/// Processes and threads that are started together, and end together.
///
/// [`run`](Group::run) starts them in the order in which they were added, and ends them in the reverse order: so what serves
/// others comes first. Each is asked to end, has its grace, and is waited for before the next one is asked.
///
/// ```no_run
/// use std::time::Duration;
/// use teleport_proc::{BoxError, Group, Process, Restart, Thread, sleep};
///
/// fn serve(port: u16) -> Result<(), BoxError> {
///     Err(format!("nobody serves at {port}").into())
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
#[derive(Default)]
pub struct Group {
    members: Vec<Member>,
    duration: Option<Duration>,
}

/// A process or thread of a [`Group`].
pub struct Member(Kind);

enum Kind {
    Process(Arc<process::Inner>),
    Thread(Arc<thread::Inner>),
}

impl<R> From<Process<R>> for Member {
    fn from(process: Process<R>) -> Member {
        Member(Kind::Process(process.into_inner()))
    }
}

impl<R> From<Thread<R>> for Member {
    fn from(thread: Thread<R>) -> Member {
        Member(Kind::Thread(thread.into_inner()))
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Kind::Process(_) => "Process",
            Kind::Thread(_) => "Thread",
        };
        f.debug_struct(kind).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("members", &self.members).field("duration", &self.duration).finish()
    }
}

impl Group {
    /// One without members.
    pub fn new() -> Group {
        Group::default()
    }

    /// Adds a process or thread that was not started.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "it is no sum, and reads as such nowhere")]
    pub fn add(mut self, member: impl Into<Member>) -> Group {
        self.members.push(member.into());
        self
    }

    /// Adds several.
    #[must_use]
    pub fn extend<M: Into<Member>>(mut self, members: impl IntoIterator<Item = M>) -> Group {
        self.members.extend(members.into_iter().map(Into::into));
        self
    }

    /// Ends all, in order, once it has run for so long. By default it runs until they have ended by themselves.
    #[must_use]
    pub fn duration(self, duration: Duration) -> Group {
        Group { duration: Some(duration), ..self }
    }

    /// Starts all, and **blocks** until all have ended.
    ///
    /// They are ended, in order, when one has failed and is not [started again](Restart), when the
    /// [duration](Group::duration) is over, and on SIGINT or SIGTERM, which go to nothing else while this runs. On a second
    /// signal all are killed at once.
    ///
    /// A process whose function takes a [`Stop`](crate::Stop) is asked by that, any other with SIGTERM; what has not ended
    /// within its grace is killed. A thread is asked by its `Stop`; one that is killed after its grace has that time once more.
    ///
    /// # Errors
    /// That of the first that failed or could not be started, once the others have ended. None after the duration or a
    /// signal, unless one does not end.
    pub fn run(self) -> Result<(), ProcError> {
        let failed = |what: &'static str| ProcError::system(format!("a group cannot run: {what}"));
        let signals = Signals::new().map_err(failed("signals cannot be heard"))?;
        let bell = Bell::new().map_err(failed("no pipe can be made"))?;
        let end = self.duration.and_then(deadline);
        let members = self.members.into_iter().map(Slot::new).collect();
        Running { members, signals, bell, end }.run()
    }
}

impl Member {
    fn name(&self) -> &str {
        match &self.0 {
            Kind::Process(process) => process.name(),
            Kind::Thread(thread) => thread.name(),
        }
    }

    fn start(&self) -> Result<(), ProcError> {
        match &self.0 {
            Kind::Process(process) => process.start(),
            Kind::Thread(thread) => thread.start(),
        }
    }

    fn is_running(&self) -> bool {
        match &self.0 {
            Kind::Process(process) => process.running_run().is_some(),
            Kind::Thread(thread) => thread.is_running(),
        }
    }

    /// What it failed with, if it has ended and did.
    fn check(&self) -> Result<(), ProcError> {
        match &self.0 {
            Kind::Process(process) => process.check(),
            Kind::Thread(thread) => thread.check(),
        }
    }

    fn policy(&self) -> (Restart, Backoff) {
        match &self.0 {
            Kind::Process(process) => (process.restart, process.backoff),
            Kind::Thread(thread) => (thread.restart, thread.backoff),
        }
    }

    fn grace(&self) -> Duration {
        match &self.0 {
            Kind::Process(process) => process.grace(),
            Kind::Thread(thread) => thread.grace(),
        }
    }
}

/// A member of a group that runs.
struct Slot {
    member: Member,
    restarts: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// It is started again then; without a time, never.
    Waiting(Option<Instant>),
    Ended,
}

impl Slot {
    fn new(member: Member) -> Slot {
        Slot { member, restarts: 0, state: State::Ended }
    }

    /// Starts it, if it is time to.
    fn start(&mut self, now: Instant) -> Result<(), ProcError> {
        if let State::Waiting(Some(at)) = self.state
            && at <= now
        {
            match self.member.start() {
                Ok(()) => self.state = State::Running,
                Err(error) => return self.ended(Err(error), now),
            }
        }
        Ok(())
    }

    /// Looks whether it has ended.
    fn look(&mut self, now: Instant) -> Result<(), ProcError> {
        if self.state == State::Running && !self.member.is_running() {
            let result = self.member.check();
            return self.ended(result, now);
        }
        Ok(())
    }

    fn ended(&mut self, result: Result<(), ProcError>, now: Instant) -> Result<(), ProcError> {
        let (restart, backoff) = self.member.policy();
        if restart.wants(result.is_err(), self.restarts) {
            self.state = State::Waiting(now.checked_add(backoff.before(self.restarts)));
            self.restarts += 1;
            return Ok(());
        }
        self.state = State::Ended;
        result
    }
}

/// What asks a member to end, gentle first.
#[derive(Clone, Copy)]
enum Push {
    Ask,
    Kill,
}

struct Running {
    members: Vec<Slot>,
    signals: Signals,
    bell: Bell,
    end: Option<Instant>,
}

impl Running {
    fn run(mut self) -> Result<(), ProcError> {
        let result = self.watch();
        // In a group that ends anyway, one signal more is enough.
        let patience = if self.signals.heard() > 0 { 2 } else { 1 };
        let ended = self.end_all(patience);
        result.and(ended)
    }

    /// Starts all, and waits until there is a reason to end.
    fn watch(&mut self) -> Result<(), ProcError> {
        for slot in &mut self.members {
            slot.member.start()?;
            slot.state = State::Running;
        }
        loop {
            let now = Instant::now();
            for slot in &mut self.members {
                slot.look(now)?;
                slot.start(now)?;
            }
            let is_over = self.end.is_some_and(|end| end <= now);
            let all_ended = self.members.iter().all(|slot| slot.state == State::Ended);
            if is_over || all_ended || self.signals.heard() > 0 {
                return Ok(());
            }
            let starts = self.members.iter().filter_map(|slot| match slot.state {
                State::Waiting(at) => at,
                _ => None,
            });
            let running = self.members.iter().filter(|slot| slot.state == State::Running);
            self.wait(running, self.end.into_iter().chain(starts).min())?;
        }
    }

    /// Ends those that run, the last first, and waits for each before the next is asked; once `patience` signals have come,
    /// all at once.
    fn end_all(&mut self, patience: u32) -> Result<(), ProcError> {
        let mut result = Ok(());
        for index in (0..self.members.len()).rev() {
            let ended = self.end_one(index, patience);
            result = result.and(ended);
        }
        result
    }

    fn end_one(&self, index: usize, patience: u32) -> Result<(), ProcError> {
        let slot = &self.members[index];
        let grace = slot.member.grace();
        let is_thread = matches!(slot.member.0, Kind::Thread(_));
        if self.signals.heard() < patience {
            push(&slot.member, Push::Ask);
            self.until_ended(index, grace, patience)?;
        }
        if self.signals.heard() >= patience {
            // It is no longer waited for one after the other.
            self.members.iter().for_each(|slot| push(&slot.member, Push::Kill));
        } else {
            push(&slot.member, Push::Kill);
        }
        self.until_ended(index, if is_thread { grace } else { MAX_DYING }, u32::MAX)?;
        if !slot.member.is_running() {
            return Ok(());
        }
        Err(match &slot.member.0 {
            Kind::Process(process) => {
                let pids = process.running_run().map(|run| run.pid()).into_iter().collect();
                ProcError::StillRunning { pids, waited: MAX_DYING }
            }
            Kind::Thread(thread) => ProcError::ThreadRuns { name: thread.name().to_owned(), waited: grace },
        })
    }

    /// Waits for a member, at most for `time`, or until so many signals have come.
    fn until_ended(&self, index: usize, time: Duration, patience: u32) -> Result<(), ProcError> {
        let deadline = deadline(time);
        while self.members[index].member.is_running()
            && deadline.is_none_or(|deadline| Instant::now() < deadline)
            && self.signals.heard() < patience
        {
            self.wait(&self.members[index..=index], deadline)?;
        }
        Ok(())
    }

    /// **Blocks** until a signal comes or one of these may have ended, at most until `deadline`.
    fn wait<'a>(
        &self,
        slots: impl IntoIterator<Item = &'a Slot>,
        deadline: Option<Instant>,
    ) -> Result<(), ProcError> {
        self.bell.clear();
        let mut runs = Vec::new();
        for slot in slots {
            match &slot.member.0 {
                // One that has ended since it was looked at can be read, too.
                Kind::Process(process) => runs.extend(process.run().ok()),
                // And such a thread has rung.
                Kind::Thread(thread) => thread.wake_at_end(&self.bell.waker),
            }
        }
        let mut fds = vec![self.signals.descriptor(), self.bell.read.as_fd()];
        fds.extend(runs.iter().map(|run| run.descriptor()));
        let waited = interrupt::readable(&fds, deadline);
        waited.map(drop).map_err(ProcError::system("a group cannot wait for its members"))
    }
}

/// Asks or forces a member to end; one that does not run takes no notice.
fn push(member: &Member, push: Push) {
    match (&member.0, push) {
        (Kind::Process(process), push) => {
            let Some(run) = process.running_run() else { return };
            // Fails only in a process that was forked from this one, whose members these are not.
            let _ = match push {
                Push::Kill => run.ask(Duration::ZERO),
                Push::Ask if process.has_stop() => run.stop(),
                Push::Ask => run.ask(process.grace()),
            };
        }
        (Kind::Thread(thread), Push::Ask) => thread.ask_to_stop(),
        (Kind::Thread(thread), Push::Kill) => {
            thread.ask_to_stop();
            thread.ask_to_end();
        }
    }
}

/// Wakes who waits for descriptors.
struct Bell {
    read: File,
    waker: Waker,
}

struct Rope(File);

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A full pipe, or one that nobody reads any more, needs no more bytes.
        let _ = (&self.0).write(&[1]);
    }
}

impl Bell {
    fn new() -> io::Result<Bell> {
        let (read, write) = sys::pipe()?;
        sys::set_nonblocking(&read)?;
        sys::set_nonblocking(&write)?;
        Ok(Bell { read: read.into(), waker: Waker::from(Arc::new(Rope(write.into()))) })
    }

    fn clear(&self) {
        let mut bytes = [0; 64];
        while let Ok(1..) = (&self.read).read(&mut bytes) {}
    }
}
