//! Functions in processes of their own, as users hold them.
//!
//! Flow: [`Process::new`] -> `start` -> zygote -> reaper -> the process, which runs its function -> `join`, `check`. What
//! happens is in the modules of those names; here it is put together.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::api::restart::{Backoff, Restart};
use crate::cancel::deadline::deadline;
use crate::cancel::stop::Stop;
use crate::codec::{BoxError, Message, Return};
use crate::error::ProcError;
use crate::failure::{self, Slot};
use crate::supervise::child;
use crate::supervise::control::{self, Control, Step};
use crate::supervise::init;
use crate::supervise::program::{Distance, Function, Identity};
use crate::supervise::reaper;
use crate::supervise::request::{self, Head};
use crate::supervise::run::{self, End, Run, Writer};
use crate::supervise::zygote::{self, Start, Started};
use crate::sys::Exit;
use crate::sys::{self, Fork, ProcessFd, Received};

/// What [`kill`](Process::kill) gives a process to end after SIGTERM, unless [`grace`](Process::grace) says otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// A function in a process of its own, which ends when it should.
///
/// With it ends all that it has started: children and grandchildren, also when they have another group or session, when
/// their parents have ended, and when they start others meanwhile. That happens
/// - when the function has returned or failed, or the process ends in any other way: at once;
/// - on [`kill`](Process::kill) and [`stop`](Process::stop): after a grace;
/// - when this is dropped: as on `kill`, without waiting for it;
/// - when this process ends, in whatever way, SIGKILL included: at once.
///
/// Two processes of this crate do that, so it also holds if one of them is killed with this process. Who kills
/// all of them together leaves the rest running.
///
/// On Linux 5.14 or later, a process has a cgroup of its own where this program was delegated one (version 2): with
/// `Delegate=yes` of systemd, or in a container that may write its cgroups. Then it is killed with one word, and what was
/// left running ends before the next program in the same place starts a process.
///
/// `R` is what the function returns. It is told as often as [`join`](Process::join) is called, and so are errors and panics.
///
/// ```no_run
/// use teleport_proc::{BoxError, Process};
///
/// fn count(text: String) -> Result<u64, BoxError> {
///     Ok(text.len() as u64)
/// }
///
/// fn main() -> Result<(), BoxError> {
///     teleport_proc::init(); // first line: the process starts its function here and never returns
///     let process = Process::new("counter", count, "hello".to_owned());
///     process.start()?;
///     assert_eq!(process.join()?, 5);
///     Ok(())
/// }
/// ```
pub struct Process<R = ()> {
    inner: Arc<Inner>,
    value: fn(Vec<u8>) -> Result<R, BoxError>,
}

/// All of a process but the type of its result.
pub(crate) struct Inner {
    name: String,
    body: Body,
    initializers: Vec<fn()>,
    variables: Vec<(String, String)>,
    grace: Duration,
    pub(crate) restart: Restart,
    pub(crate) backoff: Backoff,
    run: Mutex<Option<Arc<Run>>>,
}

/// A closure that a forked process runs. The one that forks it keeps its own.
type Closure = Box<dyn FnOnce(&Stop) -> Result<Vec<u8>, BoxError> + Send>;

/// The bytes of an argument, or why it has none.
type Argument = Result<Vec<u8>, Arc<dyn std::error::Error + Send + Sync>>;

enum Body {
    Function { function: Function, argument: Argument, has_stop: bool },
    Closure(Mutex<Option<Closure>>),
}

impl<R> Process<R> {
    /// A function with its argument, for a process that executes this program again: it has a memory of its own, the
    /// environment and folder that this process has when it is started, and the same standard output and error; its
    /// standard input is empty. Ctrl-C in a terminal does not reach it: that is this process's to handle.
    ///
    /// The function is one of the program or a closure without captures; what it needs is in the argument, which
    /// can be anything that converts to bytes and back ([`Message`](crate::Message)).
    ///
    /// Nothing happens before [`start`](Process::start).
    pub fn new<A, M, T, N>(name: impl Into<String>, function: fn(A) -> T, argument: A) -> Process<R>
    where
        A: Message<M>,
        T: Return<N, Value = R>,
    {
        let body = Body::Function {
            function: Function::of(function),
            argument: argument.into_message().map_err(Into::into),
            has_stop: false,
        };
        Process::with(name.into(), body, T::value)
    }

