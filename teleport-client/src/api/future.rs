//! A call that was sent. Its result can be waited for, awaited, cancelled or ignored.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use teleport_transport::wire::{FromTree, Ran, Tree};
use teleport_transport::{
    Interrupted, ReaderRole, Reply, block_on_or_unwind, needs_wake, on_poller_thread, unwind_if_interrupted,
};

use crate::calls::pending::Outcome;
use crate::engine::sending::Sent;
use crate::error::call::CallError;

/// The result of a call that was sent. Wait for it, `.await` it on any executor, or drop it.
///
/// Dropping it **detaches**: the call runs and its result is dropped. [`Client::check`](crate::Client::check)
/// returns its failure, or the next call does if the client was built so. [`cancel`](CallFuture::cancel)
/// withdraws the call instead.
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
    call: Sent,
    cancels: bool,
    /// The outcome was read, so dropping this does not detach.
    is_read: bool,
    reply: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for CallFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").field("method", &self.call.method).finish_non_exhaustive()
    }
}

impl<R: FromTree> CallFuture<R> {
    pub(crate) fn new(call: Sent) -> CallFuture<R> {
        CallFuture { call, cancels: false, is_read: false, reply: PhantomData }
    }

    /// **Blocks** until the result arrives.
    ///
    /// # Errors
    /// Returns any [`CallError`] of a call that was sent. Returns [`CallError::OnPoller`] on a poller's
    /// thread if the result has not arrived yet.
    ///
    /// # Panics
    /// Panics if [`wait_timeout`](CallFuture::wait_timeout) has returned the result already.
    pub fn wait(mut self) -> Result<R, CallError> {
        let mut outcome = None;
        if let Err(mut reader) = self.look(&mut outcome) {
            self.wait_until(None, &mut reader, &mut outcome);
        }
        match outcome {
            Some(outcome) => self.convert(outcome),
            None => Err(self.on_poller()),
        }
    }

    /// Waits for a call that this thread has just sent, while it held `reader`.
    pub(crate) fn wait_with(mut self, reader: &mut Option<ReaderRole>) -> Result<R, CallError> {
        let mut outcome = None;
        self.wait_until(None, reader, &mut outcome);
        match outcome {
            Some(outcome) => self.convert(outcome),
            None => Err(self.on_poller()),
        }
    }

    /// **Blocks** until the result arrives, for at most `time`. Returns `None` after that time: the call
    /// continues and can be waited for again.
    ///
    /// # Errors
    /// Returns the same errors as [`wait`](CallFuture::wait).
    ///
    /// # Panics
    /// Panics if it has returned the result already.
    pub fn wait_timeout(&mut self, time: Duration) -> Result<Option<R>, CallError> {
        let mut outcome = None;
        if let Err(mut reader) = self.look(&mut outcome) {
            let until = Instant::now().checked_add(time);
            self.wait_until(until, &mut reader, &mut outcome);
        }
        match outcome {
            Some(outcome) => self.convert(outcome).map(Some),
            None if on_poller_thread() && !time.is_zero() => Err(self.on_poller()),
            None => Ok(None),
        }
    }

    /// Returns true if the result has arrived. Waiting does not block then.
    ///
    /// This counts as waiting: the result is fetched even if other results hold all of
    /// [`max_memory`](crate::ClientBuilder::max_memory).
    pub fn is_done(&self) -> bool {
        if self.is_read || self.is_elsewhere() {
            return true;
        }
        let Sent { engine, id, .. } = &self.call;
        engine.ask(false, |calls| calls.ask(*id, None)).is_ready()
    }

    /// The method that was called.
    pub fn method(&self) -> &str {
        &self.call.method
    }

    /// Withdraws the call. Its slot is free at once.
    ///
    /// A call that was not sent is never sent. A call that has not started does not start. A running function
    /// can see the cancellation in its context.
    ///
    /// Returns whether the function ran: [`Ran::No`] is certain, [`Ran::Yes`] means that its result had
    /// arrived.
    pub fn cancel(mut self) -> Ran {
        self.is_read = true;
        self.cancel_now()
    }

    /// Withdraws the call if the future is dropped before the result arrives.
    pub fn cancel_on_drop(mut self) -> CallFuture<R> {
        self.cancels = true;
        self
    }

