//! A call that was sent: its outcome, and the future that waits for it.
//!
//! Flow: sent -> `complete` (by the thread that reads the connection, the timer, or the end of the client) ->
//! `poll` (by the future). Dropping the future releases the call, and its error is then reported.
//!
//! Never runs a waker under its lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::wire::{CallHead, Key, Limits, Message, Ran, Tree};
use teleport_transport::{Reply, Wakers, drop_later};

use crate::calls::deferred_results::Demand;
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

/// A call that was sent. Its future shares it.
#[derive(Debug)]
pub(crate) struct PendingCall {
    pub(crate) method: Key,
    pub(crate) deadline: Option<Deadline>,
    /// The call survives its connection.
    pub(crate) resumes: bool,
    /// The call survives its connection and may run twice. It is sent again if it is unknown whether it ran.
    pub(crate) is_idempotent: bool,
    cell: Mutex<Cell>,
}

#[derive(Debug)]
struct Cell {
    /// Changes when the call is sent to a new server.
    id: u64,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    demand: Demand,
    /// Kept to send the call again: until the server has them or, if the call is idempotent, until the
    /// outcome.
    arguments: Option<Tree>,
}

/// The result of asking for an outcome.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    Ready(T),
    /// There is no outcome yet. The id is that of a deferred result, which the caller must fetch.
    Pending {
        deferred: Option<u64>,
    },
}

impl PendingCall {
    pub(crate) fn new(request: &Request, deadline: Option<Deadline>) -> PendingCall {
        let resumes = request.resumes;
        let arguments = resumes.then(|| request.tree.clone());
        let cell = Cell { id: 0, outcome: None, waker: None, demand: Demand::new(), arguments };
        PendingCall {
            method: request.method.clone(),
            deadline,
            resumes,
            is_idempotent: resumes && request.is_idempotent,
            cell: Mutex::new(cell),
        }
    }

    /// Encodes the call for a server with these limits, with the rest of its time.
    pub(crate) fn encode(&self, tree: &Tree, limits: &Limits) -> Result<Message, CallError> {
        let left = self.deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
        if let Some(deadline) = self.deadline.filter(|_| left.is_some_and(|left| left.is_zero())) {
            return Err(deadline.error(&self.method, Ran::No));
        }
        let (idempotent, resume) = (self.is_idempotent, self.resumes);
        let head = CallHead { deadline: left, idempotent, resume, ..CallHead::new(&self.method) };
        Message::call(&head, tree, limits).map_err(|error| CallError::encode(self.method.clone(), error))
    }

    /// Returns the id under which it was last sent.
    pub(crate) fn id(&self) -> u64 {
        self.cell.lock().id
    }

    pub(crate) fn set_id(&self, id: u64) {
        self.cell.lock().id = id;
    }

    #[cfg(test)]
    pub(crate) fn with_id(mut self, id: u64) -> PendingCall {
        self.cell.get_mut().id = id;
        self
    }

    /// Returns the arguments, if the call can be sent again.
    pub(crate) fn arguments(&self) -> Option<Tree> {
        self.cell.lock().arguments.clone()
    }

    /// Drops the arguments, because the server has them. An idempotent call keeps them, for another server.
    pub(crate) fn arrived(&self) {
        if self.resumes && !self.is_idempotent {
            let arguments = self.cell.lock().arguments.take();
            drop_later(arguments);
        }
    }

    /// Keeps the outcome for the future. Returns it if the future is gone, or if there is an outcome already.
    pub(crate) fn complete(
        &self,
        outcome: Outcome,
        waiters: &Waiters,
        wakers: &mut Wakers,
    ) -> Option<Outcome> {
        let mut cell = self.cell.lock();
        if !cell.demand.has_future() || cell.outcome.is_some() {
            return Some(outcome);
        }
        cell.outcome = Some(outcome);
        if let Some(waker) = cell.waker.take() {
            waiters.leave();
            wakers.push(waker);
        }
        None
    }

    /// Takes the outcome. If there is none yet, `cx` is woken when it arrives.
    pub(crate) fn poll(&self, waiters: &Waiters, cx: &Context<'_>) -> Asked<Outcome> {
        let mut cell = self.cell.lock();
        match cell.outcome.take() {
            Some(outcome) => {
                cell.demand.release();
                Asked::Ready(outcome)
            }
            None => cell.wait(waiters, cx),
        }
    }

    /// Does the same as `poll`, but does not take the outcome.
    pub(crate) fn poll_done(&self, waiters: &Waiters, cx: &Context<'_>) -> Asked<()> {
        let mut cell = self.cell.lock();
        if cell.outcome.is_some() { Asked::Ready(()) } else { cell.wait(waiters, cx) }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.cell.lock().outcome.is_some()
    }

    /// Does the same as `poll_done`, but registers no waker.
    pub(crate) fn ask(&self) -> Asked<()> {
        let mut cell = self.cell.lock();
        if cell.outcome.is_some() { Asked::Ready(()) } else { cell.ask() }
    }