    /// As [`new`](Process::new), for a function that looks now and then whether it is to [`stop`](Process::stop).
    ///
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
        let body = Body::Function {
            function: Function::with_stop(function),
            argument: argument.into_message().map_err(Into::into),
            has_stop: true,
        };
        Process::with(name.into(), body, T::value)
    }

    /// A closure in a copy of this process, which shares with it what it had open, and starts with its memory as it was.
    ///
    /// That is only sound while this process has one thread, which [`start`](Process::start) checks: otherwise it fails and
    /// names them. What the copy writes to its memory it copies first; and so does this process, as long as the copy runs.
    ///
    /// What this process talks with is not the copy's, which has the same sockets: clients and servers of Teleport refuse to work
    /// there, others may not notice.
    pub fn fork<T, N>(
        name: impl Into<String>,
        closure: impl FnOnce(&Stop) -> T + Send + 'static,
    ) -> Process<R>
    where
        T: Return<N, Value = R>,
    {
        let closure: Closure = Box::new(move |stop| closure(stop).into_bytes());
        Process::with(name.into(), Body::Closure(Mutex::new(Some(closure))), T::value)
    }

    fn with(name: String, body: Body, value: fn(Vec<u8>) -> Result<R, BoxError>) -> Process<R> {
        let inner = Inner {
            name,
            body,
            initializers: Vec::new(),
            variables: Vec::new(),
            grace: GRACE,
            restart: Restart::Never,
            backoff: Backoff::default(),
            run: Mutex::new(None),
        };
        Process { inner: Arc::new(inner), value }
    }

    /// Runs `function` in the process before its own: to set up logging, a panic hook, or a device. May be called several
    /// times. A panic hook that the function of the process itself sets should call the one before, as place and backtrace
    /// of a panic are lost otherwise.
    #[must_use]
    pub fn initializer(self, function: fn()) -> Process<R> {
        self.changed(|inner| inner.initializers.push(function))
    }

    /// Sets a variable in the environment of the process. One that is [forked](Process::fork) has that of this process.
    #[must_use]
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Process<R> {
        self.changed(|inner| inner.variables.push((name.into(), value.into())))
    }

    /// What [`kill`](Process::kill) and dropping this give it between SIGTERM and SIGKILL: 5 s by default.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Process<R> {
        self.changed(|inner| inner.grace = grace)
    }

    /// Whether a [`Group`](crate::Group) starts it again: never by default.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Process<R> {
        self.changed(|inner| inner.restart = restart)
    }

    /// How long a [`Group`](crate::Group) waits before it starts it again: `first` before the first time, then twice as long
    /// each time, up to `max`. By default 100 ms and 10 s.
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Process<R> {
        self.changed(|inner| inner.backoff = Backoff { first, max })
    }

    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Process<R> {
        // Others have it only once it was added to a group, which takes this.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(inner);
        }
        self
    }

    /// Starts the process. **Blocks** until it runs: a few milliseconds, and some more the first time. One that has ended can
    /// be started again.
    ///
    /// # Errors
    /// Without [`init`](crate::init) [`NotInitialized`](ProcError::NotInitialized); if the system has nothing left
    /// [`Start`](ProcError::Start), and then nothing is left of what was begun; if it runs
    /// [`AlreadyStarted`](ProcError::AlreadyStarted); for a fork [`Threads`](ProcError::Threads).
    pub fn start(&self) -> Result<(), ProcError> {
        self.inner.start()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its number while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.inner.running_run().map(|run| run.pid())
    }

    /// Whether it runs, or anything that it has started.
    pub fn running(&self) -> bool {
        self.inner.running_run().is_some()
    }

    /// How it ended, if it has and that is known.
    pub fn exit(&self) -> Option<Exit> {
        self.inner.run().ok()?.look().ok()??.exit
    }

    /// Whether all is well: it runs, or ended well, or was ended as asked.
    ///
    /// # Errors
    /// What it failed with, as often as this is called.
    pub fn check(&self) -> Result<(), ProcError> {
        self.inner.check()
    }

    /// **Blocks** until it has ended with all that it started, and gives the result.
    ///
    /// # Errors
    /// What it failed with; [`Killed`](ProcError::Killed) if it was ended before its function was.
    pub fn join(&self) -> Result<R, ProcError> {
        let run = self.inner.run()?;
        loop {
            if let Some(end) = run.wait(None)? {
                return self.value(&end);
            }
        }
    }

    /// As [`join`](Process::join), at most for `time`: then it gives nothing.
    ///
    /// # Errors
    /// As [`join`](Process::join).
    pub fn join_timeout(&self, time: Duration) -> Result<Option<R>, ProcError> {
        let end = self.inner.run()?.wait(deadline(time))?;
        end.map(|end| self.value(&end)).transpose()
    }

    pub(crate) fn into_inner(self) -> Arc<Inner> {
        self.inner
    }

    fn value(&self, end: &End) -> Result<R, ProcError> {
        (self.value)(end.result.clone()?).map_err(ProcError::result(&self.inner.name))
    }

    /// Ends it with all that it started: with SIGTERM, and with SIGKILL what is left after the [`grace`](Process::grace).
    /// **Blocks** until nothing is left, for up to 10 s beyond the grace. May be called by several threads at once, and again;
    /// one that has ended or was not started is fine.
    ///
    /// # Errors
    /// [`StillRunning`](ProcError::StillRunning).
    pub fn kill(&self) -> Result<(), ProcError> {
        self.inner.kill(self.inner.grace)
    }

    /// Tells its function to return, by turning its [`Stop`] false; one that has none gets SIGTERM. **Blocks** until it has
    /// ended, at most for `grace`: after that it is killed at once.
    ///
    /// # Errors
    /// [`StillRunning`](ProcError::StillRunning).
    pub fn stop(&self, grace: Duration) -> Result<(), ProcError> {
        self.inner.stop(grace)
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.inner.name)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn start(&self) -> Result<(), ProcError> {
        let mut current = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = &*current
            && run.look()?.is_none()
        {
            return Err(ProcError::AlreadyStarted { name: self.name.clone() });
        }
        run::abandoned(None);
        let run = match &self.body {
            Body::Function { function, argument, .. } => self.start_function(*function, argument)?,
            Body::Closure(closure) => self.start_closure(closure)?,
        };
        *current = Some(Arc::new(run));
        Ok(())
    }

    fn start_function(&self, function: Function, argument: &Argument) -> Result<Run, ProcError> {
        let failed = |what| ProcError::start(&self.name, what);
        if !init::is_initialized() {
            return Err(ProcError::NotInitialized { name: self.name.clone() });
        }
        let argument = match argument {
            Ok(argument) => argument,
            Err(source) => {
                return Err(ProcError::Argument { name: self.name.clone(), source: source.clone() });
            }
        };
        if let Some(library) = function.library().map_err(failed("its function cannot be found"))? {
            return Err(ProcError::ForeignFunction { name: self.name.clone(), library });
        }
        let head = Head {
            identity: Identity::of_this().map_err(failed("the program's file cannot be looked at"))?,
            function,
            initializers: self.initializers.iter().map(|function| Distance::of(*function)).collect(),
            name: self.name.clone(),
            program: request::program(),
            grace: self.grace,
            environment: request::environment(&self.variables),
        };
        let request = sys::memory().map_err(failed("no memory for its argument can be made"))?;
        request::write(&request, &head, argument).map_err(failed("its argument cannot be written"))?;
        let slot = Slot(sys::memory().map_err(failed("no memory for its result can be made"))?);
        let (stop, our_stop) = sys::pipe().map_err(failed("no pipe can be made"))?;
        let start = Start { name: &self.name, request: &request, result: &slot.0, stop };
        Ok(self.run_of(zygote::start(&start)?, slot, our_stop, None))
    }

    fn run_of(&self, started: Started, slot: Slot, stop: OwnedFd, reaper: Option<i32>) -> Run {
        Run::new(Writer { name: self.name.clone(), started, slot, stop, reaper, grace: self.grace })
    }

    fn start_closure(&self, closure: &Mutex<Option<Closure>>) -> Result<Run, ProcError> {
        let failed = |what| ProcError::start(&self.name, what);
        let threads = sys::threads().map_err(failed("the threads of this process cannot be listed"))?;
        if threads.len() > 1 {
            return Err(ProcError::Threads { name: self.name.clone(), threads });
        }
        let slot = Slot(sys::memory().map_err(failed("no memory for its result can be made"))?);
        let (stop, our_stop) = sys::pipe().map_err(failed("no pipe can be made"))?;
        let (control, theirs) = sys::pair().map_err(failed("no sockets to its reaper can be made"))?;
        // What is not written yet would be written by both.
        let _ = (io::stdout().flush(), io::stderr().flush());
        let this = std::process::id() as i32;
        let reaper = match sys::fork().map_err(failed(Step::Fork.what()))? {
            Fork::Parent { child } => child,
            Fork::Child => {
                let owner = ProcessFd::open(this).and_then(|owner| {
                    // As long as it is the parent, nobody else has its number.
                    if sys::parent() == this { Ok(owner) } else { Err(io::ErrorKind::NotFound.into()) }
                });
                let body = |slot| self.closure_in_child(closure, Stop::of_process(stop), slot);
                reaper::keep_forked(theirs, owner, self.grace, move || body(slot))
            }
        };
        drop(theirs);
        let answer = sys::readable(&control, None).and_then(|_| control::receive(&control));
        match answer.map_err(failed("its reaper cannot be heard"))? {
            Received::Message(Control::Started { pid }, mut fds) => {
                let started = Started { pid, control, reaper: fds.pop() };
                Ok(self.run_of(started, slot, our_stop, Some(reaper)))
            }
            Received::Message(Control::Failed { step, errno }, _) => {
                sys::reap(reaper);
                Err(failed(step.what())(io::Error::from_raw_os_error(errno)))
            }
            _ => {
                sys::reap(reaper);
                Err(failed("its reaper has ended meanwhile")(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    /// What the process does that was forked for the closure.
    fn closure_in_child(&self, closure: &Mutex<Option<Closure>>, stop: Stop, slot: Slot) -> ! {
        // The parent keeps its own, and nobody else has a thread here that could hold the lock.
        let closure = closure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let initializers = self.initializers.clone();
        let work = Box::new(move |stop: &Stop| {
            initializers.iter().for_each(|initializer| initializer());
            failure::put_hook_first();
            let closure = closure.ok_or("this closure was taken, which a fork does to its own copy only")?;
            closure(stop)
        });
        child::run_closure(&self.name, work, &stop, slot)
    }

    pub(crate) fn run(&self) -> Result<Arc<Run>, ProcError> {
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner).clone();
        run.ok_or_else(|| ProcError::NotStarted { name: self.name.clone() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// Whether its function is given a [`Stop`], and so can be asked to return.
    pub(crate) fn has_stop(&self) -> bool {
        match self.body {
            Body::Function { has_stop, .. } => has_stop,
            Body::Closure(_) => true,
        }
    }

    pub(crate) fn running_run(&self) -> Option<Arc<Run>> {
        let run = self.run().ok()?;
        run.look().is_ok_and(|end| end.is_none()).then_some(run)
    }

    pub(crate) fn check(&self) -> Result<(), ProcError> {
        match self.run()?.look()? {
            None => Ok(()),
            Some(end) => match &end.result {
                Ok(_) | Err(ProcError::Killed { .. }) => Ok(()),
                Err(error) => Err(error.clone()),
            },
        }
    }

    pub(crate) fn kill(&self, grace: Duration) -> Result<(), ProcError> {
        self.run().map_or(Ok(()), |run| run.kill(grace))
    }

    pub(crate) fn stop(&self, grace: Duration) -> Result<(), ProcError> {
        let Ok(run) = self.run() else { return Ok(()) };
        if !self.has_stop() {
            return run.kill(grace);
        }
        run.stop()?;
        if run.wait(deadline(grace))?.is_none() {
            run.kill(Duration::ZERO)?;
        }
        Ok(())
    }
}
