//! A call before it is sent: a builder that blocks, fails or awaits where there is no free slot.
//!
//! Flow: [`Call`] -> `Submission` (a slot, then the link) -> [`CallFuture`]. Blocking and awaiting are the same poll
//! function, so both stand in the same line.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use teleport_transport::wire::{FromTree, Key, Ran, Tree};
use teleport_transport::{Driver, Interrupted, Link, block_on_or_unwind, on_poller_thread};

use crate::api::future::CallFuture;
use crate::api::on_disconnect::OnDisconnect;
use crate::calls::pending::{Deadline, PendingCall};
use crate::calls::slot::{OpenConnection, SlotWaiter};
use crate::calls::state::Acquired;
use crate::engine::shared::{Engine, Request, Unsent};
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
        let Request { method, deadline, on_disconnect, .. } = &self.request;
        f.debug_struct("Call")
            .field("method", method)
            .field("deadline", deadline)
            .field("on_disconnect", on_disconnect)
            .finish_non_exhaustive()
    }
}

impl<R: FromTree> Call<R> {
    pub(crate) fn new(engine: Arc<Engine>, method: Key, tree: Tree) -> Call<R> {
        let on_disconnect = engine.settings.on_disconnect;
        let request = Request { method, tree, deadline: None, is_idempotent: false, on_disconnect };
        Call { engine, request, reply: PhantomData }
    }

    /// Gives the call so much time, from when it is sent, waited for or first polled: waiting for a slot counts.
    ///
    /// When it is over, the call ends with [`CallError::Deadline`], its slot is free, and the server is told to drop or
    /// stop it. It travels as a duration, so the machines' clocks need not agree. Default: none.
    pub fn deadline(mut self, time: Duration) -> Call<R> {
        self.request.deadline = Some(time);
        self
    }

    /// Says that the function may run twice for this call: with [`OnDisconnect::Resume`] it is sent again where nobody can
    /// tell any more whether it ran, as when the server has restarted; the client keeps the arguments for that until the
    /// result has come. Default: no.
    pub fn idempotent(mut self) -> Call<R> {
        self.request.is_idempotent = true;
        self
    }

    /// What becomes of the call if its connection is lost before its result came. Default: what the
    /// [client](crate::ClientBuilder::on_disconnect) was built with, [`OnDisconnect::Fail`] unless told otherwise.
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
        self.request.on_disconnect = on_disconnect;
        self
    }

    /// Sends the call and **blocks** until its result comes; first, if need be, until a slot is free (`max_inflight`),
    /// and where there is no connection, for up to `connect_timeout` until there is one.
    ///
    /// # Errors
    /// Any [`CallError`] but `Full` and `Cancelled` by this side.
    pub fn wait(self) -> Result<R, CallError> {
        // Taken before the call is sent, so that the poller does not read the answer first.
        let mut driver = self.engine.driver();
        self.send_with(&mut driver)?.wait_with(&mut driver)
    }

    /// Sends the call and gives a future for its result. **Blocks** until a slot is free (`max_inflight`), and where
    /// there is no connection, for up to `connect_timeout` until there is one.
    ///
    /// Returns when the arguments are queued; what the socket takes at once is sent by this thread. They are counted,
    /// not copied, so an array that is kept costs a copy when it is written to before it has left.
    ///
    /// A small call that is sent while others are in flight may be held back for up to a few milliseconds, so that those which
    /// follow go with it; it leaves at once when this thread waits for any result, or anybody looks for this one's. What has
    /// not left is lost where the process ends by `exit` or returns from `main` with a client that was neither
    /// [closed](crate::Client::close) nor dropped.
    ///
    /// # Errors
    /// Those of calls that were not sent: `TooLarge`, `Encode`, `Connect`, `Deadline`, `Closed`, `OnPoller`, `Forked`, `Earlier`;
    /// `Disconnected`, `NotAlive` and `Closing` if the connection ends in this moment.
    pub fn send(self) -> Result<CallFuture<R>, CallError> {
        self.send_with(&mut None)
    }

    fn send_with(self, driver: &mut Option<Driver>) -> Result<CallFuture<R>, CallError> {
        let mut submission = Submission::new(self.engine, self.request);
        let flight = submission.wait(driver)?;
        Ok(CallFuture::new(submission.engine.clone(), flight))
    }

    /// As [`send`](Call::send), but never blocks.
    ///
    /// # Errors
    /// [`CallError::Full`] if no slot is free, or others wait for one; [`CallError::Connect`] if there is no connection;
    /// otherwise as for `send`.
    pub fn try_send(self) -> Result<CallFuture<R>, CallError> {
        let deadline = self.request.deadline.and_then(|time| Deadline::after(time, Instant::now()));
        self.engine.check_home(&self.request.method, Ran::No)?;
        let door = self.engine.try_acquire(&self.request)?;
        match self.engine.launch(&door, &self.request, deadline) {
            Ok(flight) => Ok(CallFuture::new(self.engine, flight)),
            Err(Unsent::Failed(error)) => Err(error),
            Err(Unsent::Again) => {
                Err(self.engine.state.lock().not_connected(&self.request.method, Duration::ZERO))
            }
        }
    }
}

