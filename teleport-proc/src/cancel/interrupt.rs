//! Killing threads at cancellation points.
//!
//! No thread can be ended at an arbitrary point: it may hold a lock, or be in the middle of a change. So
//! killing a [`Thread`](crate::Thread) marks it and wakes it from where it waits. There, or at its next
//! [`checkpoint`], it unwinds: destructors run, and panic hooks do not. In all other threads a cancellation
//! point only reads a thread-local flag.
//!
//! A thread waits in one of three ways, and is woken in each of them: parked, in `poll(2)` beside
//! [`Interrupt::pipe`], or for a future, whose waker [`poll_killed`] registers. Clients and servers wait in
//! the last way. Their destructors do so, too, but never unwind.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::cancel::deadline::deadline;
use crate::cancel::wake_pipe::WakePipe;
use crate::sys;

/// The panic payload with which a killed thread unwinds.
pub(crate) struct Killed;

/// Interrupts one thread.
#[derive(Debug)]
pub(crate) struct Interrupt {
    killed: AtomicBool,
    thread: OnceLock<thread::Thread>,
    /// The waker of the future that the thread waits for.
    waker: Mutex<Option<Waker>>,
    /// Is readable once the thread is killed.
    pipe: WakePipe,
}

thread_local! {
    /// True if this thread has an [`Interrupt`] and passes cancellation points.
    static IS_INTERRUPTIBLE: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<Arc<Interrupt>>> = const { RefCell::new(None) };
}

impl Interrupt {
    pub(crate) fn new() -> io::Result<Arc<Interrupt>> {
        Ok(Arc::new(Interrupt {
            killed: Default::default(),
            thread: OnceLock::new(),
            waker: Mutex::new(None),
            pipe: WakePipe::new()?,
        }))
    }

    /// Makes this the interrupt of the current thread.
    pub(crate) fn enter(self: &Arc<Interrupt>) {
        // It enters once.
        let _ = self.thread.set(thread::current());
        CURRENT.set(Some(self.clone()));
        IS_INTERRUPTIBLE.set(true);
    }

    /// Undoes [`enter`](Interrupt::enter). Destructors of thread-locals run after this, and must not unwind.
    pub(crate) fn leave(&self) {
        IS_INTERRUPTIBLE.set(false);
        drop(CURRENT.take());
        let waker = self.waker().take();
        drop(waker);
    }

    /// Kills the thread: it unwinds at its next cancellation point.
    pub(crate) fn kill(&self) {
        // SeqCst: the thread stores its waker and then loads this; here the order is reversed.
        if self.killed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.pipe.waker.wake_by_ref();
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
        let waker = self.waker().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether this is a [`Thread`](crate::Thread), which may be killed while it waits.
pub fn is_interruptible() -> bool {
    IS_INTERRUPTIBLE.get()
}

/// Returns whether this is a [`Thread`](crate::Thread) that was killed and has not begun to unwind.
pub fn is_killed() -> bool {
    // While it unwinds, a destructor may wait once more, and must not unwind again.
    IS_INTERRUPTIBLE.get()
        && with_current(|current| current.killed.load(Ordering::SeqCst))
        && !thread::panicking()
}

/// Unwinds this thread if it is a [`Thread`](crate::Thread) that was killed and is not unwinding already.
///
/// Call it now and then in a thread that computes for long. Everything that waits in Teleport does so by
/// itself: [`sleep`], joins and channels, and clients and servers, if their feature `threads` is on.
///
/// # Examples
/// ```
/// use teleport_proc::{ProcError, Thread, checkpoint};
///
/// # fn main() -> Result<(), ProcError> {
/// let thread = Thread::new("busy", |stop| {
///     while stop.running() {
///         checkpoint(); // does not return once the thread is killed
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

/// Lets other crates wait in a way that a kill ends. Returns `Ready` once this [`Thread`](crate::Thread) was
/// killed, and otherwise has a kill wake the waker of `cx`. Returns `Pending` in all other threads.
///
/// When it returns `Ready`, end the wait and call [`checkpoint`]. In a destructor, return instead.
pub fn poll_killed(cx: &mut Context<'_>) -> Poll<()> {
    if !IS_INTERRUPTIBLE.get() {
        return Poll::Pending;
    }
    with_current(|current| {
        let mut waker = current.waker();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    });
    if is_killed() { Poll::Ready(()) } else { Poll::Pending }
}

/// Runs `function` without cancellation points, as a destructor must.
pub(crate) fn uninterrupted<T>(function: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IS_INTERRUPTIBLE.set(self.0);
        }
    }
    let _restore = Restore(IS_INTERRUPTIBLE.replace(false));
    function()
}

/// **Blocks** for `time`. Unwinds if this thread is killed.
pub fn sleep(time: Duration) {
    park_until(deadline(time), || None::<()>);
}

/// **Blocks** until `poll` returns something, or until `deadline`. Polls whenever this thread is unparked.
pub(crate) fn park_until<T>(deadline: Option<Instant>, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = poll() {
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

/// **Blocks** until one of `fds` is readable, or until `deadline`. Returns whether one is. Unwinds if this
/// thread is killed.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    let current = IS_INTERRUPTIBLE.get().then(|| CURRENT.with_borrow(Clone::clone)).flatten();
    match current.filter(|_| !thread::panicking()) {
        None => sys::any_readable(fds, deadline),
        Some(current) => {
            let with_pipe: Vec<_> = fds.iter().copied().chain([current.pipe.descriptor()]).collect();
            let readable = sys::any_readable(&with_pipe, deadline)?;
            checkpoint();
            Ok(readable)
        }
    }
}

fn with_current<T: Default>(function: impl FnOnce(&Interrupt) -> T) -> T {
    CURRENT.with_borrow(|current| current.as_deref().map(function)).unwrap_or_default()
}
