//! A call that was sent, until its outcome was read or nothing more arrives for it.
//!
//! Flow: sent -> an outcome (from the thread that reads the connection, the timer, or the end of the client)
//! -> the future takes it. A call whose future was dropped goes with its answer.
//!
//! It is in the [table](crate::calls::table::CallTable), under the lock of the client's state. So it never
//! drops a value of the user and never runs a waker: it moves them to [`Released`] or to `Wakers`.

use std::task::Waker;
use std::time::{Duration, Instant};

use teleport_transport::Reply;
use teleport_transport::wire::{CallHead, Key, Limits, Message, Ran, Tree};

use crate::calls::deferred_results::Demand;
use crate::calls::in_doubt::InDoubt;
use crate::error::call::CallError;

pub(crate) type Outcome = Result<Reply, CallError>;

/// The end of a call's time, and its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) time: Duration,
}

impl Deadline {
    /// Returns `None` if no clock can reach the end of `time`.
    pub(crate) fn after(time: Duration, now: Instant) -> Option<Deadline> {
        Some(Deadline { at: now.checked_add(time)?, time })
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
    pub(crate) is_idempotent: bool,
    /// The call survives its connection.
    pub(crate) resumes: bool,
}

impl Request {
    /// Returns the deadline of the call, whose time starts now.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        Deadline::after(self.time?, Instant::now())
    }

    /// Encodes the call for a server with these limits. `left` is the rest of the time until `deadline`.
    pub(crate) fn encode(
        &self,
        deadline: Option<Deadline>,
        left: Duration,
        limits: &Limits,
    ) -> Result<Message, CallError> {
        if let Some(deadline) = deadline.filter(|_| left.is_zero()) {
            return Err(deadline.error(&self.method, Ran::No));
        }
        let (resume, idempotent) = (self.resumes, self.resumes && self.is_idempotent);
        let deadline = deadline.map(|_| left);
        let head = CallHead { deadline, idempotent, resume, ..CallHead::new(&self.method) };
        Message::call(&head, &self.tree, limits)
            .map_err(|error| CallError::encode(self.method.clone(), error))
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
    /// Creates the call that is sent as `id`. Takes the arguments out of `request` if they may be sent again.
    pub(crate) fn new(request: &mut Request, deadline: Option<Deadline>, id: u64) -> PendingCall {
        let resumes = request.resumes;
        PendingCall {
            method: request.method.clone(),
            deadline,
            resumes,
            is_idempotent: resumes && request.is_idempotent,
            stage: Stage::Sent,
            demand: Demand::new(),
            outcome: None,
            waker: None,
            arguments: resumes.then(|| std::mem::replace(&mut request.tree, Tree::Null)),
            first_id: id,
        }
    }

    /// Creates a call that was given up, and whose answer the server keeps.
    pub(crate) fn forgotten(id: u64) -> PendingCall {
        let method = Key::from_static("");
        let mut request =
            Request { method, tree: Tree::Null, time: None, is_idempotent: false, resumes: true };
        let mut call = PendingCall::new(&mut request, None, id);
        call.demand.release();
        PendingCall { stage: Stage::Withdrawn, arguments: None, ..call }
    }

    /// Returns what is needed to send the call again, or `None` if the arguments are gone.
    pub(crate) fn request(&self) -> Option<(Request, Option<Deadline>)> {
        let (method, tree) = (self.method.clone(), self.arguments.clone()?);
        let (is_idempotent, resumes) = (self.is_idempotent, self.resumes);
        Some((Request { method, tree, time: None, is_idempotent, resumes }, self.deadline))
    }

    /// Returns true if the call holds a slot.
    pub(crate) fn is_in_flight(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::InDoubt(_))
    }
}

/// Values that the state no longer needs, to be dropped or reported once it is unlocked: both may run code of
/// the user.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// Outcomes that no future reads.
    pub(crate) outcomes: Vec<Outcome>,
    /// Arguments of calls that are not sent again.
    pub(crate) arguments: Vec<Tree>,
    /// Wakers that wait for nothing any more.
    pub(crate) wakers: Vec<Waker>,
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Request {
        /// A call that does not survive its connection.
        pub(crate) fn plain() -> Request {
            let method = Key::from_static("act");
            Request { method, tree: Tree::Null, time: None, is_idempotent: false, resumes: false }
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
