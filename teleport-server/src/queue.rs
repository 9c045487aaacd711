//! Calls that wait for a worker of one pool, in the order in which they came.
//!
//! Flow: `push` (from pollers) -> `take` (workers, who wait here while there is nothing) -> the worker runs it. Some calls
//! need a place before they may start (logged ones); while there is none they are set aside, others go past them, and
//! they start in their order. Calls that were withdrawn meanwhile are passed over, and swept out when there are many, so
//! that calls which come and are withdrawn again fill no memory.
//! Bound: at most as many as all clients have open, and as many dead ones again.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Below this, sweeping is not worth a walk.
const MIN_SWEEP: usize = 64;

/// A queue of calls.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Something may be taken, or the queue was closed.
    changed: Condvar,
    kind: Kind<T>,
}

/// What the queue asks about a call.
#[derive(Debug)]
pub(crate) struct Kind<T> {
    /// Whether it still wants to run.
    pub(crate) is_alive: fn(&T) -> bool,
    /// Whether it needs a place to start.
    pub(crate) needs_place: fn(&T) -> bool,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// Calls that found no place, in their order. Invariant: each needs one, and starts before all in `waiting` that do.
    aside: VecDeque<T>,
    /// About how many in both are dead.
    dead: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(crate) fn new(kind: Kind<T>) -> Queue<T> {
        let state = State { waiting: VecDeque::new(), aside: VecDeque::new(), dead: 0, closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), kind }
    }

    /// Adds a call; gives it back if the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.waiting.push_back(item);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Puts calls, in their order, before all that wait; gives them back if the queue is closed.
    pub(crate) fn push_first(&self, items: Vec<T>) -> Result<(), Vec<T>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(items);
        }
        items.into_iter().rev().for_each(|item| state.waiting.push_front(item));
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for the next call that may start, and gives it with its place if it needs one; none once the queue is
    /// closed. `reserve` runs under the queue's lock, so places are in the order in which calls are taken.
    pub(crate) fn take<P>(&self, mut reserve: impl FnMut() -> Option<P>) -> Option<(T, Option<P>)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(taken) = state.next(&self.kind, &mut reserve) {
                // Whoever was woken for what waits may have taken what was set aside instead.
                if taken.1.is_some() && !state.waiting.is_empty() {
                    self.changed.notify_one();
                }
                return Some(taken);
            }
            self.changed.wait(&mut state);
        }
    }

    /// There may be a place now.
    pub(crate) fn try_again(&self) {
        // Under the lock, so that workers which have just found none wait before they are woken.
        let state = self.state.lock();
        if !state.aside.is_empty() {
            self.changed.notify_all();
        }
    }

    /// One of those that wait has died.
    pub(crate) fn one_died(&self) {
        let mut state = self.state.lock();
        state.dead += 1;
        if state.dead >= MIN_SWEEP && state.dead * 2 > state.len() {
            state.waiting.retain(self.kind.is_alive);
            state.aside.retain(self.kind.is_alive);
            state.dead = 0;
        }
    }

    /// Lets all workers go, and gives what they did not take.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.closed = true;
        let State { aside, waiting, .. } = &mut *state;
        let left = aside.drain(..).chain(waiting.drain(..)).collect();
        drop(state);
        self.changed.notify_all();
        left
    }

    /// How many wait, those that died recently included.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().len()
    }
}

impl<T> State<T> {
    fn len(&self) -> usize {
        self.waiting.len() + self.aside.len()
    }

    fn next<P>(&mut self, kind: &Kind<T>, reserve: &mut impl FnMut() -> Option<P>) -> Option<(T, Option<P>)> {
        while self.aside.front().is_some_and(|item| !(kind.is_alive)(item)) {
            self.aside.pop_front();
            self.one_dead_less();
        }
        if !self.aside.is_empty()
            && let Some(place) = reserve()
        {
            return self.aside.pop_front().map(|item| (item, Some(place)));
        }
        while let Some(item) = self.waiting.pop_front() {
            if !(kind.is_alive)(&item) {
                self.one_dead_less();
            } else if !(kind.needs_place)(&item) {
                return Some((item, None));
            } else if self.aside.is_empty()
                && let Some(place) = reserve()
            {
                return Some((item, Some(place)));
            } else {
                self.aside.push_back(item);
            }
        }
        None
    }

    fn one_dead_less(&mut self) {
        self.dead = self.dead.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    /// Odd numbers need a place.
    fn queue() -> Queue<u32> {
        Queue::new(Kind { is_alive: |_| true, needs_place: |item| item % 2 == 1 })
    }

    fn free() -> Option<()> {
        Some(())
    }

    fn none() -> Option<()> {
        None
    }

    #[test]
    fn the_first_comes_first() {
        let queue = queue();
        for item in 0..4 {
            queue.push(item).unwrap();
        }
        assert_eq!(queue.take(free), Some((0, None)));
        assert_eq!(queue.take(free), Some((1, Some(()))));
        queue.push_first(vec![4, 5]).unwrap();
        assert_eq!(queue.close(), [4, 5, 2, 3]);
        assert_eq!(queue.take(free), None);
        assert_eq!(queue.push_first(vec![3]), Err(vec![3]));
        assert_eq!(queue.push(3), Err(3));
    }

    #[test]
    fn what_finds_no_place_is_set_aside() {
        let queue = queue();
        for item in [1, 3, 4, 5, 6, 7] {
            queue.push(item).unwrap();
        }
        assert_eq!(queue.take(none), Some((4, None)));
        assert_eq!(queue.take(none), Some((6, None)));
        // Those set aside keep their order, also before a later one that would find a place.
        let mut places = [None, Some(())].into_iter();
        queue.push(8).unwrap();
        assert_eq!(queue.take(|| places.next().flatten()), Some((8, None)));
        let order: Vec<u32> = (0..4).map(|_| queue.take(free).unwrap().0).collect();
        assert_eq!(order, [1, 3, 5, 7]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn the_dead_are_passed_over_and_swept() {
        let is_alive = |alive: &Arc<AtomicBool>| alive.load(Ordering::Relaxed);
        let queue = Queue::new(Kind { is_alive, needs_place: |_| false });
        for _ in 0..10 * MIN_SWEEP {
            let item = Arc::new(AtomicBool::new(true));
            queue.push(item.clone()).unwrap();
            item.store(false, Ordering::Relaxed);
            queue.one_died();
            assert!(queue.len() <= MIN_SWEEP);
        }
        let item = Arc::new(AtomicBool::new(true));
        queue.push(item.clone()).unwrap();
        assert!(Arc::ptr_eq(&queue.take(free).unwrap().0, &item));
    }

    #[test]
    fn workers_wake_for_what_was_set_aside() {
        let (queue, allowed) = (queue(), AtomicBool::new(false));
        queue.push(7).unwrap();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| queue.take(|| allowed.load(Ordering::SeqCst).then_some(())));
            allowed.store(true, Ordering::SeqCst);
            queue.try_again();
            assert_eq!(worker.join().unwrap(), Some((7, Some(()))));
        });
    }

    #[test]
    fn each_is_taken_once() {
        const ITEMS: u32 = 10_000;
        let (queue, taken) = (queue(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while queue.take(free).is_some() {
                        if taken.fetch_add(1, Ordering::Relaxed) + 1 == ITEMS as usize {
                            queue.close();
                        }
                    }
                });
            }
            (0..ITEMS).for_each(|item| queue.push(item).unwrap());
        });
        assert_eq!(taken.load(Ordering::Relaxed), ITEMS as usize);
    }
}
