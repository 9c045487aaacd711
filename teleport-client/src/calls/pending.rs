//! One call on its way: where its outcome is put, and who waits for it.
//!
//! Flow: sent -> `complete` (from the thread that reads the connection, the timer, or whoever ends the connection) ->
//! `poll` (from the future). A future that is dropped lets go; then an error is reported instead.
//!
//! A result for which there is no room asks `must_come`, which a future answers that was polled, or is gone. Else it stays at
//! the server, and the first poll finds `take_deferred` true. Both stand under one lock, so that one of them sees the other.
//! Never runs a waker under its lock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::wire::{Key, Ran, Tree};
use teleport_transport::{Reply, Wakers, drop_later};

use crate::error::call::CallError;

pub(crate) type Outcome = Result<Reply, CallError>;

/// When a call's time is over, and how long it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) time: Duration,
}

impl Deadline {
    /// None for a time so long that no clock reaches its end.
    pub(crate) fn after(time: Duration, now: Instant) -> Option<Deadline> {
        Some(Deadline { at: now.checked_add(time)?, time })
    }

    pub(crate) fn error(self, method: &Key, ran: Ran) -> CallError {
        CallError::Deadline { method: method.clone(), time: Some(self.time), reason: String::new(), ran }
    }
}

/// Which call of which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) connection: usize,
    pub(crate) id: u64,
}

/// What a call and its future share.
#[derive(Debug)]
pub(crate) struct PendingCall {
    pub(crate) method: Key,
    pub(crate) deadline: Option<Deadline>,
    /// Of a call that survives its connection.
    survival: Option<Survival>,
    /// None until it was sent; another one when it goes on on the next connection.
    place: Mutex<Option<Place>>,
    cell: Mutex<Cell>,
    /// The result waits at the server, and nobody has sent for it. Set under the cell's lock; what is read after that lock
    /// was held needs it no more.
    deferred: AtomicBool,
}

/// What it takes to send a call again.
#[derive(Debug)]
pub(crate) struct Survival {
    /// It may run twice.
    pub(crate) is_idempotent: bool,
    /// Until the server has them; of one that may run twice, until it has its answer.
    arguments: Mutex<Option<Tree>>,
}

impl Survival {
    pub(crate) fn new(is_idempotent: bool, arguments: Tree) -> Survival {
        Survival { is_idempotent, arguments: Mutex::new(Some(arguments)) }
    }

    /// They may be the last that holds a user's memory, and a link's lock may be held here.
    fn let_go(&self) {
        let arguments = self.arguments.lock().take();
        if let Some(arguments) = arguments {
            drop_later(arguments);
        }
    }
}

impl Drop for Survival {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[derive(Debug)]
struct Cell {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    /// Whether a future will read the outcome.
    held: bool,
    /// Whether somebody asked for the outcome before it came.
    awaited: bool,
    /// Whether `waits_long` found it awaited before.
    seen_awaited: bool,
}

impl PendingCall {
    pub(crate) fn new(method: Key, deadline: Option<Deadline>, survival: Option<Survival>) -> PendingCall {
        let cell =
            Mutex::new(Cell { outcome: None, waker: None, held: true, awaited: false, seen_awaited: false });
        let (place, deferred) = (Mutex::new(None), AtomicBool::new(false));
        PendingCall { method, deadline, survival, place, cell, deferred }
    }

    /// Before others know of it.
    pub(crate) fn placed(mut self, place: Place) -> PendingCall {
        *self.place.get_mut() = Some(place);
        self
    }

    /// Where it is under way, or was last.
    pub(crate) fn place(&self) -> Option<Place> {
        *self.place.lock()
    }

    pub(crate) fn set_place(&self, place: Place) {
        *self.place.lock() = Some(place);
    }

    /// Whether it survives its connection.
    pub(crate) fn resumes(&self) -> bool {
        self.survival.is_some()
    }

    /// Whether it may run twice, and so be sent again where nobody knows whether it ran.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.survival.as_ref().is_some_and(|survival| survival.is_idempotent)
    }

    /// What to send again; none once the server has it.
    pub(crate) fn arguments(&self) -> Option<Tree> {
        self.survival.as_ref()?.arguments.lock().clone()
    }

    /// Whether it can be sent again.
    pub(crate) fn has_arguments(&self) -> bool {
        self.survival.as_ref().is_some_and(|survival| survival.arguments.lock().is_some())
    }

    /// The server has the arguments. A call that may run twice keeps them, for another server.
    pub(crate) fn arrived(&self) {
        if let Some(survival) = self.survival.as_ref().filter(|survival| !survival.is_idempotent) {
            survival.let_go();
        }
    }

    /// Keeps the outcome for the future; gives it back if there is none any more. A second outcome is given back too:
    /// the first one counts.
    pub(crate) fn complete(
        &self,
        outcome: Outcome,
        waiting: &Waiting,
        wakers: &mut Wakers,
    ) -> Option<Outcome> {
        let mut cell = self.cell.lock();
        if !cell.held || cell.outcome.is_some() {
            return Some(outcome);
        }
        cell.outcome = Some(outcome);
        if let Some(waker) = cell.waker.take() {
            waiting.less();
            wakers.push(waker);
        }
        None
    }

    /// Takes the outcome, or has `cx` woken when it comes.
    pub(crate) fn poll(&self, waiting: &Waiting, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut cell = self.cell.lock();
        match cell.outcome.take() {
            Some(outcome) => {
                cell.held = false;
                Poll::Ready(outcome)
            }
            None => {
                cell.wait(waiting, cx);
                Poll::Pending
            }
        }
    }

