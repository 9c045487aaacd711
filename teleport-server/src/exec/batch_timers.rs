//! When batches of a pool's methods are due.
//!
//! Flow: `set` (a method's next batch is due then, or there is none) -> `take` once that has come. Who waits until the `next` is
//! due sets the `alarm`. A batch that needs a place and finds none is passed over until `unblock`. Knows no calls. Bound: one
//! entry for each batched method of the pool.

use std::time::Instant;

#[derive(Debug)]
pub(crate) struct BatchTimers {
    list: Vec<BatchTimer>,
    /// The earliest time until which anybody sleeps.
    pub(crate) alarm: Option<Instant>,
}

#[derive(Debug)]
struct BatchTimer {
    at: Option<Instant>,
    needs_place: bool,
    /// It found no place.
    is_blocked: bool,
}

impl BatchTimers {
    /// For methods whose batches need a place or do not.
    pub(crate) fn new(need_places: &[bool]) -> BatchTimers {
        let due = |needs_place: &bool| BatchTimer { at: None, needs_place: *needs_place, is_blocked: false };
        BatchTimers { list: need_places.iter().map(due).collect(), alarm: None }
    }

    /// The next batch of a method is due `at` that time. True if somebody must look earlier than all who wait would.
    pub(crate) fn set(&mut self, method: usize, at: Option<Instant>) -> bool {
        let due = &mut self.list[method];
        let before = std::mem::replace(&mut due.at, at);
        let is_earlier = |than: Option<Instant>| at.is_some_and(|at| than.is_none_or(|than| at < than));
        !due.is_blocked && is_earlier(before) && is_earlier(self.alarm)
    }

    /// When the next batch is due; in the past if one was not taken.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.list.iter().filter(|due| !due.is_blocked).filter_map(|due| due.at).min()
    }

    /// The method whose batch is due first, if that time has come, with its place if it needs one. Whoever takes it sets when
    /// the next one is due.
    pub(crate) fn take<P>(&mut self, mut reserve: impl FnMut() -> Option<P>) -> Option<(usize, Option<P>)> {
        // Without a look at the clock while there is none.
        self.next()?;
        let now = Instant::now();
        while self.next()? <= now {
            let ready =
                self.list.iter_mut().enumerate().filter(|(_, due)| !due.is_blocked && due.at.is_some());
            let (method, due) = ready.min_by_key(|(_, due)| due.at)?;
            let place = if due.needs_place { reserve() } else { None };
            due.is_blocked = due.needs_place && place.is_none();
            if !due.is_blocked {
                due.at = None;
                return Some((method, place));
            }
        }
        None
    }

    /// There may be places again. True if anybody waited for one.
    pub(crate) fn unblock(&mut self) -> bool {
        let blocked = self.list.iter_mut().filter(|due| due.is_blocked);
        blocked.map(|due| due.is_blocked = false).count() > 0
    }
}
