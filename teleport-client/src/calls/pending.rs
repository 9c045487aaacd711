//! A call that was sent, until its outcome was read or nothing more arrives for it.
//!
//! Flow: sent -> an outcome (from the thread that reads the connection, the timer, or the end of the client)
//! -> the future takes it. A call whose future was dropped goes with its answer.
//!
//! It is in the [table](crate::calls::table::CallTable), under the lock of the client's state. So it never
//! drops a value of the user and never runs a waker: it moves them to [`Released`] or to `Wakers`, or returns
//! them.

use std::task::Waker;
use std::time::{Duration, Instant};

use teleport_transport::wire::{CallHead, Draft, EncodeError, Key, Limits, Message, Ran, RemoteError, Tree};
use teleport_transport::{DropScope, Reply, Wakers, drop_later};

use crate::calls::deferred_results::Demand;
use crate::calls::in_doubt::InDoubt;
use crate::error::call::CallError;

pub(crate) type Outcome = Result<Reply, CallError>;

/// The end of a call's time, and its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) time: Duration,
    /// The call is being withdrawn because its time is over. An error of the server may come from that, and
    /// may arrive first.
    pub(crate) is_over: bool,
}

impl Deadline {
    /// Returns `None` if no clock can reach the end of `time`.
    pub(crate) fn after(time: Duration, now: Instant) -> Option<Deadline> {
        Some(Deadline { at: now.checked_add(time)?, time, is_over: false })
    }

    pub(crate) fn error(self, method: &Key, ran: Ran) -> CallError {
        CallError::Deadline { method: method.clone(), time: Some(self.time), reason: String::new(), ran }
    }
}

/// The caller's description of a call.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Key,
    pub(crate) tree: Tree,
    /// The time limit of the call.
    pub(crate) time: Option<Duration>,
    /// The end of that time, once it has started.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) is_idempotent: bool,
    /// The call survives its connection.
    pub(crate) resumes: bool,
}

impl Request {
    pub(crate) fn new(method: Key, tree: Tree) -> Request {
        Request { method, tree, time: None, deadline: None, is_idempotent: false, resumes: false }
    }

    /// Starts the time of the call, unless it has started. Returns all of it if it starts now.
    pub(crate) fn start(&mut self) -> Option<Duration> {
        let time = self.time.filter(|_| self.deadline.is_none())?;
        self.deadline = Deadline::after(time, Instant::now());
        self.deadline.map(|deadline| deadline.time)
    }

    /// Returns the rest of the time of the call.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()))
    }

    /// Describes the call for a server with these limits. `left` is the rest of its time, if that is limited.
    #[inline]
    pub(crate) fn draft<'a>(&'a self, left: Option<Duration>, limits: &'a Limits) -> Draft<'a> {
        let (resume, idempotent) = (self.resumes, self.resumes && self.is_idempotent);
        let head = CallHead { deadline: left, idempotent, resume, ..CallHead::new(&self.method) };
        Draft::call(&head, &self.tree, limits)
    }

    /// Encodes the call.
    pub(crate) fn encode(&self, left: Option<Duration>, limits: &Limits) -> Result<Message, Box<CallError>> {
        self.check_time(left)?;
        self.draft(left, limits).encode().map_err(|error| self.not_encoded(error))
    }

    /// Returns an error if no time is left.
    #[inline]
    pub(crate) fn check_time(&self, left: Option<Duration>) -> Result<(), Box<CallError>> {
        if left == Some(Duration::ZERO) { Err(self.overdue()) } else { Ok(()) }
    }

    #[cold]
    fn overdue(&self) -> Box<CallError> {
        let (method, ran) = (self.method.clone(), Ran::No);
        Box::new(CallError::Deadline { method, time: self.time, reason: String::new(), ran })
    }

    #[cold]
    fn not_encoded(&self, error: EncodeError) -> Box<CallError> {
        Box::new(CallError::encode(self.method.clone(), error))
    }
}

/// How far a call is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Sent on the current connection, and not answered.
    Sent,
    /// Given up. It holds no slot, but its answer will still arrive.
    Withdrawn,
    /// Waits for a connection that reports its state.
    InDoubt(Box<InDoubt>),
    /// Nothing more arrives for it. Its future has not read the outcome.
    Over,
}

