//! A group that runs.
//!
//! The thread that calls [`Group::run`](crate::Group::run) waits for everything at once: for the sockets of
//! the members' reapers, for a pipe that threads write to when they end, and for signals.

use std::time::{Duration, Instant};

use crate::api::member::{Member, Task};
use crate::cancel::deadline::deadline;
use crate::cancel::interrupt;
use crate::cancel::wake_pipe::WakePipe;
use crate::error::ProcError;
use crate::sys::Signals;

pub(crate) struct RunningGroup {
    members: Vec<RunningMember>,
    signals: Signals,
    pipe: WakePipe,
    /// The end of the group's duration.
    end: Option<Instant>,
}

struct RunningMember {
    member: Member,
    restarts: u32,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// It is restarted at this time, or never if that is too far in the future.
    Waiting(Option<Instant>),
    Ended,
}

impl RunningMember {
    fn task(&self) -> &dyn Task {
        &*self.member.0
    }

    /// Notices that the member has ended, and restarts it when it is time.
    fn update(&mut self, now: Instant) -> Result<(), ProcError> {
        if self.phase == Phase::Running && !self.task().is_running() {
            let result = self.task().check();
            self.ended(result, now)?;
        }
        if let Phase::Waiting(Some(at)) = self.phase
            && at <= now
        {
            match self.task().start() {
                Ok(()) => self.phase = Phase::Running,
                Err(error) => self.ended(Err(error), now)?,
            }
        }
        Ok(())
    }

    /// Returns the failure of the member, unless the member is to be restarted.
    fn ended(&mut self, result: Result<(), ProcError>, now: Instant) -> Result<(), ProcError> {
        let settings = self.task().settings();
        if settings.restart.wants(result.is_err(), self.restarts) {
            self.phase = Phase::Waiting(now.checked_add(settings.backoff.before(self.restarts)));
            self.restarts += 1;
            return Ok(());
        }
        self.phase = Phase::Ended;
        result
    }
}

impl RunningGroup {
    pub(crate) fn new(members: Vec<Member>, duration: Option<Duration>) -> Result<RunningGroup, ProcError> {
        let failed = |what: &'static str| ProcError::system(format!("a group cannot run: {what}"));
        let running = |member| RunningMember { member, restarts: 0, phase: Phase::Ended };
        Ok(RunningGroup {
            members: members.into_iter().map(running).collect(),
            signals: Signals::new().map_err(failed("it cannot listen for signals"))?,
            pipe: WakePipe::new().map_err(failed("no pipe can be made"))?,
            end: duration.and_then(deadline),
        })
    }

    pub(crate) fn run(mut self) -> Result<(), ProcError> {
        let result = self.watch();
        // If no signal has ended the group, the first one already kills all members.
        let max_signals = if self.signals.count() > 0 { 2 } else { 1 };
        let ended = self.end_all(max_signals);
        result.and(ended)
    }

    /// Starts all members, and waits until there is a reason to end the group.
    fn watch(&mut self) -> Result<(), ProcError> {
        for running in &mut self.members {
            running.task().start()?;
            running.phase = Phase::Running;
        }
        loop {
            let now = Instant::now();
            for running in &mut self.members {
                running.update(now)?;
            }
            let is_over = self.end.is_some_and(|end| end <= now);
            let all_ended = self.members.iter().all(|running| running.phase == Phase::Ended);
            if is_over || all_ended || self.signals.count() > 0 {
                return Ok(());
            }
            let restarts = self.members.iter().filter_map(|running| match running.phase {
                Phase::Waiting(at) => at,
                _ => None,
            });
            let running = self.members.iter().filter(|running| running.phase == Phase::Running);
            self.wait(running.map(RunningMember::task), self.end.into_iter().chain(restarts).min())?;
        }
    }

    /// Ends the members that run. It starts with the last and waits for each before it asks the next. Once
    /// there were `max_signals`, it kills all at once.
    fn end_all(&self, max_signals: u32) -> Result<(), ProcError> {
        let ended = self.members.iter().rev().map(|running| self.end_one(running.task(), max_signals));
        ended.fold(Ok(()), Result::and)
    }

    fn end_one(&self, task: &dyn Task, max_signals: u32) -> Result<(), ProcError> {
        if self.signals.count() < max_signals {
            task.ask_to_end();
            self.wait_for_end(task, task.settings().grace, max_signals)?;
        }
        if self.signals.count() < max_signals {
            task.kill_now();
        } else {
            self.members.iter().for_each(|running| running.task().kill_now());
        }
        self.wait_for_end(task, task.max_dying(), u32::MAX)?;
        if task.is_running() { Err(task.still_running()) } else { Ok(()) }
    }

    /// **Blocks** until a member has ended, for at most `time`, or until there were `max_signals`.
    fn wait_for_end(&self, task: &dyn Task, time: Duration, max_signals: u32) -> Result<(), ProcError> {
        let deadline = deadline(time);
        while task.is_running()
            && deadline.is_none_or(|deadline| Instant::now() < deadline)
            && self.signals.count() < max_signals
        {
            self.wait([task], deadline)?;
        }
        Ok(())
    }

    /// **Blocks** until a signal arrives or one of `tasks` may have ended, or until `deadline`.
    fn wait<'a>(
        &self,
        tasks: impl IntoIterator<Item = &'a dyn Task>,
        deadline: Option<Instant>,
    ) -> Result<(), ProcError> {
        self.pipe.clear();
        // If a task has ended since it was checked, its descriptor is readable or the waker was woken.
        let runs: Vec<_> = tasks.into_iter().filter_map(|task| task.watch(&self.pipe.waker)).collect();
        let mut fds = vec![self.signals.descriptor(), self.pipe.descriptor()];
        fds.extend(runs.iter().map(|run| run.descriptor()));
        let waited = interrupt::readable(&fds, deadline);
        waited.map(drop).map_err(ProcError::system("a group cannot wait for its members"))
    }
}