    /// Releases the outcome, which is not read any more. Returns it if it has arrived, and the id of a
    /// deferred result, which the caller must fetch.
    pub(crate) fn release(&self, waiters: &Waiters) -> (Option<Outcome>, Option<u64>) {
        let mut cell = self.cell.lock();
        if cell.waker.take().is_some() {
            waiters.leave();
        }
        let deferred = cell.demand.release().then_some(cell.id);
        (cell.outcome.take(), deferred)
    }

    /// Returns true if its result is accepted without memory for it. Otherwise the result is deferred.
    pub(crate) fn accepts(&self) -> bool {
        self.cell.lock().demand.accepts()
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.cell.lock().demand.is_deferred()
    }

    /// Returns true if a caller waits for the outcome now and waited at the last check.
    pub(crate) fn waits_long(&self) -> bool {
        let mut cell = self.cell.lock();
        cell.outcome.is_none() && cell.demand.waits_long()
    }

    pub(crate) fn has_future(&self) -> bool {
        self.cell.lock().demand.has_future()
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        // They may own memory of the user, and a link's lock may be held here.
        if let Some(arguments) = self.cell.get_mut().arguments.take() {
            drop_later(arguments);
        }
    }
}

impl Cell {
    fn ask<T>(&mut self) -> Asked<T> {
        Asked::Pending { deferred: self.demand.ask().then_some(self.id) }
    }

    fn wait<T>(&mut self, waiters: &Waiters, cx: &Context<'_>) -> Asked<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                waiters.join();
                self.waker = Some(cx.waker().clone());
            }
        }
        self.ask()
    }
}

/// Counts the waiters for answers to a client's calls: futures that are waited for, and calls in the queue
/// for a slot.
#[derive(Debug, Default)]
pub(crate) struct Waiters(AtomicUsize);

impl Waiters {
    // Sequentially consistent with a thread that stops reading: either it sees the waiter, or the waiter sees
    // that nobody reads.
    pub(crate) fn join(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
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

    fn pending() -> PendingCall {
        PendingCall::new(&Request::plain(), None)
    }

    fn error() -> Outcome {
        Err(CallError::Full { method: Key::from_static("act"), max_inflight: 1 })
    }

    fn is_pending<T>(asked: &Asked<T>) -> bool {
        matches!(asked, Asked::Pending { .. })
    }

    #[test]
    fn the_first_outcome_counts() {
        let (call, waiters, mut wakers) = (pending(), Waiters::default(), Wakers::default());
        let cx = Context::from_waker(Waker::noop());
        assert!(is_pending(&call.poll(&waiters, &cx)) && !call.is_done());
        assert!(call.complete(error(), &waiters, &mut wakers).is_none());
        assert!(call.complete(error(), &waiters, &mut wakers).is_some());
        assert!(!is_pending(&call.poll_done(&waiters, &cx)) && call.is_done());
        assert!(!is_pending(&call.poll(&waiters, &cx)));
    }

    #[test]
    fn an_outcome_without_a_future_is_returned() {
        let (call, waiters, mut wakers) = (pending(), Waiters::default(), Wakers::default());
        assert!(call.release(&waiters).0.is_none() && !call.has_future());
        assert!(call.complete(error(), &waiters, &mut wakers).is_some());
        let call = pending();
        assert!(call.complete(error(), &waiters, &mut wakers).is_none());
        assert!(call.release(&waiters).0.is_some());
    }

    #[test]
    fn waiters_count_until_the_outcome_is_there_or_unwanted() {
        let (waiters, mut wakers) = (Waiters::default(), Wakers::default());
        let cx = Context::from_waker(Waker::noop());
        let (first, second) = (pending(), pending());
        for _ in 0..2 {
            assert!(is_pending(&first.poll(&waiters, &cx)) && is_pending(&second.poll_done(&waiters, &cx)));
        }
        assert!(first.complete(error(), &waiters, &mut wakers).is_none() && waiters.any());
        assert!(second.release(&waiters).0.is_none() && !waiters.any());
        assert!(first.release(&waiters).0.is_some() && !waiters.any());
    }

    #[test]
    fn a_deferred_result_is_fetched_by_the_first_that_asks() {
        fn deferred<T>(asked: Asked<T>) -> Option<u64> {
            match asked {
                Asked::Ready(_) => panic!("it has not come"),
                Asked::Pending { deferred } => deferred,
            }
        }
        let cx = Context::from_waker(Waker::noop());
        let asks: [fn(&PendingCall, &Context<'_>) -> Option<u64>; 4] = [
            |call, cx| deferred(call.poll(&Waiters::default(), cx)),
            |call, cx| deferred(call.poll_done(&Waiters::default(), cx)),
            |call, _| deferred(call.ask()),
            |call, _| call.release(&Waiters::default()).1,
        ];
        for ask in asks {
            let call = pending().with_id(7);
            assert!(!call.accepts() && call.is_deferred());
            assert_eq!(ask(&call, &cx), Some(7));
            assert_eq!(ask(&call, &cx), None);
            let call = pending();
            assert_eq!(ask(&call, &cx), None);
            assert!(call.accepts() && !call.is_deferred());
        }
    }

    #[test]
    fn deadlines_past_the_clock_are_none() {
        assert!(Deadline::after(Duration::MAX, Instant::now()).is_none());
    }
}
