//! A call that was sent: its result, to be waited for, awaited, cancelled, or left to itself.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use teleport_transport::wire::{FromTree, Ran, Tree};
use teleport_transport::{Driver, Interrupted, block_on_or_unwind, on_poller_thread};

use crate::calls::pending::{Outcome, PendingCall};
use crate::engine::shared::Engine;
use crate::error::call::CallError;

/// The result of a call that was sent. Wait for it, `.await` it on any executor, or drop it.
///
/// Dropping it **detaches**: the call runs, its result is dropped, and its failure comes from
/// [`Client::check`](crate::Client::check), or from the next call where the client was built so.
/// [`cancel`](CallFuture::cancel) withdraws the call instead.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use teleport_client::{Client, wait_all, wire::tree};
///
/// let client = Client::connect("tcp://localhost:2222")?;
/// let futures = (0..8).map(|i| client.call("echo", tree!(i)).send()).collect::<Result<Vec<_>, _>>()?;
/// for reply in wait_all(futures)? {
///     println!("{reply}");
/// }
/// client.call("save", tree!({"step": 3})).send()?; // runs by itself
/// # Ok(())
/// # }
/// ```
pub struct CallFuture<R = Tree> {
    engine: Arc<Engine>,
    flight: Arc<PendingCall>,
    cancels: bool,
    /// Whether the outcome was read: nothing is left to detach from.
    read: bool,
    reply: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for CallFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.read || self.flight.is_done();
        f.debug_struct("CallFuture").field("method", &self.flight.method).field("done", &done).finish()
    }
}

impl<R: FromTree> CallFuture<R> {
    pub(crate) fn new(engine: Arc<Engine>, flight: Arc<PendingCall>) -> CallFuture<R> {
        engine.futures.fetch_add(1, Ordering::Relaxed);
        CallFuture { engine, flight, cancels: false, read: false, reply: PhantomData }
    }

    /// **Blocks** until the result comes.
    ///
    /// # Errors
    /// Why there is none. On a poller's thread [`CallError::OnPoller`], if it has not come yet.
    ///
    /// # Panics
    /// If [`wait_timeout`](CallFuture::wait_timeout) gave the result already.
    pub fn wait(mut self) -> Result<R, CallError> {
        let mut driver = self.driver();
        self.wait_until(&mut driver, None).unwrap_or_else(|| Err(self.on_poller()))
    }

    pub(crate) fn wait_with(mut self, driver: &mut Option<Driver>) -> Result<R, CallError> {
        self.wait_until(driver, None).unwrap_or_else(|| Err(self.on_poller()))
    }

    /// **Blocks** until the result comes or `time` is over, which gives none: the call goes on and can be waited for
    /// again.
    ///
    /// # Errors
    /// Why there is no result, as for [`wait`](CallFuture::wait).
    ///
    /// # Panics
    /// If it gave the result already.
    pub fn wait_timeout(&mut self, time: Duration) -> Result<Option<R>, CallError> {
        let until = Instant::now().checked_add(time);
        let mut driver = self.driver();
        match self.wait_until(&mut driver, until) {
            Some(result) => result.map(Some),
            None if on_poller_thread() && !time.is_zero() => Err(self.on_poller()),
            None => Ok(None),
        }
    }

    /// Whether the result has come: then waiting does not block. Who asks waits for it, so it comes even where others hold
    /// all of [`max_memory`](crate::ClientBuilder::max_memory).
    pub fn is_done(&self) -> bool {
        if self.read || self.is_elsewhere() || self.flight.is_done() {
            return true;
        }
        self.flight.expect();
        self.engine.awaited(&self.flight);
        false
    }

    /// The method that was called.
    pub fn method(&self) -> &str {
        &self.flight.method
    }

    /// Withdraws the call. What was not sent is never sent; what has not started does not start; a function that runs can
    /// see it in its context. Its slot is free at once.
    ///
    /// Says whether the function ran: [`Ran::No`] is certain, [`Ran::Yes`] if its result had come.
    pub fn cancel(mut self) -> Ran {
        self.read = true;
        self.cancel_now()
    }

