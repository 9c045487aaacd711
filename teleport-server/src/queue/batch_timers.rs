//! Knows when the next batch of each batched method of a pool is due.
//!
//! Flow: `set` (the method's next batch is due at a time, or it has none) -> `take` once that time has come.
//! A batch that needs a slot and finds none is blocked until `unblock`. Knows no calls. Bound: one entry for
//! each batched method.

use std::time::Instant;

#[derive(Debug)]
pub(crate) struct BatchTimers {
    timers: Vec<BatchTimer>,
    /// The earliest time of all that are not blocked.
    next: Option<Instant>,
    /// The earliest time at which a sleeping worker wakes up by itself.
    pub(crate) next_wakeup: Option<Instant>,
}

#[derive(Clone, Debug)]
struct BatchTimer {
    due: Option<Instant>,
    needs_slot: bool,
    /// True if it found no slot.
    is_blocked: bool,
}

impl BatchTimers {
    /// Makes a timer for each method, which says whether its batches need a slot.
    pub(crate) fn new(need_slots: &[bool]) -> BatchTimers {
        let timer = |needs_slot: &bool| BatchTimer { due: None, needs_slot: *needs_slot, is_blocked: false };
        BatchTimers { timers: need_slots.iter().map(timer).collect(), next: None, next_wakeup: None }
    }

    /// Sets when the next batch of a method is due. Returns true if no sleeping worker wakes up by then.
    pub(crate) fn set(&mut self, method: usize, due: Option<Instant>) -> bool {
        let timer = &mut self.timers[method];
        let before = std::mem::replace(&mut timer.due, due);
        let is_earlier = |than: Option<Instant>| due.is_some_and(|due| than.is_none_or(|than| due < than));
        let wakes = !timer.is_blocked && is_earlier(before) && is_earlier(self.next_wakeup);
        self.update();
        wakes
    }

    /// Returns when the next batch is due, blocked ones left out.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    fn update(&mut self) {
        let unblocked = self.timers.iter().filter(|timer| !timer.is_blocked);
        self.next = unblocked.filter_map(|timer| timer.due).min();
    }

    /// Takes the method whose batch is due first, with a slot if it needs one. The caller sets when its next
    /// one is due.
    #[inline]
    pub(crate) fn take<P>(&mut self, mut reserve: impl FnMut() -> Option<P>) -> Option<(usize, Option<P>)> {
        // Most often there is none, and the clock need not be read.
        self.next?;
        let taken = self.take_due(Instant::now(), &mut reserve);
        self.update();
        taken
    }

    #[inline(never)]
    fn take_due<P>(
        &mut self,
        now: Instant,
        reserve: &mut impl FnMut() -> Option<P>,
    ) -> Option<(usize, Option<P>)> {
        loop {
            let timers = self.timers.iter_mut().enumerate().filter(|(_, timer)| !timer.is_blocked);
            let is_due = |timer: &BatchTimer| timer.due.is_some_and(|due| due <= now);
            let (method, timer) =
                timers.filter(|(_, timer)| is_due(timer)).min_by_key(|(_, timer)| timer.due)?;
            let slot = if timer.needs_slot { reserve() } else { None };
            timer.is_blocked = timer.needs_slot && slot.is_none();
            if !timer.is_blocked {
                timer.due = None;
                return Some((method, slot));
            }
        }
    }

    /// Lets blocked batches try again. Returns false if there are none.
    pub(crate) fn unblock(&mut self) -> bool {
        let blocked = self.timers.iter_mut().filter(|timer| timer.is_blocked);
        let any = blocked.map(|timer| timer.is_blocked = false).count() > 0;
        self.update();
        any
    }
}
