//! The life of a server: running, closing or closed, and the failures that its owner has not seen.
//!
//! Flow: running -> a request to close, with a time -> closed. Any thread may request it, the supervisor
//! closes the server, and owners wait here. The first failure of a function is kept until `check` takes it.
//! Bound: one failure for `check`, and one that ends the server.

use std::cell::Cell;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use teleport_transport::{ForkGuard, Wakers, block_on, block_on_or_unwind, on_poller_thread};

use crate::api::error::ServeError;

/// The default time that a closing server waits for running functions.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    /// Detects a forked process, which does not have the server's threads.
    fork_guard: ForkGuard,
    closing: AtomicBool,
    cancelling: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    close_timeout: Option<Duration>,
    request: Option<Request>,
    closed: bool,
    /// The failure that the next `check` returns.
    unreported: Option<ServeError>,
    /// The failure that `join` returns.
    end: Option<ServeError>,
    /// Owners that wait until the server is closed. Bound: one entry for each thread.
    owners: Wakers,
}

/// A request to close the server.
#[derive(Clone, Copy, Debug)]
struct Request {
    since: Instant,
    /// The time at which running functions are given up; `None` for never.
    until: Option<Instant>,
}

thread_local! {
    /// The server that this thread belongs to, as the address of its lifecycle; 0 on all other threads.
    static OWNED_BY: Cell<usize> = const { Cell::new(0) };
}

impl Lifecycle {
    /// Marks this thread as one of the server's own.
    pub(crate) fn own_this_thread(self: &Arc<Self>) {
        OWNED_BY.set(Arc::as_ptr(self).addr());
    }

    /// Returns true if this thread would wait for itself if it waited for the server to end.
    pub(crate) fn is_own_thread(self: &Arc<Self>) -> bool {
        on_poller_thread() || OWNED_BY.get() == Arc::as_ptr(self).addr()
    }

