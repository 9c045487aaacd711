//! Functions in processes of their own: the type that users hold.
//!
//! Flow: [`Process::new`] -> `start`, see `supervise` -> [`Run`] -> `join`, `check`, `kill`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::api::member::{Member, Task};
use crate::cancel::deadline::deadline;
use crate::cancel::stop::Stop;
use crate::codec::{BoxError, Message, Return};
use crate::error::ProcError;
use crate::supervise::program::Function;
use crate::supervise::run::{self, End, MAX_DYING, Run};
use crate::supervise::settings::{Backoff, Restart, Settings};
use crate::supervise::start::{self, Argument, Closure};
use crate::sys::Exit;

/// A function in a process of its own.
///
/// When the process ends, everything that it has started ends too: children and grandchildren, even if they
/// are in another group or session, if their parents have ended, or if they start others meanwhile. The
/// process ends
/// - when the function has returned or failed, or it exits in any other way: then the others are killed at
///   once;
/// - on [`kill`](Process::kill) and [`stop`](Process::stop): after a grace;
/// - when this value is dropped: as on `kill`, without waiting;
/// - when this process ends, in whatever way, SIGKILL included: at once.
///
/// Two helper processes of this crate ensure this, even if one of them is killed together with this process.
/// Only if all of them are killed at the same time, the rest keeps running. With a cgroup, the rest ends
/// before the next program in the same place starts a process: see the documentation of the crate, which also
/// has an example.
///
/// `R` is the type that the function returns. Its result, error or panic is returned each time that
/// [`join`](Process::join) is called.
pub struct Process<R = ()> {
    inner: Arc<Inner>,
    value: fn(Vec<u8>) -> Result<R, BoxError>,
}

/// A process without the type of its result.
struct Inner {
    settings: Settings,
    variables: Vec<(String, String)>,
    body: Body,
    run: Mutex<Option<Arc<Run>>>,
}

enum Body {
    Function { function: Function, argument: Argument, has_stop: bool },
    Closure(Closure),
}

impl<R> Process<R> {
    /// Makes a process that executes this program again and calls `function` with `argument`.
    ///
    /// The function is one of the program, or a closure without captures. The argument can be anything that
    /// converts to bytes and back: see [`Message`]. Nothing happens before [`start`](Process::start).
    ///
    /// The process has the environment and directory that this process has when it is started, and the same
    /// standard output and error. Its standard input is empty. Ctrl-C in a terminal does not reach it, so
    /// that this process can end it in order.
    pub fn new<A, M, T, N>(name: impl Into<String>, function: fn(A) -> T, argument: A) -> Process<R>
    where
        A: Message<M>,
        T: Return<N, Value = R>,
    {
        let argument = argument.into_message().map_err(Into::into);
        let body = Body::Function { function: Function::of(function), argument, has_stop: false };
        Process::with(name.into(), body, T::value)
    }