    /// Has the call withdrawn when the future is dropped before the result came, instead of left to itself.
    pub fn cancel_on_drop(mut self) -> CallFuture<R> {
        self.cancels = true;
        self
    }

    /// None if `until` comes first, or this thread must not wait.
    fn wait_until(
        &mut self,
        driver: &mut Option<Driver>,
        until: Option<Instant>,
    ) -> Option<Result<R, CallError>> {
        let until = if on_poller_thread() { Some(Instant::now()) } else { until };
        let outcome = block_on_or_unwind(driver, until, |cx| self.poll_outcome(cx))?;
        // Converting runs code of the user's, which may take long or call: others read meanwhile.
        *driver = None;
        Some(self.convert(outcome))
    }

    fn on_poller(&self) -> CallError {
        CallError::OnPoller { method: self.flight.method.clone(), ran: Ran::Maybe }
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        assert!(!self.read, "the result of {} was taken before", self.method());
        if let Err(error) = self.engine.check_home(&self.flight.method, Ran::Maybe) {
            self.read = true;
            return Poll::Ready(Err(error));
        }
        let Poll::Ready(outcome) = self.flight.poll(&self.engine.waiting, cx) else {
            self.engine.awaited(&self.flight);
            return Poll::Pending;
        };
        self.read = true;
        Poll::Ready(outcome)
    }

    /// The result as `R`. Its memory is the user's from here on, and no longer counts for the connection.
    fn convert(&self, outcome: Outcome) -> Result<R, CallError> {
        let reply = outcome?;
        let method = || self.flight.method.clone();
        let tree =
            reply.tree.map_err(|source| CallError::Garbled { method: method(), source: Box::new(source) })?;
        R::from_tree(tree).map_err(|source| CallError::Reply { method: method(), source: Box::new(source) })
    }

    /// The right to read the connection, unless there is nothing to wait for.
    pub(crate) fn driver(&self) -> Option<Driver> {
        if self.read || self.is_elsewhere() || self.flight.is_done() { None } else { self.engine.driver() }
    }

    /// Whether this process was forked from the one that made the call: nothing comes of it here.
    fn is_elsewhere(&self) -> bool {
        !self.engine.fork_guard.is_current()
    }

    /// As `poll`, but leaves the result to be taken.
    pub(crate) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.read || self.is_elsewhere() || self.flight.poll_done(&self.engine.waiting, cx).is_ready() {
            return Poll::Ready(());
        }
        self.engine.awaited(&self.flight);
        Poll::Pending
    }
}

impl<R> CallFuture<R> {
    fn cancel_now(&self) -> Ran {
        if !self.engine.fork_guard.is_current() {
            return Ran::Maybe;
        }
        let withdrawn = self.engine.withdraw(&self.flight);
        match (withdrawn, self.flight.release(&self.engine.waiting)) {
            (Some(ran), _) => ran,
            (None, Some(Ok(_))) => Ran::Yes,
            (None, Some(Err(error))) => error.ran(),
            (None, None) => Ran::Maybe,
        }
    }
}

impl<R: FromTree> Future for CallFuture<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(interrupted) = Interrupted::poll(cx) {
            interrupted.unwind();
        }
        let outcome = ready!(self.poll_outcome(cx));
        Poll::Ready(self.convert(outcome))
    }
}

impl<R> Drop for CallFuture<R> {
    fn drop(&mut self) {
        self.engine.futures.fetch_sub(1, Ordering::Relaxed);
        if self.read || !self.engine.fork_guard.is_current() {
            return;
        }
        if self.cancels {
            self.cancel_now();
        } else {
            let outcome = self.flight.release(&self.engine.waiting);
            self.engine.send_for(&self.flight);
            if let Some(Err(error)) = outcome {
                self.engine.report(error);
            }
        }
    }
}