    /// Returns true if new calls are refused.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns true if running functions should give up.
    pub(crate) fn is_cancelling(&self) -> bool {
        self.cancelling.load(Ordering::Acquire)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock())
    }

    /// Asks running functions to give up.
    pub(crate) fn cancel_running(&self) {
        self.cancelling.store(true, Ordering::Release);
    }

    /// Sets the time to close for requests that name none.
    pub(crate) fn set_close_timeout(&self, timeout: Duration) {
        self.with(|state| state.close_timeout = Some(timeout));
    }

    /// Returns false in a process that was forked from the server's, which does not have its threads. Check
    /// this before taking a lock: its holder may not exist in a fork.
    pub(crate) fn is_current(&self) -> bool {
        self.fork_guard.is_current()
    }

    /// Asks the server to close, within the configured time if none is given. A later request can only
    /// shorten the time.
    pub(crate) fn request_close(&self, within: Option<Duration>) {
        if !self.is_current() {
            return;
        }
        let now = Instant::now();
        self.with(|state| {
            let within = within.or(state.close_timeout).unwrap_or(CLOSE_TIMEOUT);
            let until = now.checked_add(within);
            let request = state.request.get_or_insert(Request { since: now, until });
            if let Some(until) = until
                && request.until.is_none_or(|earlier| until < earlier)
            {
                request.until = Some(until);
            }
            self.closing.store(true, Ordering::Release);
        });
        self.changed.notify_all();
    }

    /// Waits for a request to close, for the time that `until` returns, or for
    /// [`notify`](Lifecycle::notify). Returns true if there is a request.
    pub(crate) fn wait_for_request(&self, until: impl FnOnce() -> Option<Instant>) -> bool {
        let mut state = self.state.lock();
        if state.request.is_none() {
            // Called under the lock, so that this thread cannot miss the notification of a change.
            match until() {
                Some(until) => drop(self.changed.wait_until(&mut state, until)),
                None => self.changed.wait(&mut state),
            }
        }
        state.request.is_some()
    }

    /// Waits until `is_done` or the time to close is over, but at least for `grace`. Returns `is_done`. The
    /// thread that makes it true must call [`notify`](Lifecycle::notify).
    pub(crate) fn wait_to_close(&self, grace: Duration, is_done: impl Fn() -> bool) -> bool {
        let least = Instant::now() + grace;
        let mut state = self.state.lock();
        loop {
            if is_done() {
                return true;
            }
            // A later request may have shortened the time.
            match state.request.and_then(|request| request.until).map(|until| until.max(least)) {
                Some(until) if until <= Instant::now() => return false,
                Some(until) => drop(self.changed.wait_until(&mut state, until)),
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Returns the rest of the time to close, or `None` without a limit.
    pub(crate) fn time_to_close(&self) -> Option<Duration> {
        let request = self.with(|state| state.request);
        request.and_then(|request| request.until).map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Wakes waiting threads to check their conditions again.
    pub(crate) fn notify(&self) {
        // With the lock, so that no thread is between the check of its condition and its wait.
        self.with(|_| ());
        self.changed.notify_all();
    }

    /// Notes a failure for `check`, unless there is an earlier one.
    pub(crate) fn note(&self, failure: impl FnOnce() -> ServeError) {
        self.with(|state| _ = state.unreported.get_or_insert_with(failure));
    }

    /// Notes the failure that ends the server, and asks it to close.
    pub(crate) fn fail(&self, failure: impl FnOnce() -> ServeError) {
        self.with(|state| _ = state.end.get_or_insert_with(failure));
        self.request_close(None);
    }

    /// Returns the first failure since the last call of `check`.
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        self.with(|state| state.unreported.take()).map_or(Ok(()), Err)
    }

    /// Marks the server as closed. `running` lists functions that did not return in time.
    pub(crate) fn finish(&self, running: Vec<String>) {
        let mut owners = self.with(|state| {
            if !running.is_empty() {
                let waited = state.request.map_or(Duration::ZERO, |request| request.since.elapsed());
                let waited_ms = waited.as_millis() as u64;
                state.end.get_or_insert(ServeError::StillRunning { running, waited_ms });
            }
            state.closed = true;
            mem::take(&mut state.owners)
        });
        owners.wake_all();
    }

    /// Waits until the server is closed. The first call returns its outcome. Unwinds in a thread that is
    /// killed.
    pub(crate) fn wait_closed(self: &Arc<Self>) -> Result<(), ServeError> {
        self.may_wait()?;
        // Without a deadline, the wait ends only with a result.
        block_on_or_unwind(&mut None, None, |cx| self.poll_closed(cx)).unwrap_or(Ok(()))
    }

    /// Waits like [`wait_closed`](Lifecycle::wait_closed), for destructors, which must not unwind.
    pub(crate) fn wait_closed_in_drop(self: &Arc<Self>) -> Result<(), ServeError> {
        self.may_wait()?;
        block_on(&mut None, None, |cx| self.poll_closed(cx)).unwrap_or(Ok(()))
    }

    fn may_wait(self: &Arc<Self>) -> Result<(), ServeError> {
        if !self.is_current() {
            return Err(ServeError::Forked);
        }
        if self.is_own_thread() {
            return Err(ServeError::OnOwnThread);
        }
        Ok(())
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        self.with(|state| {
            if !state.closed {
                state.owners.push_once(cx.waker());
                return Poll::Pending;
            }
            Poll::Ready(state.end.take().map_or(Ok(()), Err))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_request_counts() {
        let lifecycle = Lifecycle::default();
        assert!(!lifecycle.is_closing());
        lifecycle.request_close(Some(Duration::MAX));
        assert_eq!(lifecycle.time_to_close(), None);
        lifecycle.request_close(Some(Duration::ZERO));
        lifecycle.request_close(Some(Duration::from_secs(100)));
        assert_eq!(lifecycle.time_to_close(), Some(Duration::ZERO));
        assert!(lifecycle.is_closing());
        assert!(!lifecycle.wait_to_close(Duration::ZERO, || false));
        assert!(lifecycle.wait_to_close(Duration::ZERO, || true));
    }

    #[test]
    fn failures_are_reported_once() {
        let lifecycle = Arc::new(Lifecycle::default());
        let done = |method: &str| {
            let method = method.to_owned();
            move || ServeError::Done { method, message: String::new() }
        };
        lifecycle.note(done("first"));
        lifecycle.note(done("second"));
        assert!(matches!(lifecycle.check(), Err(ServeError::Done { method, .. }) if method == "first"));
        assert!(lifecycle.check().is_ok());
        lifecycle.fail(done("end"));
        lifecycle.finish(vec!["late".into()]);
        assert!(matches!(lifecycle.wait_closed(), Err(ServeError::Done { method, .. }) if method == "end"));
        assert!(lifecycle.wait_closed().is_ok());
    }

    #[test]
    fn own_threads_do_not_wait() {
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.own_this_thread();
        assert!(matches!(lifecycle.wait_closed(), Err(ServeError::OnOwnThread)));
        assert!(!Arc::new(Lifecycle::default()).is_own_thread());
    }
}
