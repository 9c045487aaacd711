//! The calls of one connection that may be withdrawn, except those of a session.
//!
//! Only the thread that reads the connection uses it: it adds calls that arrived and finds those that the
//! client cancels. Threads that answer calls do not use it, so calls that have ended stay until `add` removes
//! them. The references are weak: a queue owns a call that has not started, and a worker owns a running one.
//! Bound: twice the calls that the client may have open, and `MIN_ENTRIES`.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};

/// With fewer entries, only the oldest calls are removed when they have ended.
const MIN_ENTRIES: usize = 64;

#[derive(Debug)]
pub(crate) struct OpenCalls<C> {
    /// The ids and calls in the order in which the calls were complete, which is not that of ids: a large
    /// call may be complete after a later small one. Cancels are rare, so they look at each.
    calls: VecDeque<(u64, Weak<C>)>,
    /// Before there are more entries, all that have ended are removed.
    max_entries: usize,
}

impl<C> Default for OpenCalls<C> {
    fn default() -> OpenCalls<C> {
        OpenCalls { calls: VecDeque::new(), max_entries: MIN_ENTRIES }
    }
}

impl<C> OpenCalls<C> {
    pub(crate) fn add(&mut self, id: u64, call: &Arc<C>) {
        while self.calls.front().is_some_and(|(_, call)| has_ended(call)) {
            self.calls.pop_front();
        }
        if self.calls.len() >= self.max_entries {
            self.calls.retain(|(_, call)| !has_ended(call));
            self.max_entries = MIN_ENTRIES.max(2 * self.calls.len());
        }
        self.calls.push_back((id, Arc::downgrade(call)));
    }

    /// Returns the call with this id, unless it has ended.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<C>> {
        self.calls.iter().find(|(other, _)| *other == id)?.1.upgrade()
    }

    /// Removes all calls, and returns those that have not ended.
    pub(crate) fn take(&mut self) -> Vec<Arc<C>> {
        mem::take(&mut self.calls).into_iter().filter_map(|(_, call)| call.upgrade()).collect()
    }
}

fn has_ended<C>(call: &Weak<C>) -> bool {
    call.strong_count() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_have_ended_are_not_found_and_take_no_memory() {
        let mut open = OpenCalls::default();
        // The oldest call and every hundredth do not end.
        let mut kept = Vec::new();
        for id in 1..10_000u64 {
            let call = Arc::new(id);
            open.add(id, &call);
            assert_eq!(open.find(id), Some(call.clone()));
            if id % 100 == 1 {
                kept.push(call);
            }
            assert!(open.calls.len() <= MIN_ENTRIES.max(2 * kept.len() + 2));
        }
        assert_eq!((open.find(102), open.find(20_000)), (None, None));
        assert_eq!(open.find(101).as_ref(), Some(&kept[1]));
        assert_eq!(open.take(), kept);
        assert!(open.take().is_empty());
    }

    #[test]
    fn calls_that_were_complete_out_of_order_are_found() {
        let mut open = OpenCalls::default();
        let calls: Vec<_> = [5, 9, 2, 7, 1].into_iter().map(Arc::new).collect();
        calls.iter().for_each(|id| open.add(**id, id));
        assert!(calls.iter().all(|id| open.find(**id).as_ref() == Some(id)));
        assert_eq!(open.find(3), None);
    }
}
