//! Closures in threads of their own, which can be killed.
//!
//! Flow: [`Thread::new`] -> `start` -> a thread, whose panics are caught -> `join`, `check`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::api::member::{Member, Task};
use crate::cancel::deadline::deadline;
use crate::cancel::interrupt::{Interrupt, uninterrupted};
use crate::cancel::stop::{Stop, StopFlag};
use crate::cancel::waiters::Waiters;
use crate::codec::{BoxError, Return};
use crate::error::ProcError;
use crate::supervise::catch::catch;
use crate::supervise::run;
use crate::supervise::settings::{Backoff, Restart, Settings};

/// A closure in a thread of its own, which ends with its owner as far as threads can.
///
/// A thread of Rust cannot be ended at an arbitrary point: it may hold a lock, or be changing what others
/// read. So [`kill`](Thread::kill) marks the thread, and wakes it where it waits in Teleport: for a future,
/// in a `join`, in [`sleep`](crate::sleep), at a [`channel`](crate::channel), while a client connects or
/// closes, and while a server runs. There, or at its next [`checkpoint`](crate::checkpoint), it unwinds. Its
/// destructors run and close a server that it owns: give the server a `close_timeout` below the
/// [`grace`](Thread::grace). A thread that reaches no such point continues, and `kill` returns an error.
///
/// The result, error or panic of the closure is returned each time that [`join`](Thread::join) is called.
///
/// # Examples
/// ```
/// use teleport_proc::{ProcError, Thread};
///
/// # fn main() -> Result<(), ProcError> {
/// let thread = Thread::new("adder", |_stop| 1 + 2);
/// thread.start()?;
/// assert_eq!(thread.join()?, 3);
/// # Ok(())
/// # }
/// ```
pub struct Thread<R = ()> {
    inner: Arc<Inner>,
    value: fn(Vec<u8>) -> Result<R, BoxError>,
}

/// A thread without the type of its result.
struct Inner {
    settings: Settings,
    body: Arc<Mutex<Body>>,
    run: Mutex<Option<Arc<Run>>>,
}

/// A closure that returns its result as bytes, from which each `join` makes a value without `Clone`.
type Body = Box<dyn FnMut(&Stop) -> Result<Vec<u8>, BoxError> + Send>;

/// The outcome of a thread.
type End = Result<Arc<Vec<u8>>, ProcError>;

/// One run of a thread.
#[derive(Debug)]
struct Run {
    interrupt: Arc<Interrupt>,
    flag: Arc<StopFlag>,
    end: Mutex<Option<End>>,
    waiters: Waiters,
}

impl<R> Thread<R> {
    /// Makes a thread that runs `closure`. Nothing happens before [`start`](Thread::start).
    ///
    /// The closure may return what a function of a [`Process`](crate::Process) may return.
    pub fn new<T, N>(
        name: impl Into<String>,
        mut closure: impl FnMut(&Stop) -> T + Send + 'static,
    ) -> Thread<R>
    where
        T: Return<N, Value = R>,
    {
        let body: Body = Box::new(move |stop| closure(stop).into_bytes());
        let (settings, body) = (Settings::new(name.into()), Arc::new(Mutex::new(body)));
        Thread { inner: Arc::new(Inner { settings, body, run: Mutex::new(None) }), value: T::value }
    }

    /// Runs `function` in the thread before its closure. May be called several times.
    ///
    /// All threads share the panic hook of their process. A hook that is set after one was started should
    /// call the previous one. Otherwise errors have neither the place nor the backtrace of a panic.
    #[must_use]
    pub fn initializer(self, function: fn()) -> Thread<R> {
        self.changed(|settings| settings.initializers.push(function))
    }