    /// Makes a process like [`new`](Process::new), for a function that can be asked to
    /// [`stop`](Process::stop).
    ///
    /// # Examples
    /// ```no_run
    /// use std::time::Duration;
    /// use teleport_proc::{ProcError, Process, Stop};
    ///
    /// fn work(steps: u64, stop: &Stop) -> u64 {
    ///     (0..steps).take_while(|_| stop.sleep(Duration::from_millis(10))).count() as u64
    /// }
    ///
    /// # fn main() -> Result<(), ProcError> {
    /// # teleport_proc::init();
    /// let process = Process::stoppable("worker", work, 1_000_000);
    /// process.start()?;
    /// process.stop(Duration::from_secs(1))?;
    /// println!("{} steps", process.join()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stoppable<A, M, T, N>(
        name: impl Into<String>,
        function: fn(A, &Stop) -> T,
        argument: A,
    ) -> Process<R>
    where
        A: Message<M>,
        T: Return<N, Value = R>,
    {
        let argument = argument.into_message().map_err(Into::into);
        let body = Body::Function { function: Function::with_stop(function), argument, has_stop: true };
        Process::with(name.into(), body, T::value)
    }

    /// Makes a process that is a fork of this one and runs `closure`. It starts with a copy of this
    /// process's memory, and shares its open files and sockets. Clients and servers of Teleport refuse to
    /// work there; other libraries may not notice that they were forked.
    ///
    /// A fork is sound only while this process has one thread. Otherwise [`start`](Process::start) fails and
    /// names the threads. While the fork runs, both copy each page of memory before they first write to it.
    pub fn fork<T, N>(
        name: impl Into<String>,
        closure: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> Process<R>
    where
        T: Return<N, Value = R>,
    {
        let closure: Closure = Mutex::new(Some(Box::new(move |stop| closure(stop).into_bytes())));
        Process::with(name.into(), Body::Closure(closure), T::value)
    }

    fn with(name: String, body: Body, value: fn(Vec<u8>) -> Result<R, BoxError>) -> Process<R> {
        let (settings, variables) = (Settings::new(name), Vec::new());
        Process { inner: Arc::new(Inner { settings, variables, body, run: Mutex::new(None) }), value }
    }

    /// Runs `function` in the process before its own function. May be called several times.
    ///
    /// It may set a panic hook. A hook that the process's own function sets should call the previous one.
    /// Otherwise errors have neither the place nor the backtrace of a panic.
    #[must_use]
    pub fn initializer(self, function: fn()) -> Process<R> {
        self.changed(|inner| inner.settings.initializers.push(function))
    }

    /// Sets an environment variable of the process. A [fork](Process::fork) ignores it.
    #[must_use]
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Process<R> {
        self.changed(|inner| inner.variables.push((name.into(), value.into())))
    }

    /// Sets the time from SIGTERM to SIGKILL on [`kill`](Process::kill) and on drop. The default is 5 s.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Process<R> {
        self.changed(|inner| inner.settings.grace = grace)
    }

    /// Sets when a [`Group`](crate::Group) restarts the process. The default is never.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Process<R> {
        self.changed(|inner| inner.settings.restart = restart)
    }

    /// Sets the pauses before restarts, which double from `first` up to `max`. By default 100 ms and 10 s.
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Process<R> {
        self.changed(|inner| inner.settings.backoff = Backoff { first, max })
    }

    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Process<R> {
        // Only adding it to a group shares it, and that takes this value.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(inner);
        }
        self
    }

    /// Starts the process. **Blocks** until it runs, which takes a few milliseconds, and some more the first
    /// time. A process that has ended can be started again.
    ///
    /// # Errors
    /// Returns
    /// - [`NotInitialized`](ProcError::NotInitialized) if the program does not call [`init`](crate::init),
    /// - [`Start`](ProcError::Start) if the system refuses, and then nothing is left running,
    /// - [`AlreadyStarted`](ProcError::AlreadyStarted) if it is running, and
    /// - [`Threads`](ProcError::Threads) for a fork if this process has several threads.
    pub fn start(&self) -> Result<(), ProcError> {
        self.inner.start()
    }

    /// Returns the name of the process.
    pub fn name(&self) -> &str {
        &self.inner.settings.name
    }

    /// Returns the process id while the process is running.
    pub fn pid(&self) -> Option<u32> {
        self.inner.running().map(|run| run.pid)
    }

    /// Returns whether the process, or anything that it has started, is running.
    pub fn running(&self) -> bool {
        self.inner.is_running()
    }

    /// Returns how the process ended, if it has ended and that is known.
    pub fn exit(&self) -> Option<Exit> {
        self.inner.run().ok()?.poll().ok()??.exit
    }

    /// Succeeds while the process is running, and once it has ended well or was ended by its owner.
    ///
    /// # Errors
    /// Returns the error with which it failed, each time that this is called.
    pub fn check(&self) -> Result<(), ProcError> {
        self.inner.check()
    }

    /// **Blocks** until the process and all that it started have ended, and returns the result.
    ///
    /// # Errors
    /// Returns the error with which it failed, or [`Killed`](ProcError::Killed).
    pub fn join(&self) -> Result<R, ProcError> {
        loop {
            if let Some(value) = self.join_timeout(Duration::MAX)? {
                return Ok(value);
            }
        }
    }

    /// Waits like [`join`](Process::join), but for at most `time`. Returns `None` after that time.
    ///
    /// # Errors
    /// Returns the same errors as [`join`](Process::join).
    pub fn join_timeout(&self, time: Duration) -> Result<Option<R>, ProcError> {
        let end = self.inner.run()?.wait(deadline(time))?;
        end.map(|end| self.value(&end)).transpose()
    }

    fn value(&self, end: &End) -> Result<R, ProcError> {
        (self.value)(end.result.clone()?).map_err(ProcError::result(self.name()))
    }

    /// Ends the process and everything that it started: with SIGTERM, and after the [`grace`](Process::grace)
    /// with SIGKILL. **Blocks** until nothing is left, for up to 10 s after the grace.
    ///
    /// Several threads may call it at once. It does nothing if the process has ended or was not started.
    ///
    /// # Errors
    /// Returns [`StillRunning`](ProcError::StillRunning) if something does not end.
    pub fn kill(&self) -> Result<(), ProcError> {
        self.inner.run().map_or(Ok(()), |run| run.kill(self.inner.settings.grace))
    }

    /// Asks the function to return, by its [`Stop`]. A function without one gets SIGTERM. **Blocks** until
    /// the process has ended. After `grace` it is killed.
    ///
    /// # Errors
    /// Returns the same errors as [`kill`](Process::kill).
    pub fn stop(&self, grace: Duration) -> Result<(), ProcError> {
        let Ok(run) = self.inner.run() else { return Ok(()) };
        if !self.inner.has_stop() {
            return run.kill(grace);
        }
        run.stop()?;
        if run.wait(deadline(grace))?.is_none() {
            run.kill(Duration::ZERO)?;
        }
        Ok(())
    }
}

