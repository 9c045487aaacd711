//! Done functions: the logs of all logged methods, on one thread, in the order in which workers took the
//! calls.
//!
//! Flow: a worker reserves a [`LogSlot`] when it takes a call -> fills it with the logs when the function
//! has returned, or drops it -> the done thread takes the logs in the order of slots. Bound: `max_slots`,
//! twice the workers. If no slot is free, a logged call waits in its queue while other calls pass it.

use std::collections::HashMap;
use std::mem;
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

/// The order of the logs that no done function has taken.
#[derive(Debug)]
pub(crate) struct LogOrder {
    slots: Mutex<Slots>,
    changed: Condvar,
    max_slots: usize,
}

#[derive(Debug, Default)]
struct Slots {
    /// The number of the next slot to take. Earlier slots are finished.
    first: u64,
    /// The number of the next slot to be reserved.
    next: u64,
    /// Slots between those whose calls have ended, with their logs, if any.
    ended: HashMap<u64, Option<Logs>>,
    /// The done thread is working on the logs that it took last.
    is_busy: bool,
    is_closed: bool,
}

impl Slots {
    fn len(&self) -> usize {
        (self.next - self.first) as usize + usize::from(self.is_busy)
    }
}

/// A call's place in the order of logs.
#[derive(Debug)]
pub(crate) struct LogSlot {
    number: u64,
    order: Arc<LogOrder>,
}

impl LogOrder {
    /// Creates an order with twice as many slots as there are workers.
    pub(crate) fn new(workers: usize) -> Arc<LogOrder> {
        let max_slots = 2 * workers.max(1);
        Arc::new(LogOrder { slots: Mutex::default(), changed: Condvar::new(), max_slots })
    }

    /// Reserves the next slot, if one is free.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<LogSlot> {
        let mut slots = self.slots.lock();
        if slots.len() >= self.max_slots {
            return None;
        }
        slots.next += 1;
        Some(LogSlot { number: slots.next - 1, order: self.clone() })
    }

    /// Returns how many slots are in use.
    pub(crate) fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// Waits for the next logs in order. Returns `None` once the order is closed and no call with a slot
    /// runs.
    /// Ends the work on the logs that the caller took before. Calls `freed` without the lock when slots have
    /// become free.
    /// have become free.
    pub(crate) fn next(&self, freed: impl Fn()) -> Option<Logs> {
        let mut slots = self.slots.lock();
        let mut has_freed = mem::take(&mut slots.is_busy);
        loop {
            let first = slots.first;
            if let Some(logs) = slots.ended.remove(&first) {
                slots.first += 1;
                if logs.is_none() {
                    has_freed = true;
                    continue;
                }
                slots.is_busy = true;
                if has_freed {
                    MutexGuard::unlocked(&mut slots, &freed);
                }
                return logs;
            } else if mem::take(&mut has_freed) {
                MutexGuard::unlocked(&mut slots, &freed);
            } else if slots.is_closed && slots.first == slots.next {
                return None;
            } else {
                self.changed.wait(&mut slots);
            }
        }
    }

    /// Closes the order: no more calls start. The logs of running calls are still taken.
    pub(crate) fn close(&self) {
        self.slots.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Closes the order, and ignores calls that have not returned.
    pub(crate) fn abandon(&self) {
        let mut slots = self.slots.lock();
        slots.is_closed = true;
        slots.first = slots.next;
        slots.ended.clear();
        drop(slots);
        self.changed.notify_all();
    }

    fn end(&self, number: u64, logs: Option<Logs>) {
        let mut slots = self.slots.lock();
        if number >= slots.first {
            slots.ended.entry(number).or_insert(logs);
            drop(slots);
            self.changed.notify_all();
        }
    }
}

impl LogSlot {
    /// Leaves the call's logs for the done function.
    pub(crate) fn fill(self, logs: Logs) {
        self.order.end(self.number, Some(logs));
    }
}

impl Drop for LogSlot {
    fn drop(&mut self) {
        // Changes nothing if the slot was filled.
        self.order.end(self.number, None);
    }
}

#[cfg(test)]
mod tests {
    use teleport_transport::wire::tree;

    use super::*;

    fn logs(number: i64) -> Logs {
        Logs { done: 0, tree: tree!(number) }
    }

    fn next(order: &LogOrder) -> Option<i64> {
        order.next(|| {}).map(|logs| logs.tree.as_array().unwrap().item::<i64>().unwrap())
    }

    #[test]
    fn logs_come_in_the_order_of_slots() {
        let order = LogOrder::new(2);
        let [first, second, third] = std::array::from_fn(|_| order.reserve().unwrap());
        third.fill(logs(3));
        second.fill(logs(2));
        first.fill(logs(1));
        order.close();
        assert_eq!(
            [next(&order), next(&order), next(&order), next(&order)],
            [Some(1), Some(2), Some(3), None]
        );
    }

    #[test]
    fn slots_are_bounded_and_come_back() {
        let order = LogOrder::new(1);
        let (first, second) = (order.reserve().unwrap(), order.reserve().unwrap());
        assert!(order.reserve().is_none());
        second.fill(logs(2));
        drop(first);
        assert!(order.reserve().is_none(), "the done function has not taken the logs");
        assert_eq!(next(&order), Some(2));
        let third = order.reserve().unwrap();
        assert!(order.reserve().is_none(), "the done function works on the second");
        third.fill(logs(3));
        assert_eq!(next(&order), Some(3));
        assert_eq!(order.len(), 1);
    }

    #[test]
    fn abandoned_slots_are_ignored() {
        let order = LogOrder::new(1);
        let slot = order.reserve().unwrap();
        order.abandon();
        slot.fill(logs(1));
        assert_eq!(next(&order), None);
        assert_eq!(order.len(), 0);
    }
}