    /// As `poll`, but leaves the outcome where it is.
    pub(crate) fn poll_done(&self, waiting: &Waiting, cx: &mut Context<'_>) -> Poll<()> {
        let mut cell = self.cell.lock();
        if cell.outcome.is_some() {
            return Poll::Ready(());
        }
        cell.wait(waiting, cx);
        Poll::Pending
    }

    pub(crate) fn is_done(&self) -> bool {
        self.cell.lock().outcome.is_some()
    }

    /// Whether the result is to be taken though there is no room for it: somebody waits for it, or nobody ever will, and it
    /// is dropped as soon as it has come. If not, it is deferred.
    pub(crate) fn must_come(&self) -> bool {
        let cell = self.cell.lock();
        let must_come = cell.awaited || !cell.held;
        self.deferred.store(!must_come, Ordering::Relaxed);
        must_come
    }

    /// Somebody waits for the outcome.
    pub(crate) fn expect(&self) {
        self.cell.lock().awaited = true;
    }

    /// Whether somebody has waited for it since this was last asked.
    pub(crate) fn waits_long(&self) -> bool {
        let mut cell = self.cell.lock();
        let awaited = cell.awaited && cell.held && cell.outcome.is_none();
        std::mem::replace(&mut cell.seen_awaited, awaited) && awaited
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred.load(Ordering::Relaxed)
    }

    /// Whether the result was deferred. True once: the caller, for whom `poll`, `expect` or `release` came first, sends for it.
    pub(crate) fn take_deferred(&self) -> bool {
        self.deferred.load(Ordering::Relaxed) && self.deferred.swap(false, Ordering::Relaxed)
    }

    /// Whether a future waits for it, or has it.
    pub(crate) fn is_held(&self) -> bool {
        self.cell.lock().held
    }

    /// The future is gone. Gives the outcome that it did not read.
    pub(crate) fn release(&self, waiting: &Waiting) -> Option<Outcome> {
        let mut cell = self.cell.lock();
        cell.held = false;
        if cell.waker.take().is_some() {
            waiting.less();
        }
        cell.outcome.take()
    }
}

impl Cell {
    fn wait(&mut self, waiting: &Waiting, cx: &Context<'_>) {
        self.awaited = true;
        if self.waker.is_none() {
            waiting.more();
        }
        keep_waker(&mut self.waker, cx);
    }
}

/// How many wait for answers to a client's calls: futures that are waited for, and calls that stand in line for a slot.
#[derive(Debug, Default)]
pub(crate) struct Waiting(AtomicUsize);

impl Waiting {
    // Sequentially consistent with a driver that leaves: it sees who waits, or is seen to have left.
    pub(crate) fn more(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn less(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

/// Has `cx` woken through `slot`, without cloning a waker that is there already.
pub(crate) fn keep_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight() -> PendingCall {
        PendingCall::new(Key::from_static("act"), None, None)
    }

    fn error() -> Outcome {
        Err(CallError::Full { method: Key::from_static("act"), max_inflight: 1 })
    }

    #[test]
    fn the_first_outcome_counts() {
        let (flight, waiting, mut wakers) = (flight(), Waiting::default(), Wakers::default());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(flight.poll(&waiting, &mut cx).is_pending() && !flight.is_done());
        assert!(flight.complete(error(), &waiting, &mut wakers).is_none());
        assert!(flight.complete(error(), &waiting, &mut wakers).is_some());
        assert!(flight.poll_done(&waiting, &mut cx).is_ready() && flight.is_done());
        assert!(flight.poll(&waiting, &mut cx).is_ready());
    }

    #[test]
    fn an_outcome_without_a_future_is_given_back() {
        let (flight, waiting, mut wakers) = (flight(), Waiting::default(), Wakers::default());
        assert!(flight.release(&waiting).is_none() && !flight.is_held());
        assert!(flight.complete(error(), &waiting, &mut wakers).is_some());
        let flight = self::flight();
        assert!(flight.complete(error(), &waiting, &mut wakers).is_none());
        assert!(flight.release(&waiting).is_some());
    }

    #[test]
    fn who_waits_is_counted_until_the_outcome_is_there_or_nobody_wants_it() {
        let (waiting, mut wakers) = (Waiting::default(), Wakers::default());
        let mut cx = Context::from_waker(Waker::noop());
        let (first, second) = (flight(), flight());
        for _ in 0..2 {
            assert!(
                first.poll(&waiting, &mut cx).is_pending()
                    && second.poll_done(&waiting, &mut cx).is_pending()
            );
        }
        assert!(first.complete(error(), &waiting, &mut wakers).is_none() && waiting.any());
        assert!(second.release(&waiting).is_none() && !waiting.any());
        assert!(first.release(&waiting).is_some() && !waiting.any());
    }

    #[test]
    fn a_deferred_result_is_sent_for_by_whoever_asks_first() {
        let mut cx = Context::from_waker(Waker::noop());
        let asks: [fn(&PendingCall, &mut Context<'_>); 4] = [
            |flight, cx| drop(flight.poll(&Waiting::default(), cx)),
            |flight, cx| assert!(flight.poll_done(&Waiting::default(), cx).is_pending()),
            |flight, _| flight.expect(),
            |flight, _| drop(flight.release(&Waiting::default())),
        ];
        for ask in asks {
            let flight = flight();
            assert!(!flight.take_deferred());
            assert!(!flight.must_come());
            ask(&flight, &mut cx);
            assert!(flight.take_deferred() && !flight.take_deferred());
            let flight = self::flight();
            ask(&flight, &mut cx);
            assert!(flight.must_come() && !flight.take_deferred());
        }
    }

    #[test]
    fn deadlines_past_the_clock_are_none() {
        assert!(Deadline::after(Duration::MAX, Instant::now()).is_none());
    }
}