#[derive(Debug)]
pub(crate) struct PendingCall {
    pub(crate) method: Key,
    pub(crate) deadline: Option<Deadline>,
    /// The call survives its connection.
    pub(crate) resumes: bool,
    /// The call survives its connection and may run twice. It is sent again if it is unknown whether it ran.
    pub(crate) is_idempotent: bool,
    pub(crate) stage: Stage,
    pub(crate) demand: Demand,
    /// Invariant: only with a future, and not while the call is sent or in doubt.
    pub(crate) outcome: Option<Outcome>,
    /// Invariant: only with a future and without an outcome.
    pub(crate) waker: Option<Waker>,
    /// Kept to send the call again: until the server has them or, if the call is idempotent, until the
    /// outcome.
    pub(crate) arguments: Option<Tree>,
    /// The id under which its future knows it: the first one. It changes when the call is sent to another
    /// server.
    pub(crate) first_id: u64,
}

impl PendingCall {
    /// Creates a call that is sent as `id`.
    #[inline]
    pub(crate) fn new(method: Key, id: u64) -> PendingCall {
        PendingCall {
            method,
            deadline: None,
            resumes: false,
            is_idempotent: false,
            stage: Stage::Sent,
            demand: Demand::new(),
            outcome: None,
            waker: None,
            arguments: None,
            first_id: id,
        }
    }

    /// Notes what is needed beyond a plain call. Takes the arguments out of `request` if they may be sent
    /// again.
    #[inline]
    pub(crate) fn keep(&mut self, request: &mut Request) {
        if request.deadline.is_some() {
            self.deadline = request.deadline;
        }
        if request.resumes {
            self.resumes = true;
            self.is_idempotent = request.is_idempotent;
            self.arguments = Some(std::mem::take(&mut request.tree));
        }
    }

    /// Creates a call that was given up, and whose answer the server keeps.
    pub(crate) fn forgotten(id: u64) -> PendingCall {
        let mut call = PendingCall::new(Key::from_static(""), id);
        call.demand.release();
        PendingCall { stage: Stage::Withdrawn, resumes: true, ..call }
    }

    /// Returns what is needed to send the call again, or `None` if the arguments are gone.
    pub(crate) fn request(&self) -> Option<Request> {
        let Self { is_idempotent, resumes, deadline, .. } = *self;
        let time = deadline.map(|deadline| deadline.time);
        let (method, tree) = (self.method.clone(), self.arguments.clone()?);
        Some(Request { method, tree, time, deadline, is_idempotent, resumes })
    }

    /// Ends a call, before it gets its outcome. Returns false if no future reads that.
    #[inline]
    pub(crate) fn end(&mut self, waiting: &mut usize, wakers: &mut Wakers, released: &mut Released) -> bool {
        released.drop_arguments(&mut self.arguments);
        if let Some(waker) = self.waker.take() {
            *waiting -= 1;
            wakers.push(waker);
        }
        self.demand.has_future()
    }

    /// Returns the error of a call that the server answered with one.
    #[cold]
    pub(crate) fn remote(&self, error: RemoteError) -> CallError {
        match self.deadline.filter(|deadline| deadline.is_over) {
            Some(deadline) => deadline.error(&self.method, error.ran),
            None => CallError::remote(self.method.clone(), error),
        }
    }

    /// Returns true if nobody needs anything of the call.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over) && !self.demand.has_future()
    }

    /// Returns true if the call holds a slot.
    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::InDoubt(_))
    }
}

/// Values that the state no longer needs, to be dropped or reported once it is unlocked: both may run code of
/// the user.
#[derive(Debug)]
pub(crate) struct Released {
    /// Outcomes that no future reads.
    pub(crate) outcomes: Vec<Outcome>,
    /// Drops arguments when it ends.
    _scope: DropScope,
}

impl Released {
    /// Creates it before the state is locked.
    #[inline]
    pub(crate) fn new() -> Released {
        Released { outcomes: Vec::new(), _scope: DropScope::enter() }
    }

    /// Drops arguments later, because their call is not sent again.
    #[inline]
    pub(crate) fn drop_arguments(&mut self, arguments: &mut Option<Tree>) {
        if let Some(arguments) = arguments.take() {
            drop_later(arguments);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Request {
        /// A call that does not survive its connection.
        pub(crate) fn plain() -> Request {
            Request::new(Key::from_static("act"), Tree::Null)
        }

        pub(crate) fn surviving(is_idempotent: bool) -> Request {
            Request { resumes: true, is_idempotent, ..Request::plain() }
        }
    }

    #[test]
    fn deadlines_past_the_clock_are_none() {
        assert!(Deadline::after(Duration::MAX, Instant::now()).is_none());
    }
}