    /// Sets the time to end on [`kill`](Thread::kill) and on drop. The default is 5 s.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Thread<R> {
        self.changed(|settings| settings.grace = grace)
    }

    /// Sets when a [`Group`](crate::Group) restarts the thread. The default is never.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Thread<R> {
        self.changed(|settings| settings.restart = restart)
    }

    /// Sets the pauses before restarts, which double from `first` up to `max`. By default 100 ms and 10 s.
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Thread<R> {
        self.changed(|settings| settings.backoff = Backoff { first, max })
    }

    fn changed(mut self, change: impl FnOnce(&mut Settings)) -> Thread<R> {
        // Only adding it to a group shares it, and that takes this value.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(&mut inner.settings);
        }
        self
    }

    /// Starts the thread. A thread that has ended can be started again.
    ///
    /// # Errors
    /// Returns [`AlreadyStarted`](ProcError::AlreadyStarted), [`Start`](ProcError::Start) if the system
    /// refuses, and [`NeedsUnwind`](ProcError::NeedsUnwind) in a program with `panic = "abort"`.
    pub fn start(&self) -> Result<(), ProcError> {
        self.inner.start()
    }

    /// Returns the name of the thread.
    pub fn name(&self) -> &str {
        &self.inner.settings.name
    }

    /// Returns whether the thread is running.
    pub fn running(&self) -> bool {
        self.inner.is_running()
    }

    /// Succeeds while the thread is running, and once it has ended well or was killed.
    ///
    /// # Errors
    /// Returns the error with which it failed, each time that this is called.
    pub fn check(&self) -> Result<(), ProcError> {
        self.inner.check()
    }

    /// **Blocks** until the thread has ended, and returns the result.
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

    /// Waits like [`join`](Thread::join), but for at most `time`. Returns `None` after that time.
    ///
    /// # Errors
    /// Returns the same errors as [`join`](Thread::join).
    pub fn join_timeout(&self, time: Duration) -> Result<Option<R>, ProcError> {
        let end = self.inner.run()?.wait(deadline(time));
        end.map(|end| self.value(end)).transpose()
    }

    fn value(&self, end: End) -> Result<R, ProcError> {
        (self.value)(Arc::unwrap_or_clone(end?)).map_err(ProcError::result(self.name()))
    }

    /// Kills the thread: it unwinds where it waits, or at its next [`checkpoint`](crate::checkpoint).
    /// **Blocks** until it has ended, for at most the [`grace`](Thread::grace).
    ///
    /// # Errors
    /// Returns [`ThreadRuns`](ProcError::ThreadRuns) if it has not ended by then. It still ends later.
    pub fn kill(&self) -> Result<(), ProcError> {
        self.inner.kill()
    }

    /// Asks the closure to return, by its [`Stop`], and [kills](Thread::kill) the thread after `grace`.
    /// **Blocks** until it has ended.
    ///
    /// # Errors
    /// Returns the same errors as [`kill`](Thread::kill).
    pub fn stop(&self, grace: Duration) -> Result<(), ProcError> {
        let Ok(run) = self.inner.run() else { return Ok(()) };
        run.flag.set();
        run.wait(deadline(grace));
        self.inner.kill()
    }
}

impl<R> From<Thread<R>> for Member {
    fn from(thread: Thread<R>) -> Member {
        Member(thread.inner)
    }
}

impl<R> fmt::Debug for Thread<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Inner {
    fn run(&self) -> Result<Arc<Run>, ProcError> {
        lock(&self.run).clone().ok_or_else(|| ProcError::NotStarted { name: self.settings.name.clone() })
    }

    fn kill(&self) -> Result<(), ProcError> {
        let Ok(run) = self.run() else { return Ok(()) };
        self.kill_now();
        run.wait(deadline(self.settings.grace)).map(drop).ok_or_else(|| self.still_running())
    }
}

impl Task for Inner {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn start(&self) -> Result<(), ProcError> {
        let name = || self.settings.name.clone();
        if cfg!(not(panic = "unwind")) {
            return Err(ProcError::NeedsUnwind { name: name() });
        }
        let mut current = lock(&self.run);
        if current.as_ref().is_some_and(|run| run.poll().is_none()) {
            return Err(ProcError::AlreadyStarted { name: name() });
        }
        let failed = |what| ProcError::start(&self.settings.name, what);
        let run = Arc::new(Run {
            interrupt: Interrupt::new().map_err(failed("no pipe can be made"))?,
            flag: Arc::default(),
            end: Mutex::new(None),
            waiters: Waiters::default(),
        });
        let (its_run, body, initializers, its_name) =
            (run.clone(), self.body.clone(), self.settings.initializers.clone(), name());
        let work = move || {
            its_run.interrupt.enter();
            let stop = Stop::of_thread(its_run.flag.clone());
            let result = catch(|| {
                initializers.iter().for_each(|initializer| initializer());
                // After a panic in an earlier run, the closure itself has to deal with its state.
                (lock(&body))(&stop)
            });
            its_run.interrupt.leave();
            let end = result.map(Arc::new).map_err(|failure| match failure {
                Some(failure) => ProcError::failed(&its_name, failure),
                None => ProcError::Killed { name: its_name },
            });
            *lock(&its_run.end) = Some(end);
            its_run.waiters.wake();
        };
        let thread = std::thread::Builder::new().name(name()).spawn(work);
        // The handle is not needed: the thread ends right after it has woken its waiters.
        drop(thread.map_err(failed("no thread can be made"))?);
        *current = Some(run);
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.run().is_ok_and(|run| run.poll().is_none())
    }

