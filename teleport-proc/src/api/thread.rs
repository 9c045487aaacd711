//! Closures in threads of their own, which can be told to end.
//!
//! Flow: [`Thread::new`] -> `start` -> a thread, whose panics are caught -> `join`, `check`. How it is told to end is in
//! [`interrupt`](crate::interrupt).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::api::restart::{Backoff, Restart};
use crate::cancel::deadline::deadline;
use crate::cancel::interrupt::{self, Interrupt, Waiters};
use crate::cancel::stop::{Stop, StopFlag};
use crate::codec::{BoxError, Return};
use crate::error::ProcError;
use crate::failure::{self, Failure};

/// How long a thread has to end that was killed, unless [`grace`](Thread::grace) says otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// A closure in a thread of its own: what it returns or fails with is told as often as it is asked for, and it ends when its
/// owner lets go of it, as far as a thread can be made to.
///
/// A thread of Rust cannot be ended at an arbitrary point: it may hold a lock, or be changing what others read. So
/// [`kill`](Thread::kill) marks it, and wakes it where it waits in Teleport: for a future, in a `join`, in
/// [`sleep`](crate::sleep), at a [`channel`](crate::channel), where a client connects or closes, and where a server runs. There,
/// or at its next [`checkpoint`](crate::checkpoint), it unwinds, and its destructors run, which closes a server that it has: give
/// it a `close_timeout` below the [`grace`](Thread::grace). One that comes to no such point goes on; that is told, never passed
/// over.
///
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

/// All of a thread but the type of its result.
pub(crate) struct Inner {
    name: String,
    body: Arc<Mutex<Body>>,
    initializers: Vec<fn()>,
    grace: Duration,
    pub(crate) restart: Restart,
    pub(crate) backoff: Backoff,
    run: Mutex<Option<Arc<Run>>>,
}

/// A closure that gives the bytes of its result.
type Body = Box<dyn FnMut(&Stop) -> Result<Vec<u8>, BoxError> + Send>;

/// One run of a thread.
#[derive(Debug)]
struct Run {
    interrupt: Arc<Interrupt>,
    flag: Arc<StopFlag>,
    end: Mutex<Option<Result<Arc<Vec<u8>>, ProcError>>>,
    waiters: Waiters,
}

impl<R> Thread<R> {
    /// A closure that a thread is to run. Nothing happens before [`start`](Thread::start).
    ///
    /// What it may return is what a function of a [`Process`](crate::Process) may: so the one can take the other's place.
    pub fn new<T, N>(
        name: impl Into<String>,
        mut closure: impl FnMut(&Stop) -> T + Send + 'static,
    ) -> Thread<R>
    where
        T: Return<N, Value = R>,
    {
        let body: Body = Box::new(move |stop| closure(stop).into_bytes());
        let inner = Inner {
            name: name.into(),
            body: Arc::new(Mutex::new(body)),
            initializers: Vec::new(),
            grace: GRACE,
            restart: Restart::Never,
            backoff: Backoff::default(),
            run: Mutex::new(None),
        };
        Thread { inner: Arc::new(inner), value: T::value }
    }

    /// Runs `function` in the thread before its closure. May be called several times.
    ///
    /// Threads share the panic hook of their process. One that is set after the first of them was started should call the one
    /// before, as place and backtrace of their panics are lost otherwise.
    #[must_use]
    pub fn initializer(self, function: fn()) -> Thread<R> {
        self.changed(|inner| inner.initializers.push(function))
    }