impl<R> From<Process<R>> for Member {
    fn from(process: Process<R>) -> Member {
        Member(process.inner)
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn run(&self) -> Result<Arc<Run>, ProcError> {
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner).clone();
        run.ok_or_else(|| ProcError::NotStarted { name: self.settings.name.clone() })
    }

    fn running(&self) -> Option<Arc<Run>> {
        let run = self.run().ok()?;
        run.poll().is_ok_and(|end| end.is_none()).then_some(run)
    }

    /// Returns whether the function takes a [`Stop`].
    fn has_stop(&self) -> bool {
        match self.body {
            Body::Function { has_stop, .. } => has_stop,
            Body::Closure(_) => true,
        }
    }
}

impl Task for Inner {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn start(&self) -> Result<(), ProcError> {
        let mut current = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = &*current
            && run.poll()?.is_none()
        {
            return Err(ProcError::AlreadyStarted { name: self.settings.name.clone() });
        }
        run::reap_abandoned(None);
        let run = match &self.body {
            Body::Function { function, argument, .. } => {
                start::function(&self.settings, &self.variables, *function, argument)?
            }
            Body::Closure(closure) => start::closure(&self.settings, closure)?,
        };
        *current = Some(Arc::new(run));
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.running().is_some()
    }

    fn check(&self) -> Result<(), ProcError> {
        match self.run()?.poll()?.map(|end| end.result.as_ref().err().cloned()) {
            None | Some(None | Some(ProcError::Killed { .. })) => Ok(()),
            Some(Some(error)) => Err(error),
        }
    }

    // Both fail only in a fork of the owner, where the member is not running.
    fn ask_to_end(&self) {
        let Some(run) = self.running() else { return };
        let _ = if self.has_stop() { run.stop() } else { run.terminate(self.settings.grace) };
    }

    fn kill_now(&self) {
        self.running().into_iter().for_each(|run| drop(run.terminate(Duration::ZERO)));
    }

    fn max_dying(&self) -> Duration {
        MAX_DYING
    }

    fn still_running(&self) -> ProcError {
        ProcError::StillRunning {
            pids: self.running().map(|run| run.pid).into_iter().collect(),
            waited: MAX_DYING,
        }
    }

    fn watch(&self, _waker: &Waker) -> Option<Arc<Run>> {
        self.run().ok()
    }
}