    fn check(&self) -> Result<(), ProcError> {
        match self.run()?.poll() {
            None | Some(Ok(_) | Err(ProcError::Killed { .. })) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    fn ask_to_end(&self) {
        if let Ok(run) = self.run() {
            run.flag.set();
        }
    }

    fn kill_now(&self) {
        if let Ok(run) = self.run()
            && run.poll().is_none()
        {
            run.flag.set();
            run.interrupt.kill();
        }
    }

    fn max_dying(&self) -> Duration {
        self.settings.grace
    }

    fn still_running(&self) -> ProcError {
        ProcError::ThreadRuns { name: self.settings.name.clone(), waited: self.settings.grace }
    }

    fn watch(&self, waker: &Waker) -> Option<Arc<run::Run>> {
        if let Ok(run) = self.run() {
            run.waiters.add(waker);
            // It may have ended before the waker was added.
            if run.poll().is_some() {
                run.waiters.wake();
            }
        }
        None
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = uninterrupted(|| self.kill()) {
            // There is nobody to return it to.
            eprintln!("{error}");
        }
    }
}

impl Run {
    fn poll(&self) -> Option<End> {
        lock(&self.end).clone()
    }

    fn wait(&self, deadline: Option<Instant>) -> Option<End> {
        self.waiters.wait(deadline, || self.poll())
    }
}

/// Locks a mutex, also after a panic: nothing here panics in the middle of a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{channel, checkpoint, sleep};
    use std::cell::Cell;
    use std::sync::mpsc;

    /// Longer than any test waits.
    const FOREVER: Duration = Duration::from_secs(3600);

    /// Makes a thread that reports its start, calls `wait`, and reports when it unwinds.
    fn waiting(wait: impl Fn() + Send + 'static) -> (Thread, mpsc::Receiver<&'static str>) {
        struct Report(mpsc::Sender<&'static str>);
        impl Drop for Report {
            fn drop(&mut self) {
                self.0.send("unwound").unwrap();
            }
        }
        let (sender, reports) = mpsc::channel();
        let thread = Thread::new("waiting", move |_stop| {
            let _report = Report(sender.clone());
            sender.send("started").unwrap();
            wait();
        });
        (thread.grace(FOREVER), reports)
    }

    fn is_killed_from(wait: impl Fn() + Send + 'static) {
        let (thread, reports) = waiting(wait);
        thread.start().unwrap();
        assert_eq!(reports.recv().unwrap(), "started");
        thread.kill().unwrap();
        assert_eq!(reports.recv().unwrap(), "unwound");
        assert!(matches!(thread.join(), Err(ProcError::Killed { .. })));
        thread.check().unwrap();
        thread.kill().unwrap();
    }

    #[test]
    fn a_killed_thread_unwinds_wherever_it_waits() {
        is_killed_from(|| sleep(FOREVER));
        is_killed_from(|| {
            loop {
                checkpoint();
            }
        });
        let (_sender, receiver) = channel::<()>(1);
        is_killed_from(move || assert_eq!(receiver.recv(), Ok(())));
        let (sender, _receiver) = channel(1);
        sender.send(()).unwrap();
        is_killed_from(move || assert_eq!(sender.send(()), Ok(())));
        is_killed_from(|| {
            let inner = Thread::new("inner", |stop| while stop.sleep(FOREVER) {});
            inner.start().unwrap();
            // Unwinding drops the inner thread, which kills it, too.
            drop(inner.join());
        });
    }

    #[test]
    fn thread_locals_of_a_killed_thread_do_not_unwind() {
        struct Waits(mpsc::Sender<()>);
        impl Drop for Waits {
            fn drop(&mut self) {
                // If a destructor of a thread-local unwinds, the process aborts.
                checkpoint();
                sleep(Duration::from_nanos(1));
                self.0.send(()).unwrap();
            }
        }
        thread_local! {
            static WAITS: Cell<Option<Waits>> = const { Cell::new(None) };
        }
        let (sender, dropped) = mpsc::channel();
        is_killed_from(move || {
            WAITS.set(Some(Waits(sender.clone())));
            sleep(FOREVER);
        });
        dropped.recv().unwrap();
    }

    #[test]
    fn a_killed_thread_that_drops_another_waits_for_it() {
        let (sender, reports) = mpsc::channel();
        let (killed, is_killed) = mpsc::channel::<()>();
        let is_killed = Mutex::new(is_killed);
        let outer = Thread::new("outer", move |_stop| {
            let (inner, inner_reports) = waiting(|| sleep(FOREVER));
            inner.start().unwrap();
            assert_eq!(inner_reports.recv().unwrap(), "started");
            sender.send(()).unwrap();
            // This is not a cancellation point, so the thread continues.
            is_killed.lock().unwrap().recv().unwrap();
            drop(inner);
            assert_eq!(inner_reports.try_recv(), Ok("unwound"));
            sender.send(()).unwrap();
        });
        let outer = outer.grace(FOREVER);
        outer.start().unwrap();
        reports.recv().unwrap();
        outer.inner.kill_now();
        killed.send(()).unwrap();
        reports.recv().unwrap();
        outer.join().unwrap();
    }

    #[test]
    fn a_failure_is_returned_each_time() {
        let thread = Thread::new("failing", |_stop| Err::<(), BoxError>("no luck".into()));
        thread.start().unwrap();
        for _ in 0..2 {
            assert_eq!(thread.join().unwrap_err().to_string(), "failing: no luck");
            assert!(thread.check().is_err());
            thread.kill().unwrap();
        }
        let thread = Thread::new("panicking", |_stop| assert_eq!(1 + 1, 3, "wrong sum"));
        thread.start().unwrap();
        let error = thread.join().unwrap_err();
        let failure = error.failure().unwrap();
        assert!(failure.panicked() && failure.message().contains("wrong sum"), "{error}");
        assert!(failure.backtrace().unwrap().contains("a_failure_is_returned_each_time"), "{failure:?}");
    }

    #[test]
    fn a_thread_that_stops_returns_its_result() {
        let thread = Thread::new("counting", |stop: &Stop| {
            let mut count = 1u32;
            while stop.sleep(FOREVER) {
                count += 1;
            }
            count
        });
        thread.start().unwrap();
        assert!(matches!(thread.start(), Err(ProcError::AlreadyStarted { .. })));
        assert!(thread.running() && thread.join_timeout(Duration::ZERO).unwrap().is_none());
        thread.stop(FOREVER).unwrap();
        assert_eq!(thread.join().unwrap(), 1);
        thread.start().unwrap();
        thread.stop(FOREVER).unwrap();
        assert_eq!(thread.join().unwrap(), 1);
    }

    #[test]
    fn a_stop_wakes_all_threads_that_sleep_on_it() {
        let (sender, started) = mpsc::channel();
        let thread = Thread::new("scope", move |stop| {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        sender.send(()).unwrap();
                        while stop.sleep(FOREVER) {}
                        assert!(!stop.running());
                    });
                }
                while stop.sleep(FOREVER) {}
            });
        });
        let thread = thread.grace(FOREVER);
        for end in [|thread: &Thread| thread.stop(FOREVER), Thread::kill] {
            thread.start().unwrap();
            (0..2).for_each(|_| started.recv().unwrap());
            end(&thread).unwrap();
            thread.join().unwrap();
        }
    }

    #[test]
    fn the_longest_times_never_end() {
        is_killed_from(|| sleep(Duration::MAX));
        let sleeping =
            || Thread::new("sleeping", |stop| while stop.sleep(Duration::MAX) {}).grace(Duration::MAX);
        let thread = sleeping();
        thread.start().unwrap();
        thread.stop(Duration::MAX).unwrap();
        assert_eq!(thread.join_timeout(Duration::MAX).unwrap(), Some(()));
        thread.start().unwrap();
        thread.kill().unwrap();
        let dropped = sleeping();
        dropped.start().unwrap();
        drop(dropped);
    }

    #[test]
    fn a_thread_that_reaches_no_cancellation_point_is_reported() {
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = Thread::new("deaf", move |_stop| assert!(receiver.recv().is_err()))
            .grace(Duration::from_millis(1));
        thread.start().unwrap();
        let error = thread.kill().unwrap_err();
        let expected = "deaf: the thread has not reached a cancellation point within 1ms after it was killed: call \
            `checkpoint()` where it computes for long";
        assert_eq!(error.to_string(), expected);
        drop(sender);
        thread.join().unwrap();
    }
}
