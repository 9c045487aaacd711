//! Calls of one connection that may not start, since too many of its results wait to be sent.
//!
//! Flow: `park` (a call's turn came too early) -> `take_all` (enough results have gone) -> the calls go back to where they
//! came from, in the order in which their caller made them (a later one that a worker has taken by then starts first); or
//! `remove` (one was withdrawn), `expire` (their time is over), or `close` (none starts any more). Never runs or answers a call. Bound: the calls that the connection may have open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::call::OpenCall;

#[derive(Debug, Default)]
pub(crate) struct Throttled {
    state: Mutex<State>,
    /// How many there are, for those who only want to know whether there are any.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// By id: so they start in their order, whichever workers took them.
    calls: BTreeMap<u64, Arc<OpenCall>>,
    closed: bool,
}

impl Throttled {
    /// Keeps a call if it `must_wait`, or if others are kept already, which come first. Whoever keeps one has to see to it
    /// that all are taken again.
    pub(crate) fn park(&self, call: &Arc<OpenCall>, must_wait: impl FnOnce() -> bool) -> Throttle {
        let mut state = self.state.lock();
        if state.calls.is_empty() && !must_wait() {
            return Throttle::Starts;
        }
        if state.closed {
            return Throttle::Closed;
        }
        state.calls.insert(call.id, call.clone());
        self.count.store(state.calls.len(), Ordering::SeqCst);
        Throttle::Kept
    }

    /// All of them, in their order.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = Arc<OpenCall>> + use<> {
        let mut state = self.state.lock();
        self.count.store(0, Ordering::SeqCst);
        std::mem::take(&mut state.calls).into_values()
    }

    /// Takes out the calls whose time is over at `now`, and gives the earliest deadline of the rest.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<Arc<OpenCall>>, Option<Instant>) {
        let mut state = self.state.lock();
        let late = state.calls.values().filter(|call| call.is_late(now)).cloned().collect::<Vec<_>>();
        late.iter().for_each(|call| drop(state.calls.remove(&call.id)));
        self.count.store(state.calls.len(), Ordering::SeqCst);
        (late, state.calls.values().filter_map(|call| call.deadline).min())
    }

    /// True if the call was one of them.
    pub(crate) fn remove(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let was_there = state.calls.remove(&id).is_some();
        self.count.store(state.calls.len(), Ordering::SeqCst);
        was_there
    }

    /// Keeps none from now on, and gives those that were.
    pub(crate) fn close(&self) -> impl Iterator<Item = Arc<OpenCall>> + use<> {
        let mut state = self.state.lock();
        state.closed = true;
        self.count.store(0, Ordering::SeqCst);
        std::mem::take(&mut state.calls).into_values()
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Whether a call may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Throttle {
    Starts,
    Kept,
    /// Too many results wait, and the server is closing.
    Closed,
}
