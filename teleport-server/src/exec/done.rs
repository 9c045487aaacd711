//! Done functions: the logs of all logged methods, on one thread, in the order in which workers took the calls.
//!
//! Flow: a worker reserves a [`LogSlot`] when it takes a call -> fills it with the logs when the function has returned, or
//! drops it when there are none -> the done thread takes the places in their order. Bound: `max_places`, twice the
//! workers; a logged call that finds no slot left waits in its queue, while other calls go past it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use teleport_transport::wire::Tree;

/// Logs for one of the done functions.
#[derive(Debug)]
pub(crate) struct Logs {
    /// The number of the done function.
    pub(crate) done: usize,
    pub(crate) tree: Tree,
}

#[derive(Debug)]
enum Slot {
    /// The call runs.
    Running,
    Filled(Logs),
    /// The call gave no logs.
    Empty,
}

/// Calls whose logs a done function has not had yet.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
    max_places: usize,
}

#[derive(Debug, Default)]
struct State {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// Whether the done thread works on the logs of a slot that is no longer there.
    busy: bool,
    closed: bool,
}

/// A call's turn in the order of logs.
#[derive(Debug)]
pub(crate) struct LogSlot {
    number: u64,
    ledger: Arc<Ledger>,
}

impl Ledger {
    /// A ledger for twice as many calls as there are workers.
    pub(crate) fn new(workers: usize) -> Arc<Ledger> {
        let max_places = 2 * workers.max(1);
        Arc::new(Ledger { state: Mutex::default(), changed: Condvar::new(), max_places })
    }

    /// The next slot, if there is one left.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<LogSlot> {
        let mut state = self.state.lock();
        (state.waiting() < self.max_places).then(|| {
            state.slots.push_back(Slot::Running);
            LogSlot { number: state.first + state.slots.len() as u64 - 1, ledger: self.clone() }
        })
    }

    /// Calls that wait for the done function, or run and will.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting()
    }

    /// Waits for the next logs in order; none once the ledger is closed and no call runs any more. Asking means that the
    /// logs given before are done with. `freed` is called, without the lock, when places have become free.
    pub(crate) fn next(&self, freed: impl Fn()) -> Option<Logs> {
        let mut state = self.state.lock();
        let mut any_free = std::mem::take(&mut state.busy);
        loop {
            any_free |= state.drop_empty();
            if std::mem::take(&mut any_free) {
                MutexGuard::unlocked(&mut state, &freed);
                continue;
            }
            match state.slots.front() {
                Some(Slot::Filled(_)) => return state.take_filled(),
                None if state.closed => return None,
                _ => self.changed.wait(&mut state),
            }
        }
    }

    /// No more calls start. Those that run still bring their logs.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Gives up on calls that do not return.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.first += state.slots.len() as u64;
        state.slots.clear();
        drop(state);
        self.changed.notify_all();
    }

    fn settle(&self, number: u64, with: Slot) {
        let mut state = self.state.lock();
        // A slot that was abandoned lies before the first.
        if let Some(index) = number.checked_sub(state.first)
            && let Some(slot) = state.slots.get_mut(index as usize)
            && matches!(slot, Slot::Running)
        {
            *slot = with;
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.slots.len() + usize::from(self.busy)
    }

    /// Passes over calls that gave no logs; true if there were any.
    fn drop_empty(&mut self) -> bool {
        let before = self.first;
        while matches!(self.slots.front(), Some(Slot::Empty)) {
            self.slots.pop_front();
            self.first += 1;
        }
        self.first > before
    }

    fn take_filled(&mut self) -> Option<Logs> {
        self.first += 1;
        self.busy = true;
        match self.slots.pop_front() {
            Some(Slot::Filled(logs)) => Some(logs),
            _ => None,
        }
    }
}

impl LogSlot {
    /// Leaves the call's logs for the done function.
    pub(crate) fn fill(self, logs: Logs) {
        self.ledger.settle(self.number, Slot::Filled(logs));
    }
}

impl Drop for LogSlot {
    fn drop(&mut self) {
        // Does nothing if the slot was filled.
        self.ledger.settle(self.number, Slot::Empty);
    }
}

#[cfg(test)]
mod tests {
    use teleport_transport::wire::tree;

    use super::*;

    fn logs(number: i64) -> Logs {
        Logs { done: 0, tree: tree!(number) }
    }

    fn next(ledger: &Ledger) -> Option<i64> {
        ledger.next(|| {}).map(|logs| logs.tree.as_array().unwrap().item::<i64>().unwrap())
    }

    #[test]
    fn logs_come_in_the_order_of_places() {
        let ledger = Ledger::new(2);
        let [first, second, third] = std::array::from_fn(|_| ledger.reserve().unwrap());
        third.fill(logs(3));
        second.fill(logs(2));
        first.fill(logs(1));
        ledger.close();
        assert_eq!(
            [next(&ledger), next(&ledger), next(&ledger), next(&ledger)],
            [Some(1), Some(2), Some(3), None]
        );
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let ledger = Ledger::new(1);
        let (first, second) = (ledger.reserve().unwrap(), ledger.reserve().unwrap());
        assert!(ledger.reserve().is_none());
        second.fill(logs(2));
        drop(first);
        assert!(ledger.reserve().is_none(), "the done function has not had the logs yet");
        assert_eq!(next(&ledger), Some(2));
        let third = ledger.reserve().unwrap();
        assert!(ledger.reserve().is_none(), "the done function works on the second");
        third.fill(logs(3));
        assert_eq!(next(&ledger), Some(3));
        assert_eq!(ledger.waiting(), 1);
    }

    #[test]
    fn the_abandoned_come_to_nothing() {
        let ledger = Ledger::new(1);
        let slot = ledger.reserve().unwrap();
        ledger.abandon();
        slot.fill(logs(1));
        assert_eq!(next(&ledger), None);
        assert_eq!(ledger.waiting(), 0);
    }
}
