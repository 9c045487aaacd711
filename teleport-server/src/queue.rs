//! Calls that wait for a worker of one pool, in the order in which they came.
//!
//! Flow: `push` (from pollers) -> `take` (workers, who wait here while there is nothing) -> the worker runs it. A call
//! whose start is not allowed yet is set aside and goes first as soon as it is. Calls that were withdrawn meanwhile are
//! passed over, and swept out when there are many, so that calls which come and are withdrawn again fill no memory.
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
    is_alive: fn(&T) -> bool,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    /// Those at the front that were not allowed to start, in their order.
    aside: VecDeque<T>,
    /// About how many in both are dead.
    dead: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// An empty queue; `is_alive` tells whether a call still wants to run.
    pub(crate) fn new(is_alive: fn(&T) -> bool) -> Queue<T> {
        let state = State { waiting: VecDeque::new(), aside: VecDeque::new(), dead: 0, closed: false };
        Queue { state: Mutex::new(state), changed: Condvar::new(), is_alive }
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

    /// Waits for the next call that `start` allows, and gives it with what `start` gave; none once the queue is closed.
    /// `start` runs under the queue's lock, so calls start in the order in which they are taken.
    pub(crate) fn take<S>(&self, mut start: impl FnMut(&T) -> Option<S>) -> Option<(T, S)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(taken) = state.next(self.is_alive, &mut start) {
                return Some(taken);
            }
            self.changed.wait(&mut state);
        }
    }

    /// What `start` refused may be allowed now.
    pub(crate) fn try_again(&self) {
        // Under the lock, so that workers which were just refused wait before they are woken.
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
            state.waiting.retain(self.is_alive);
            state.aside.retain(self.is_alive);
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

    fn next<S>(
        &mut self,
        is_alive: fn(&T) -> bool,
        start: &mut impl FnMut(&T) -> Option<S>,
    ) -> Option<(T, S)> {
        while let Some(item) = self.aside.pop_front() {
            if !is_alive(&item) {
                self.dead = self.dead.saturating_sub(1);
                continue;
            }
            match start(&item) {
                Some(started) => return Some((item, started)),
                None => {
                    self.aside.push_front(item);
                    break;
                }
            }
        }
        while let Some(item) = self.waiting.pop_front() {
            if !is_alive(&item) {
                self.dead = self.dead.saturating_sub(1);
                continue;
            }
            match start(&item) {
                Some(started) => return Some((item, started)),
                None => self.aside.push_back(item),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn queue() -> Queue<u32> {
        Queue::new(|_| true)
    }

    fn any(_: &u32) -> Option<()> {
        Some(())
    }

    #[test]
    fn the_first_comes_first() {
        let queue = queue();
        for item in 0..3 {
            queue.push(item).unwrap();
        }
        assert_eq!(queue.take(any), Some((0, ())));
        assert_eq!(queue.close(), [1, 2]);
        assert_eq!(queue.take(any), None);
        assert_eq!(queue.push(3), Err(3));
    }

    #[test]
    fn what_may_not_start_is_set_aside() {
        let queue = queue();
        for item in 0..6 {
            queue.push(item).unwrap();
        }
        let odd = |item: &u32| (item % 2 == 1).then_some(*item);
        assert_eq!(queue.take(odd), Some((1, 1)));
        assert_eq!(queue.take(odd), Some((3, 3)));
        // Those set aside keep their order and go first.
        assert_eq!(queue.take(any), Some((0, ())));
        assert_eq!(queue.take(any), Some((2, ())));
        assert_eq!(queue.take(odd), Some((5, 5)));
        assert_eq!(queue.take(any), Some((4, ())));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn the_dead_are_passed_over_and_swept() {
        let queue: Queue<Arc<AtomicBool>> = Queue::new(|alive| alive.load(Ordering::Relaxed));
        for _ in 0..10 * MIN_SWEEP {
            let item = Arc::new(AtomicBool::new(true));
            queue.push(item.clone()).unwrap();
            item.store(false, Ordering::Relaxed);
            queue.one_died();
            assert!(queue.len() <= MIN_SWEEP);
        }
        let item = Arc::new(AtomicBool::new(true));
        queue.push(item.clone()).unwrap();
        assert!(Arc::ptr_eq(&queue.take(|_| Some(())).unwrap().0, &item));
    }

    #[test]
    fn workers_wake_for_what_was_set_aside() {
        let (queue, allowed) = (queue(), AtomicBool::new(false));
        queue.push(7).unwrap();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| queue.take(|item| allowed.load(Ordering::SeqCst).then_some(*item)));
            allowed.store(true, Ordering::SeqCst);
            queue.try_again();
            assert_eq!(worker.join().unwrap(), Some((7, 7)));
        });
    }

    #[test]
    fn each_is_taken_once() {
        const ITEMS: u32 = 10_000;
        let (queue, taken) = (queue(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while queue.take(any).is_some() {
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
