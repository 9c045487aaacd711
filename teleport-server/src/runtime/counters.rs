//! The counters of a server, which cost no locked operation per call.
//!
//! Flow: a thread adds to its own [`Row`] with plain stores -> [`Counters::stats`] sums all rows. A thread
//! gets its place among the rows when it first counts, and returns it when it ends. Never waits. Bound:
//! `MAX_PLACES` rows; the threads that find no place share one more row.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::stats::Stats;

/// Pollers and workers of the usual servers all get a place.
const MAX_PLACES: usize = 64;

/// The places in use by threads of this process, one bit each. A thread that takes a place sees what its
/// earlier owner has counted: `Release` when it is returned, `Acquire` when it is taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// A thread has not looked for a place yet.
const UNKNOWN: usize = usize::MAX;

thread_local! {
    /// The place of this thread: an index of a row, or `MAX_PLACES` if it has none. Without a destructor, so
    /// that reading it is one load.
    static PLACE: Cell<usize> = const { Cell::new(UNKNOWN) };
    /// Returns the place when the thread ends.
    static OWNER: PlaceOwner = const { PlaceOwner };
}

struct PlaceOwner;

impl Drop for PlaceOwner {
    fn drop(&mut self) {
        let place = PLACE.replace(MAX_PLACES);
        if place < MAX_PLACES {
            TAKEN.fetch_and(!(1 << place), Ordering::Release);
        }
    }
}

/// Takes the first place that is free.
#[cold]
fn take_place() -> usize {
    let first_free = |taken: u64| (taken != u64::MAX).then(|| taken | (taken + 1));
    // While a thread ends, its owner is gone, and nothing would return its place.
    let is_owned = OWNER.try_with(|_| ()).is_ok();
    let before = is_owned.then(|| TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, first_free));
    let place = before.and_then(Result::ok).map_or(MAX_PLACES, |taken| taken.trailing_ones() as usize);
    PLACE.set(place);
    place
}

/// A number that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Calls,
    Answered,
    Failed,
    Refused,
    Running,
    Clients,
}

const KINDS: usize = 6;

/// The numbers of one thread. Others only read them, so adding needs no locked operation. Each number stands
/// alone, so the memory order is relaxed.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Row([AtomicU64; KINDS]);

/// The counters behind [`Stats`].
#[derive(Debug)]
pub(crate) struct Counters {
    /// By the places of threads.
    own: [Row; MAX_PLACES],
    /// Of all threads that have no place.
    others: Row,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { own: std::array::from_fn(|_| Row::default()), others: Row::default() }
    }
}

/// The row of the current thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountersHere<'a> {
    row: &'a Row,
    is_shared: bool,
}

impl CountersHere<'_> {
    pub(crate) fn add(self, counted: Counted) {
        self.add_many(counted, 1);
    }

    pub(crate) fn take_back(self, counted: Counted) {
        self.take_back_many(counted, 1);
    }

    pub(crate) fn add_many(self, counted: Counted, count: usize) {
        let number = &self.row.0[counted as usize];
        if self.is_shared {
            number.fetch_add(count as u64, Ordering::Relaxed);
        } else {
            number.store(number.load(Ordering::Relaxed).wrapping_add(count as u64), Ordering::Relaxed);
        }
    }

    /// Subtracts. Another thread may have added the same, so a row may be negative.
    pub(crate) fn take_back_many(self, counted: Counted, count: usize) {
        self.add_many(counted, count.wrapping_neg());
    }
}

impl Counters {
    /// Returns the row of this thread.
    pub(crate) fn here(&self) -> CountersHere<'_> {
        let mut place = PLACE.get();
        if place == UNKNOWN {
            place = take_place();
        }
        match self.own.get(place) {
            Some(row) => CountersHere { row, is_shared: false },
            None => CountersHere { row: &self.others, is_shared: true },
        }
    }

    /// Returns the sum of all rows. While threads count, it may miss an addition whose subtraction it sees,
    /// but it is never negative.
    pub(crate) fn sum(&self, counted: Counted) -> u64 {
        let rows = self.own.iter().chain([&self.others]);
        let sum =
            rows.fold(0u64, |sum, row| sum.wrapping_add(row.0[counted as usize].load(Ordering::Relaxed)));
        if sum > i64::MAX as u64 { 0 } else { sum }
    }

    pub(crate) fn clients(&self) -> usize {
        self.sum(Counted::Clients) as usize
    }

    /// Returns statistics with these counters.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            calls: self.sum(Counted::Calls),
            answered: self.sum(Counted::Answered),
            failed: self.sum(Counted::Failed),
            refused: self.sum(Counted::Refused),
            running: self.sum(Counted::Running) as usize,
            clients: self.clients(),
            ..Stats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn sums_are_exact_with_more_threads_than_places() {
        const THREADS: usize = 2 * MAX_PLACES;
        let (counters, all_count) = (Counters::default(), Barrier::new(THREADS));
        let count = || {
            // All threads have taken their place, or found none, before the first one ends.
            counters.here().add(Counted::Calls);
            all_count.wait();
            for _ in 0..1000 {
                counters.here().add(Counted::Calls);
                counters.here().add_many(Counted::Running, 3);
                counters.here().take_back_many(Counted::Running, 2);
                counters.here().take_back(Counted::Running);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(counters.sum(Counted::Calls), THREADS as u64 * 1001);
        assert_eq!(counters.sum(Counted::Running), 0);
        assert!(counters.others.0[0].load(Ordering::Relaxed) >= 64 * 1001, "some threads share a row");
        // The threads have ended, so their places are free.
        let place = std::thread::spawn(take_place).join().unwrap();
        assert!(place < MAX_PLACES);
    }

    #[test]
    fn one_thread_may_take_back_what_another_added() {
        let counters = Counters::default();
        counters.here().add_many(Counted::Clients, 2);
        std::thread::scope(|scope| drop(scope.spawn(|| counters.here().take_back(Counted::Clients))));
        assert_eq!(counters.clients(), 1);
        counters.here().take_back_many(Counted::Clients, 5);
        assert_eq!(counters.clients(), 0, "what is seen too early does not make it negative");
    }
}
