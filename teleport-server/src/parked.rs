//! Calls of one connection that may not start, since too many of its results wait to be sent.
//!
//! Flow: `park` (a call's turn came too early) -> `take_all` (enough results have gone) -> the calls go back to where they
//! came from, in the order in which their caller made them (a later one that a worker has taken by then starts first); or
//! `remove` (one was withdrawn), or `close` (none starts any more). Never runs or answers a call. Bound: the calls that the connection may have open.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::call::OpenCall;

#[derive(Debug, Default)]
pub(crate) struct Parked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By id: so they start in their order, whichever workers took them.
    calls: BTreeMap<u64, Arc<OpenCall>>,
    closed: bool,
}

impl Parked {
    /// Keeps a call if it `must_wait`, or if others are kept already, which come first. Whoever keeps one has to see to it
    /// that all are taken again.
    pub(crate) fn park(&self, call: &Arc<OpenCall>, must_wait: impl FnOnce() -> bool) -> Verdict {
        let mut state = self.0.lock();
        if state.calls.is_empty() && !must_wait() {
            return Verdict::Starts;
        }
        if state.closed {
            return Verdict::Closed;
        }
        state.calls.insert(call.id, call.clone());
        Verdict::Kept
    }

    /// All of them, in their order.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = Arc<OpenCall>> + use<> {
        std::mem::take(&mut self.0.lock().calls).into_values()
    }

    /// True if the call was one of them.
    pub(crate) fn remove(&self, id: u64) -> bool {
        self.0.lock().calls.remove(&id).is_some()
    }

    /// Keeps none from now on, and gives those that were.
    pub(crate) fn close(&self) -> impl Iterator<Item = Arc<OpenCall>> + use<> {
        let mut state = self.0.lock();
        state.closed = true;
        std::mem::take(&mut state.calls).into_values()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().calls.len()
    }
}

/// Whether a call may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Starts,
    Kept,
    /// Too many results wait, and the server is closing.
    Closed,
}