    /// How long it has to end on [`kill`](Thread::kill), or when this is dropped: 5 s by default.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Thread<R> {
        self.changed(|inner| inner.grace = grace)
    }

    /// Whether a [`Group`](crate::Group) starts it again: never by default.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Thread<R> {
        self.changed(|inner| inner.restart = restart)
    }

    /// How long a [`Group`](crate::Group) waits before it starts it again: `first` before the first time, then twice as long
    /// each time, up to `max`. By default 100 ms and 10 s.
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Thread<R> {
        self.changed(|inner| inner.backoff = Backoff { first, max })
    }

    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Thread<R> {
        // Others have it only once it was added to a group, which takes this.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            change(inner);
        }
        self
    }

    /// Starts the thread. One that has ended can be started again.
    ///
    /// # Errors
    /// [`AlreadyStarted`](ProcError::AlreadyStarted); [`Start`](ProcError::Start) if the system has no thread left;
    /// [`NeedsUnwind`](ProcError::NeedsUnwind) if the program is built with `panic = "abort"`.
    pub fn start(&self) -> Result<(), ProcError> {
        self.inner.start()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it runs.
    pub fn running(&self) -> bool {
        self.inner.is_running()
    }

    /// Whether all is well: it runs, or ended well, or was ended as asked.
    ///
    /// # Errors
    /// What it failed with, as often as this is called.
    pub fn check(&self) -> Result<(), ProcError> {
        self.inner.check()
    }

    /// **Blocks** until it has ended, and gives the result.
    ///
    /// # Errors
    /// What it failed with; [`Killed`](ProcError::Killed) if it was.
    pub fn join(&self) -> Result<R, ProcError> {
        let run = self.inner.run()?;
        loop {
            if let Some(end) = run.wait(None) {
                return self.value(end);
            }
        }
    }

    /// As [`join`](Thread::join), at most for `time`: then it gives nothing.
    ///
    /// # Errors
    /// As [`join`](Thread::join).
    pub fn join_timeout(&self, time: Duration) -> Result<Option<R>, ProcError> {
        let end = self.inner.run()?.wait(deadline(time));
        end.map(|end| self.value(end)).transpose()
    }

    fn value(&self, end: Result<Arc<Vec<u8>>, ProcError>) -> Result<R, ProcError> {
        (self.value)(Arc::unwrap_or_clone(end?)).map_err(ProcError::result(&self.inner.name))
    }

    /// Has it end where it waits for something, or at its next [`checkpoint`](crate::checkpoint). **Blocks** until it has, at
    /// most for the [`grace`](Thread::grace).
    ///
    /// # Errors
    /// [`ThreadRuns`](ProcError::ThreadRuns) if it has not come to such a point by then. It still ends at the next.
    pub fn kill(&self) -> Result<(), ProcError> {
        self.inner.kill(self.inner.grace)
    }

    /// Tells its closure to return, by turning its [`Stop`] false. **Blocks** until it has, at most for `grace`: after that
    /// it is [killed](Thread::kill).
    ///
    /// # Errors
    /// As [`kill`](Thread::kill).
    pub fn stop(&self, grace: Duration) -> Result<(), ProcError> {
        self.inner.stop(grace)?;
        self.inner.kill(self.inner.grace)
    }

    pub(crate) fn into_inner(self) -> Arc<Inner> {
        self.inner
    }
}

impl<R> fmt::Debug for Thread<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn start(&self) -> Result<(), ProcError> {
        let name = || self.name.clone();
        if cfg!(not(panic = "unwind")) {
            return Err(ProcError::NeedsUnwind { name: name() });
        }
        let mut current = lock(&self.run);
        if current.as_ref().is_some_and(|run| run.look().is_none()) {
            return Err(ProcError::AlreadyStarted { name: name() });
        }
        let failed = |what| ProcError::start(&self.name, what);
        let run = Arc::new(Run {
            interrupt: Interrupt::new().map_err(failed("no pipe can be made"))?,
            flag: Arc::default(),
            end: Mutex::new(None),
            waiters: Waiters::default(),
        });
        let (its_run, body, initializers, its_name) =
            (run.clone(), self.body.clone(), self.initializers.clone(), name());
        let work = move || {
            its_run.interrupt.enter();
            let stop = Stop::of_thread(its_run.flag.clone());
            let result = failure::catch(|| {
                initializers.iter().for_each(|initializer| initializer());
                // A panic of an earlier run left it as it was: that is for its closure to know.
                (lock(&body))(&stop)
            });
            its_run.interrupt.leave();
            its_run.finish(&its_name, result);
        };
        let thread = std::thread::Builder::new().name(name()).spawn(work);
        // Its handle is not needed: `finish` is the last that it does.
        drop(thread.map_err(failed("no thread can be made"))?);
        *current = Some(run);
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    fn run(&self) -> Result<Arc<Run>, ProcError> {
        lock(&self.run).clone().ok_or_else(|| ProcError::NotStarted { name: self.name.clone() })
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run().is_ok_and(|run| run.look().is_none())
    }

