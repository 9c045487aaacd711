//! The next timeout of each source, the earliest first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use teleport_wire::QuickHash;

/// A heap with fewer stale entries than this is not swept.
const MIN_SWEEP: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The valid time of each key. Later ones in the heap are stale.
    next: HashMap<usize, Instant, QuickHash>,
}

impl Timers {
    /// Adds a timeout of `key`. Only the earliest one of a key is valid.
    pub(super) fn add(&mut self, at: Instant, key: usize) {
        if self.next.get(&key).is_none_or(|earlier| at < *earlier) {
            self.next.insert(key, at);
            self.heap.push(Reverse((at, key)));
            if self.heap.len() > 2 * self.next.len() + MIN_SWEEP {
                self.heap = self.next.iter().map(|(key, at)| Reverse((*at, *key))).collect();
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Returns the time until the next timeout, or `None` without one.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| at.saturating_duration_since(now))
    }

    /// Removes and returns a key that is due.
    #[inline]
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        let is_due = self.heap.peek().is_some_and(|Reverse((at, _))| *at <= now);
        if is_due { self.pop_valid(now) } else { None }
    }

    #[cold]
    fn pop_valid(&mut self, now: Instant) -> Option<usize> {
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
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.pop_due(second(2)), Some(1));
        assert_eq!(timers.pop_due(second(9)), Some(2));
        assert_eq!(timers.pop_due(second(9)), None);
        assert_eq!(timers.wait(now), None);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let now = Instant::now();
        let mut timers = Timers::default();
        for second in (1..10_000).rev() {
            timers.add(now + Duration::from_secs(second), 1);
        }
        assert!(timers.heap.len() <= 2 + MIN_SWEEP);
        assert_eq!(timers.pop_due(now + Duration::from_secs(1)), Some(1));
        assert_eq!(timers.pop_due(now + Duration::from_secs(20_000)), None);
    }
}
