//! Threads that can be told to end, and the points at which they do.
//!
//! No thread can be ended at an arbitrary point: it may hold a lock, or be in the middle of anything. So a
//! [`Thread`](crate::Thread) that is killed is marked, and woken from where it waits; there, or at the next
//! [`checkpoint`], it unwinds: destructors run, nobody's panic hook does. Threads of other kinds pass these points for the
//! price of looking at a flag of their own.
//!
//! What waits does so in one of three ways, and is woken in each: parked, in `poll(2)` beside [`Interrupt::pipe`], or as a
//! future, whose waker it leaves with [`poll_killed`]. In the last way clients and servers wait: for a result or a slot, to
//! connect, to close, and for a server to be closed. A destructor of theirs that waits for that never unwinds.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::cancel::deadline::deadline;
use crate::sys;

/// What a killed thread unwinds with.
pub(crate) struct Killed;

/// What others may tell a thread.
#[derive(Debug)]
pub(crate) struct Interrupt {
    killed: AtomicBool,
    thread: OnceLock<thread::Thread>,
    /// Of the future that it waits for, if it does.
    waker: Mutex<Option<Waker>>,
    /// Readable once it is killed.
    pipe: OwnedFd,
    pipe_end: std::fs::File,
}

thread_local! {
    /// Whether this thread has an [`Interrupt`].
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<Arc<Interrupt>>> = const { RefCell::new(None) };
}

impl Interrupt {
    pub(crate) fn new() -> io::Result<Arc<Interrupt>> {
        let (pipe, end) = sys::pipe()?;
        let killed = AtomicBool::new(false);
        Ok(Arc::new(Interrupt {
            killed,
            thread: OnceLock::new(),
            waker: Mutex::new(None),
            pipe,
            pipe_end: end.into(),
        }))
    }

    /// Is told to this thread from here on.
    pub(crate) fn enter(self: &Arc<Interrupt>) {
        // It enters once.
        let _ = self.thread.set(thread::current());
        CURRENT.set(Some(self.clone()));
        IS_OURS.set(true);
    }

    /// Is told no more to this thread: what else it runs is the destructors of its thread-locals, which must not unwind.
    pub(crate) fn leave(&self) {
        IS_OURS.set(false);
        drop(CURRENT.take());
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(waker);
    }

    /// Has the thread end at its next point.
    pub(crate) fn kill(&self) {
        // Sequentially consistent: the thread leaves its waker and then looks at this; who kills does the reverse.
        if self.killed.swap(true, Ordering::SeqCst) {
            return;
        }
        // Nobody reads it: that it is there is what is told. The pipe is empty, so it has room.
        let _ = (&self.pipe_end).write(&[1]);
        self.unpark();
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has the thread look at what it is parked for.
    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Whether this is a [`Thread`](crate::Thread), which may be killed while it waits.
pub fn is_interruptible() -> bool {
    IS_OURS.get()
}

/// Whether this is a [`Thread`](crate::Thread) that was killed, and is not unwinding already.
pub fn is_killed() -> bool {
    // While it unwinds, destructors may wait for something once more, and must come to their end.
    IS_OURS.get() && with_current(|current| current.killed.load(Ordering::SeqCst)) && !thread::panicking()
}

/// Unwinds this thread if it is a [`Thread`](crate::Thread) that was killed; does nothing anywhere else, or while it unwinds.
///
/// To be called now and then where a thread computes for long. Whatever waits in Teleport does it itself: [`sleep`], joins and
/// channels, and where their features `threads` are on, clients and servers, which connect, wait for results, run and close.
///
/// ```
/// use teleport_proc::{ProcError, Thread, checkpoint};
///
/// # fn main() -> Result<(), ProcError> {
/// let thread = Thread::new("busy", |stop| {
///     while stop.running() {
///         checkpoint(); // from here it does not come back once it was killed
///     }
/// });
/// thread.start()?;
/// thread.kill()
/// # }
/// ```
pub fn checkpoint() {
    if is_killed() {
        std::panic::resume_unwind(Box::new(Killed));
    }
}

/// For what waits in other crates: ready once this thread was killed, and then the wait should end and call
/// [`checkpoint`], or return if it is a destructor's. Otherwise the waker of `cx` is woken when it is. Never ready in threads of other kinds.
pub fn poll_killed(cx: &mut Context<'_>) -> Poll<()> {
    if !IS_OURS.get() {
        return Poll::Pending;
    }
    with_current(|current| {
        let mut waker = current.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    });
    if is_killed() { Poll::Ready(()) } else { Poll::Pending }
}

/// Runs what a destructor does: in it this thread passes its points, since a destructor must not unwind.
pub(crate) fn uninterrupted<T>(run: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_OURS.set(self.0);
        }
    }
    let _restore = Restore(IS_OURS.replace(false));
    run()
}

/// **Blocks** for `time`, or until this thread is killed.
pub fn sleep(time: Duration) {
    park_until(deadline(time), || None::<()>);
}

/// **Blocks** until `look` finds something, at most until `deadline`. Whoever makes a difference to that unparks this thread.
pub(crate) fn park_until<T>(deadline: Option<Instant>, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        checkpoint();
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => thread::park_timeout(left),
        }
    }
}

/// **Blocks** until one of `fds` can be read, or this thread is killed, at most until `deadline`. Says whether one can.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    let current = IS_OURS.get().then(|| CURRENT.with_borrow(Clone::clone)).flatten();
    match current.filter(|_| !thread::panicking()) {
        None => sys::any_readable(fds, deadline),
        Some(current) => {
            let with_pipe: Vec<_> = fds.iter().copied().chain([current.pipe.as_fd()]).collect();
            let readable = sys::any_readable(&with_pipe, deadline)?;
            checkpoint();
            Ok(readable)
        }
    }
}

fn with_current<T: Default>(function: impl FnOnce(&Interrupt) -> T) -> T {
    CURRENT.with_borrow(|current| current.as_deref().map(function)).unwrap_or_default()
}

/// Those who wait for something, to be woken when it has come.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<Vec<Waker>>);

impl Waiters {
    /// Has a waker woken by the next [`wake`](Waiters::wake).
    pub(crate) fn add(&self, waker: Waker) {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiters.iter().any(|other| other.will_wake(&waker)) {
            waiters.push(waker);
        }
    }

    /// Wakes all that wait.
    pub(crate) fn wake(&self) {
        let waiters = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiters.into_iter().for_each(Waker::wake);
    }

    /// **Blocks** until `look` finds something, at most until `deadline`. Whoever makes a difference to that wakes these.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = look() {
            return Some(found);
        }
        let waiting = Waiting { waker: Waker::from(Arc::new(Unpark(thread::current()))), waiters: self };
        park_until(deadline, || {
            self.add(waiting.waker.clone());
            // After that: it may have come before anybody could know that it is waited for.
            look()
        })
    }
}

/// A thread that waits, and no longer once this is dropped.
struct Waiting<'a> {
    waker: Waker,
    waiters: &'a Waiters,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiters = self.waiters.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|waker| !waker.will_wake(&self.waker));
    }
}

/// Wakes a thread that is parked.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