/// Awaits a free slot and then the result, on any executor, without blocking it. The call is sent at the first poll that
/// finds a slot.
impl<R: FromTree> IntoFuture for Call<R> {
    type Output = Result<R, CallError>;
    type IntoFuture = Running<R>;

    fn into_future(self) -> Running<R> {
        Running { stage: Stage::Submitting(Submission::new(self.engine, self.request)) }
    }
}

/// A call that is awaited: first its slot, then its result. Made by `.await` on a [`Call`].
///
/// Dropped before the call was sent, it is never sent; dropped after that, it detaches as a [`CallFuture`] does.
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
                    let flight = std::task::ready!(submission.poll(cx))?;
                    let future = CallFuture::new(submission.engine.clone(), flight);
                    self.stage = Stage::Sent(future);
                }
            }
        }
    }
}

/// A call on its way to a slot.
struct Submission {
    engine: Arc<Engine>,
    request: Request,
    /// Whether the time of the call has begun to count, and when it is over.
    deadline: Option<Option<Deadline>>,
    pass: Option<Arc<SlotWaiter<Arc<Link>>>>,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits = self.pass.is_some();
        f.debug_struct("Submission").field("method", &self.request.method).field("waits", &waits).finish()
    }
}

impl Submission {
    fn new(engine: Arc<Engine>, request: Request) -> Submission {
        Submission { engine, request, deadline: None, pass: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<PendingCall>, CallError>> {
        self.engine.check_home(&self.request.method, Ran::No)?;
        let time = self.request.deadline;
        let deadline =
            *self.deadline.get_or_insert_with(|| time.and_then(|time| Deadline::after(time, Instant::now())));
        loop {
            let door = std::task::ready!(self.poll_slot(deadline, cx))?;
            match self.engine.launch(&door, &self.request, deadline) {
                Ok(flight) => return Poll::Ready(Ok(flight)),
                Err(Unsent::Failed(error)) => return Poll::Ready(Err(error)),
                Err(Unsent::Again) => {}
            }
        }
    }

    fn poll_slot(
        &mut self,
        deadline: Option<Deadline>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Arc<OpenConnection<Arc<Link>>>, CallError>> {
        if self.pass.is_none() {
            match self.engine.acquire(&self.request, deadline) {
                Ok(Acquired::Now(door)) => return Poll::Ready(Ok(door)),
                Ok(Acquired::Later(pass)) => self.stand_in_line(pass),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let Some(pass) = &self.pass else { return Poll::Pending };
        let polled = pass.poll(cx);
        if polled.is_pending() {
            self.engine.look_for_answers();
        } else {
            self.leave_line();
        }
        polled
    }

    /// Answers free slots: whoever stands in line waits for them.
    fn stand_in_line(&mut self, pass: Arc<SlotWaiter<Arc<Link>>>) {
        self.engine.waiting.more();
        self.pass = Some(pass);
    }

    fn leave_line(&mut self) -> Option<Arc<SlotWaiter<Arc<Link>>>> {
        let pass = self.pass.take()?;
        self.engine.waiting.less();
        Some(pass)
    }

    fn wait(&mut self, driver: &mut Option<Driver>) -> Result<Arc<PendingCall>, CallError> {
        if driver.is_none() {
            if let Poll::Ready(sent) = self.poll(&mut Context::from_waker(Waker::noop())) {
                return sent;
            }
            // Slots come free as answers come: whoever waits for one reads.
            *driver = self.engine.driver();
        }
        // A poller's thread may send, but not wait until it can.
        let until = on_poller_thread().then(Instant::now);
        block_on_or_unwind(driver, until, |cx| self.poll(cx))
            .unwrap_or_else(|| Err(CallError::OnPoller { method: self.request.method.clone(), ran: Ran::No }))
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some(pass) = self.leave_line()
            && self.engine.fork_guard.is_current()
        {
            self.engine.leave(&pass);
        }
    }
}