    /// Wakes `waker` when it has ended, perhaps sooner; never if it does not run.
    pub(crate) fn wake_at_end(&self, waker: &Waker) {
        if let Ok(run) = self.run() {
            run.waiters.add(waker.clone());
            if run.look().is_some() {
                run.waiters.wake();
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), ProcError> {
        match self.run()?.look() {
            None | Some(Ok(_) | Err(ProcError::Killed { .. })) => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    /// Marks it, so that it ends at its next point.
    pub(crate) fn ask_to_end(&self) {
        if let Ok(run) = self.run()
            && run.look().is_none()
        {
            run.flag.set();
            run.interrupt.kill();
        }
    }

    /// Turns its `Stop` false.
    pub(crate) fn ask_to_stop(&self) {
        if let Ok(run) = self.run() {
            run.flag.set();
        }
    }

    pub(crate) fn kill(&self, grace: Duration) -> Result<(), ProcError> {
        let Ok(run) = self.run() else { return Ok(()) };
        self.ask_to_end();
        match run.wait(deadline(grace)) {
            Some(_) => Ok(()),
            None => Err(ProcError::ThreadRuns { name: self.name.clone(), waited: grace }),
        }
    }

    fn stop(&self, grace: Duration) -> Result<(), ProcError> {
        self.ask_to_stop();
        if let Ok(run) = self.run() {
            run.wait(deadline(grace));
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = interrupt::uninterrupted(|| self.kill(self.grace)) {
            // Nobody is left who could be told otherwise.
            eprintln!("{error}");
        }
    }
}

impl Run {
    /// How it ended, if it has.
    fn look(&self) -> Option<Result<Arc<Vec<u8>>, ProcError>> {
        lock(&self.end).clone()
    }

    fn wait(&self, deadline: Option<Instant>) -> Option<Result<Arc<Vec<u8>>, ProcError>> {
        self.waiters.wait(deadline, || self.look())
    }

    fn finish(&self, name: &str, result: Result<Result<Vec<u8>, BoxError>, Option<Failure>>) {
        let failed = |failure| ProcError::Failed { name: name.to_owned(), failure: Box::new(failure) };
        let end = match result {
            Ok(Ok(bytes)) => Ok(Arc::new(bytes)),
            Ok(Err(error)) => Err(failed(Failure::of_error(&error))),
            Err(Some(failure)) => Err(failed(failure)),
            Err(None) => Err(ProcError::Killed { name: name.to_owned() }),
        };
        *lock(&self.end) = Some(end);
        self.waiters.wake();
    }
}

/// What a panic left is whole: nothing here panics while it changes something.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{channel, checkpoint, sleep};
    use std::cell::Cell;
    use std::sync::mpsc;

    /// Longer than anybody waits.
    const FOREVER: Duration = Duration::from_secs(3600);

    /// A thread that tells when it has started, then waits by `wait`, and tells when it unwinds.
    fn waiting(wait: impl Fn() + Send + 'static) -> (Thread, mpsc::Receiver<&'static str>) {
        struct Tell(mpsc::Sender<&'static str>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.send("unwound").unwrap();
            }
        }
        let (sender, told) = mpsc::channel();
        let thread = Thread::new("waiting", move |_stop| {
            let _tell = Tell(sender.clone());
            sender.send("started").unwrap();
            wait();
        });
        (thread.grace(FOREVER), told)
    }

    fn is_killed_from(wait: impl Fn() + Send + 'static) {
        let (thread, told) = waiting(wait);
        thread.start().unwrap();
        assert_eq!(told.recv().unwrap(), "started");
        thread.kill().unwrap();
        assert_eq!(told.recv().unwrap(), "unwound");
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
            // It is killed too, while this one unwinds.
            drop(inner.join());
        });
    }

    #[test]
    fn thread_locals_of_a_killed_thread_do_not_unwind() {
        struct Waits(mpsc::Sender<()>);
        impl Drop for Waits {
            fn drop(&mut self) {
                // A destructor of a thread-local that unwinds ends the process.
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
        let (sender, told) = mpsc::channel();
        let (killed, is_killed) = mpsc::channel::<()>();
        let is_killed = Mutex::new(is_killed);
        let outer = Thread::new("outer", move |_stop| {
            let (inner, inner_told) = waiting(|| sleep(FOREVER));
            inner.start().unwrap();
            assert_eq!(inner_told.recv().unwrap(), "started");
            sender.send(()).unwrap();
            // No point of this crate: the thread goes on.
            is_killed.lock().unwrap().recv().unwrap();
            drop(inner);
            assert_eq!(inner_told.try_recv(), Ok("unwound"));
            sender.send(()).unwrap();
        });
        let outer = outer.grace(FOREVER);
        outer.start().unwrap();
        told.recv().unwrap();
        outer.inner.ask_to_end();
        killed.send(()).unwrap();
        told.recv().unwrap();
        outer.join().unwrap();
    }

    #[test]
    fn what_fails_is_told_again_and_again() {
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
        assert!(failure.backtrace().unwrap().contains("what_fails_is_told_again_and_again"), "{failure:?}");
    }

    #[test]
    fn stop_turns_false_and_the_result_comes() {
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
    fn all_threads_that_sleep_on_a_stop_are_woken() {
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
    fn the_longest_times_are_for_ever() {
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
    fn one_that_comes_to_no_point_is_told_of() {
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = Thread::new("deaf", move |_stop| assert!(receiver.recv().is_err()))
            .grace(Duration::from_millis(1));
        thread.start().unwrap();
        let error = thread.kill().unwrap_err();
        let expected = "deaf: the thread has come to no point at which it could end within 1ms after it was killed: call \
            `checkpoint()` where it computes for long";
        assert_eq!(error.to_string(), expected);
        drop(sender);
        thread.join().unwrap();
    }
}