    /// Waits for the outcome. There is none if `until` is reached first, or if this thread must not wait.
    fn wait_until(
        &mut self,
        until: Option<Instant>,
        reader: &mut Option<ReaderRole>,
        outcome: &mut Option<Outcome>,
    ) {
        let until = if on_poller_thread() { Some(Instant::now()) } else { until };
        // If the connection ends meanwhile, the call has been waited for since before the next one began, and
        // so that is read.
        let reads = reader.is_some();
        block_on_or_unwind(reader, until, |cx| self.poll_outcome(cx, reads, outcome));
        // Conversion may run user code that takes long or makes calls. Other threads can read meanwhile.
        *reader = None;
    }

    fn on_poller(&self) -> CallError {
        CallError::OnPoller { method: self.call.method.clone(), ran: Ran::Maybe }
    }

    /// Takes the outcome, if it has arrived. Otherwise takes the read role of the connection, if it is free.
    #[inline]
    fn look(&mut self, outcome: &mut Option<Outcome>) -> Result<(), Option<ReaderRole>> {
        if self.is_unreadable(outcome) {
            return Ok(());
        }
        unwind_if_interrupted();
        let Sent { engine, id, .. } = &self.call;
        let found = engine.ask_or_lead(|calls| calls.take(*id, None, outcome));
        self.is_read = found.is_ok();
        found
    }

    fn poll_outcome(&mut self, cx: &Context<'_>, reads: bool, outcome: &mut Option<Outcome>) -> Poll<()> {
        if self.is_unreadable(outcome) {
            return Poll::Ready(());
        }
        let Sent { engine, id, .. } = &self.call;
        let polled = engine.ask(reads, |calls| calls.take(*id, Some(cx), outcome));
        self.is_read = polled.is_ready();
        polled
    }

    /// Returns true in a forked process, where no result arrives. The outcome is then an error.
    #[inline(always)]
    fn is_unreadable(&mut self, outcome: &mut Option<Outcome>) -> bool {
        let is_unreadable = self.is_read || self.is_elsewhere();
        if is_unreadable {
            self.fail_unread(outcome);
        }
        is_unreadable
    }

    #[cold]
    fn fail_unread(&mut self, outcome: &mut Option<Outcome>) {
        assert!(!self.is_read, "the result of {} was taken before", self.method());
        self.is_read = true;
        *outcome = Some(Err(CallError::Forked { method: self.call.method.clone(), ran: Ran::Maybe }));
    }

    /// Converts the result to `R`. From now on its memory belongs to the user and no longer counts for the
    /// connection.
    #[inline(always)]
    fn convert(&self, outcome: Outcome) -> Result<R, CallError> {
        let method = || self.call.method.clone();
        match outcome {
            Ok(Reply { tree: Ok(tree), lease }) => {
                drop(lease);
                match R::from_tree(tree) {
                    Ok(result) => Ok(result),
                    Err(source) => Err(CallError::Reply { method: method(), source: Box::new(source) }),
                }
            }
            Ok(Reply { tree: Err(source), .. }) => {
                Err(CallError::Garbled { method: method(), source: Box::new(source) })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the read role of the connection, unless there is nothing to wait for.
    pub(crate) fn lead(&self) -> Option<ReaderRole> {
        if self.is_read || self.is_elsewhere() {
            return None;
        }
        let Sent { engine, id, .. } = &self.call;
        engine.ask_or_lead(|calls| calls.ask(*id, None)).err().flatten()
    }

    /// Returns true in a process that was forked from the call's. No result arrives there.
    #[inline]
    fn is_elsewhere(&self) -> bool {
        !self.call.engine.process.is_current()
    }

    /// Like `poll`, but does not take the result.
    pub(crate) fn poll_done(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_read || self.is_elsewhere() {
            return Poll::Ready(());
        }
        let Sent { engine, id, .. } = &self.call;
        engine.ask(!needs_wake(cx), |calls| calls.ask(*id, Some(cx)))
    }
}

impl<R> CallFuture<R> {
    fn cancel_now(&self) -> Ran {
        let Sent { engine, method, id } = &self.call;
        if !engine.process.is_current() {
            return Ran::Maybe;
        }
        let withdrawn = engine.cancel(*id, method);
        match (withdrawn, engine.drop_future(*id)) {
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
        let mut outcome = None;
        ready!(self.poll_outcome(cx, false, &mut outcome));
        outcome.map_or(Poll::Pending, |outcome| Poll::Ready(self.convert(outcome)))
    }
}

impl<R> Drop for CallFuture<R> {
    fn drop(&mut self) {
        let Sent { engine, id, .. } = &self.call;
        if self.is_read || !engine.process.is_current() {
            return;
        }
        if self.cancels {
            self.cancel_now();
        } else if let Some(Err(error)) = engine.drop_future(*id) {
            engine.report(error);
        }
    }
}
