//! The calls of one connection that may be withdrawn, except those of a session.
//!
//! Only the thread that reads the connection uses it: it adds calls that arrived and finds those that the
//! client cancels. Threads that answer calls do not use it, so calls that have ended stay until `add` removes
//! them. The references are weak: a queue owns a call that has not started, and a worker owns a running one.
//! Bound: twice the calls that the client may have open, and `MIN_ENTRIES`.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::call::open_call::OpenCall;

/// With fewer entries, those that have ended are removed only from the front.
const MIN_ENTRIES: usize = 64;

#[derive(Debug)]
pub(crate) struct OpenCalls {
    /// The ids and calls in the order of arrival.
    calls: VecDeque<(u64, Weak<OpenCall>)>,
    /// Before there are more entries, all that have ended are removed.
    max_entries: usize,
}

impl Default for OpenCalls {
    fn default() -> OpenCalls {
        OpenCalls { calls: VecDeque::new(), max_entries: MIN_ENTRIES }
    }
}

impl OpenCalls {
    pub(crate) fn add(&mut self, call: &Arc<OpenCall>) {
        while self.calls.front().is_some_and(|(_, call)| has_ended(call)) {
            self.calls.pop_front();
        }
        if self.calls.len() >= self.max_entries {
            self.calls.retain(|(_, call)| !has_ended(call));
            self.max_entries = MIN_ENTRIES.max(2 * self.calls.len());
        }
        self.calls.push_back((call.id, Arc::downgrade(call)));
    }

    /// Returns the call with this id, unless it has ended.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<OpenCall>> {
        self.calls.iter().find(|(other, _)| *other == id)?.1.upgrade()
    }

    /// Removes all calls, and returns those that have not ended.
    pub(crate) fn take(&mut self) -> Vec<Arc<OpenCall>> {
        std::mem::take(&mut self.calls).iter().filter_map(|(_, call)| call.upgrade()).collect()
    }
}

fn has_ended(call: &Weak<OpenCall>) -> bool {
    call.strong_count() == 0
}
