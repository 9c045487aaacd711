//! When which link wants to look at the clock: the earliest first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use teleport_wire::QuickHash;

/// Fewer entries than this are not worth a walk.
const MIN_SWEEP: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The entry that counts for each key; later ones in the heap are passed over.
    next: HashMap<usize, Instant, QuickHash>,
}

impl Timers {
    /// Has `key` called at `at`, or earlier if that was asked for before.
    pub(super) fn add(&mut self, at: Instant, key: usize) {
        if self.next.get(&key).is_none_or(|earlier| at < *earlier) {
            self.next.insert(key, at);
            self.heap.push(Reverse((at, key)));
            self.sweep();
        }
    }

    /// Drops entries that were passed over, when they are most of the heap.
    fn sweep(&mut self) {
        if self.heap.len() > 2 * self.next.len() + MIN_SWEEP {
            self.heap = self.next.iter().map(|(key, at)| Reverse((*at, *key))).collect();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// How long nothing is due; none if nothing ever is.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| at.saturating_duration_since(now))
    }

    /// A key that is due, which it then no longer is.
    pub(super) fn due(&mut self, now: Instant) -> Option<usize> {
        while let Some(Reverse((at, key))) = self.heap.peek().copied()
            && at <= now
        {
            self.heap.pop();
            if self.next.get(&key) == Some(&at) {
                self.next.remove(&key);
                return Some(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_counts() {
        let now = Instant::now();
        let second = |n| now + Duration::from_secs(n);
        let mut timers = Timers::default();
        timers.add(second(5), 1);
        timers.add(second(3), 2);
        timers.add(second(2), 1);
        timers.add(second(9), 1);
        assert_eq!(timers.wait(now), Some(Duration::from_secs(2)));
        assert_eq!(timers.due(now), None);
        assert_eq!(timers.due(second(2)), Some(1));
        assert_eq!(timers.due(second(9)), Some(2));
        assert_eq!(timers.due(second(9)), None);
        assert_eq!(timers.wait(now), None);
    }

    #[test]
    fn entries_that_were_passed_over_do_not_pile_up() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for second in (1..10_000).rev() {
            timers.add(now + Duration::from_secs(second), 1);
        }
        assert!(timers.heap.len() <= 2 + MIN_SWEEP);
        assert_eq!(timers.due(now + Duration::from_secs(1)), Some(1));
        assert_eq!(timers.due(now + Duration::from_secs(20_000)), None);
    }
}
