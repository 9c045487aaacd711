//! A call before it is sent: a builder that is waited for, sent or awaited.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use teleport_transport::wire::{FromTree, Key, Tree};
use teleport_transport::{Interrupted, ReaderRole};

use crate::api::future::CallFuture;
use crate::api::on_disconnect::OnDisconnect;
use crate::calls::pending::Request;
use crate::engine::sending::{Sent, Submission, Unsent};
use crate::engine::shared::Engine;
use crate::error::call::CallError;

/// A call that has not been sent. It does nothing until it is waited for, sent or awaited.
///
/// ```no_run
/// use std::time::Duration;
/// use teleport_client::{CallError, Client, wire::tree};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("tcp://localhost:2222")?;
/// let sum = client.call("add", tree!({"foo": 1, "bar": 2})).wait()?; // a slot and the result
/// let future = client.call("add", tree!({"foo": 1, "bar": 2})).send()?; // a slot
/// match client.call("add", tree!({"foo": 1, "bar": 2})).deadline(Duration::from_millis(20)).wait() {
///     Ok(sum) => println!("{sum}"),
///     Err(CallError::Deadline { .. }) => println!("too late"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a call that is not sent does nothing: `wait`, `send`, `try_send` or `.await` it"]
pub struct Call<R = Tree> {
    engine: Arc<Engine>,
    request: Request,
    reply: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, time, resumes, .. } = &self.request;
        f.debug_struct("Call")
            .field("method", method)
            .field("deadline", time)
            .field("resumes", resumes)
            .finish_non_exhaustive()
    }
}

impl<R: FromTree> Call<R> {
    pub(crate) fn new(engine: Arc<Engine>, method: Key, tree: Tree, on_disconnect: OnDisconnect) -> Call<R> {
        let resumes = on_disconnect == OnDisconnect::Resume;
        let request = Request { resumes, ..Request::new(method, tree) };
        Call { engine, request, reply: PhantomData }
    }

    /// Bounds the time of the call, from when it is sent, waited for or first polled. The wait for a slot
    /// counts.
    ///
    /// After this time, the call ends with [`CallError::Deadline`], its slot is free, and the server is asked
    /// to drop or stop it. The deadline is sent as a duration, so the clocks of the machines need not agree.
    /// Default: none.
    pub fn deadline(mut self, time: Duration) -> Call<R> {
        self.request.time = Some(time);
        self
    }

    /// Allows the function to run twice for this call.
    ///
    /// With [`OnDisconnect::Resume`] the call is then sent again if it is unknown whether it ran, for example
    /// after the server has restarted. For that, the client keeps the arguments until the result has arrived.
    /// Default: no.
    pub fn idempotent(mut self) -> Call<R> {
        self.request.is_idempotent = true;
        self
    }

    /// Sets what happens to the call if its connection is lost before its result arrives.
    ///
    /// Default: the setting of the [client](crate::ClientBuilder::on_disconnect).
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use teleport_client::{Client, OnDisconnect, wire::tree};
    ///
    /// let client = Client::connect("tcp://localhost:2222")?;
    /// let step = tree!({"weights": vec![0.5f32; 1000]});
    /// client.call("save", step).idempotent().on_disconnect(OnDisconnect::Resume).wait()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_disconnect(mut self, on_disconnect: OnDisconnect) -> Call<R> {
        self.request.resumes = on_disconnect == OnDisconnect::Resume;
        self
    }

    /// Sends the call and **blocks** until its result arrives.
    ///
    /// Before that, it blocks until a slot is free (`max_inflight`). Without a connection, it also blocks for
    /// up to `connect_timeout` until there is one.
    ///
    /// # Errors
    /// Returns any [`CallError`] except `Full` and a `Cancelled` by this side.
    pub fn wait(mut self) -> Result<R, CallError> {
        let mut reader = None;
        let future = match self.engine.send(&mut self.request, Some(&mut reader)) {
            Ok(id) => self.sent(id),
            Err(unsent) => self.send_later(unsent, &mut reader)?,
        };
        future.wait_with(&mut reader)
    }

    /// Sends the call and returns a future for its result.
    ///
    /// **Blocks** until a slot is free (`max_inflight`). Without a connection, it also blocks for up to
    /// `connect_timeout` until there is one. Returns when the arguments are queued. This thread sends what
    /// the socket takes at once. The arguments are shared, not copied: if the caller writes to an array that
    /// it keeps before the array is sent, the write makes a copy.
    ///
    /// A small call that is sent while others are in flight may be held back for up to a few milliseconds, so
    /// that the next calls share its write. It is sent at once when this thread waits for any result, or when
    /// any thread polls this one. A call that is held back is lost if the process ends by `exit`, or returns
    /// from `main` with a client that was neither [closed](crate::Client::close) nor dropped.
    ///
    /// # Errors
    /// Returns the errors of calls that were not sent: `TooLarge`, `Encode`, `Connect`, `Deadline`, `Closed`,
    /// `OnPoller`, `Forked`, `Earlier`. Also returns `Disconnected`, `NotAlive` or `Closing` if the
    /// connection ends at this moment.
    pub fn send(mut self) -> Result<CallFuture<R>, CallError> {
        match self.engine.send(&mut self.request, None) {
            Ok(id) => Ok(self.sent(id)),
            Err(unsent) => self.send_later(unsent, &mut None),
        }
    }

    #[inline(always)]
    fn sent(self, id: u64) -> CallFuture<R> {
        CallFuture::new(Sent { engine: self.engine, method: self.request.method, id })
    }

    /// Waits for a slot, and sends the call.
    #[cold]
    fn send_later(self, unsent: Unsent, reader: &mut Option<ReaderRole>) -> Result<CallFuture<R>, CallError> {
        match unsent {
            Unsent::Failed(error) => Err(*error),
            Unsent::NoSlot => Submission::new(self.engine, self.request).wait(reader).map(CallFuture::new),
        }
    }

    /// Sends the call as [`send`](Call::send) does, but never blocks.
    ///
    /// # Errors
    /// Returns [`CallError::Full`] if no slot is free or other calls wait for one, and [`CallError::Connect`]
    /// without a connection. Otherwise returns the errors of `send`.
    pub fn try_send(mut self) -> Result<CallFuture<R>, CallError> {
        let id = self.engine.try_send(&mut self.request)?;
        Ok(self.sent(id))
    }
}

impl<R: FromTree> IntoFuture for Call<R> {
    type Output = Result<R, CallError>;
    type IntoFuture = Running<R>;

    fn into_future(self) -> Running<R> {
        Running { stage: Stage::Submitting(Submission::new(self.engine, self.request)) }
    }
}

/// A call that is awaited: first its slot, then its result. Made by `.await` on a [`Call`].
///
/// If it is dropped before the call is sent, the call is never sent. If it is dropped later, it detaches as a
/// [`CallFuture`] does.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct Running<R> {
    stage: Stage<R>,
}

#[derive(Debug)]
enum Stage<R> {
    Submitting(Submission),
    Sent(CallFuture<R>),
}

impl<R: FromTree> Future for Running<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(interrupted) = Interrupted::poll(cx) {
            interrupted.unwind();
        }
        loop {
            match &mut self.stage {
                Stage::Sent(future) => return Pin::new(future).poll(cx),
                Stage::Submitting(submission) => {
                    let sent = ready!(submission.poll(cx))?;
                    self.stage = Stage::Sent(CallFuture::new(sent));
                }
            }
        }
    }
}
