//! A bounded queue between threads. A [`Thread`](crate::Thread) that is killed stops waiting for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cancel::deadline::deadline;
use crate::cancel::waiters::Waiters;

/// Makes a queue with room for `capacity` values, and at least for one. Both ends can be cloned.
///
/// [`send`](Sender::send) waits while the queue is full, and [`recv`](Receiver::recv) while it is empty. A
/// wait ends when the other end is gone. In a [`Thread`](crate::Thread), both are cancellation points.
///
/// # Examples
/// ```
/// use teleport_proc::{ProcError, Thread, channel};
///
/// # fn main() -> Result<(), ProcError> {
/// let (sender, receiver) = channel(8);
/// let thread = Thread::new("sender", move |_stop| (0..100).try_for_each(|number| sender.send(number)));
/// thread.start()?;
/// assert_eq!((0..100).map(|_| receiver.recv().unwrap()).sum::<i32>(), 4950);
/// thread.join()
/// # }
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        capacity: capacity.max(1),
        state: Mutex::new(State { queue: VecDeque::new(), senders: 1, receivers: 1 }),
        changed: Waiters::default(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

/// The sending end of a [`channel`].
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end of a [`channel`].
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

/// The error when the other end of a channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the channel is closed")]
pub struct Disconnected;

#[derive(Debug)]
struct Shared<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    changed: Waiters,
}

#[derive(Debug)]
struct State<T> {
    /// Invariant: at most `capacity` long.
    queue: VecDeque<T>,
    senders: usize,
    receivers: usize,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while the state is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Puts a value into the queue. **Blocks** while the queue is full.
    ///
    /// # Errors
    /// Fails if no receiver is left. The value is dropped.
    pub fn send(&self, value: T) -> Result<(), Disconnected> {
        let shared = &self.0;
        let mut value = Some(value);
        let sent = shared.changed.wait(None, || {
            let mut state = shared.state();
            if state.receivers == 0 {
                return Some(Err(Disconnected));
            }
            if state.queue.len() == shared.capacity {
                return None;
            }
            state.queue.extend(value.take());
            Some(Ok(()))
        });
        shared.changed.wake();
        // Without a deadline, the wait always returns a result.
        sent.unwrap_or(Err(Disconnected))
    }
}

impl<T> Receiver<T> {
    /// Takes a value out of the queue. **Blocks** while the queue is empty.
    ///
    /// # Errors
    /// Fails if the queue is empty and no sender is left.
    pub fn recv(&self) -> Result<T, Disconnected> {
        self.receive(None).and_then(|value| value.ok_or(Disconnected))
    }

    /// Takes a value like [`recv`](Receiver::recv), but waits for at most `time`. Returns `None` after that
    /// time.
    ///
    /// # Errors
    /// Returns the same errors as [`recv`](Receiver::recv).
    pub fn recv_timeout(&self, time: Duration) -> Result<Option<T>, Disconnected> {
        self.receive(deadline(time))
    }

    fn receive(&self, deadline: Option<Instant>) -> Result<Option<T>, Disconnected> {
        let shared = &self.0;
        let received = shared.changed.wait(deadline, || {
            let mut state = shared.state();
            match state.queue.pop_front() {
                Some(value) => Some(Ok(value)),
                None => (state.senders == 0).then_some(Err(Disconnected)),
            }
        });
        shared.changed.wake();
        received.transpose()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.state().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.0.state().receivers += 1;
        Receiver(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().senders -= 1;
        self.0.changed.wake();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.state().receivers -= 1;
        self.0.changed.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn values_arrive_once_and_in_the_order_of_each_sender() {
        let (sender, receiver) = channel(3);
        let senders: Vec<_> = (0..4u32)
            .map(|index| {
                let sender = sender.clone();
                thread::spawn(move || (0..1000u32).for_each(|number| sender.send((index, number)).unwrap()))
            })
            .collect();
        drop(sender);
        let mut next = [0; 4];
        while let Ok((index, number)) = receiver.recv() {
            assert_eq!(number, next[index as usize]);
            next[index as usize] += 1;
            assert!(receiver.0.state().queue.len() <= 3);
        }
        assert_eq!(next, [1000; 4]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn the_longest_time_never_ends() {
        let (sender, receiver) = channel(1);
        let waiting = thread::spawn(move || receiver.recv_timeout(Duration::MAX));
        sender.send(7).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(Some(7)));
    }

    #[test]
    fn dropping_an_end_wakes_the_other() {
        let (sender, receiver) = channel::<()>(1);
        let waiting = thread::spawn(move || receiver.recv());
        drop(sender);
        assert_eq!(waiting.join().unwrap(), Err(Disconnected));
        let (sender, receiver) = channel(1);
        sender.send(()).unwrap();
        let waiting = thread::spawn(move || sender.send(()));
        drop(receiver);
        assert_eq!(waiting.join().unwrap(), Err(Disconnected));
        let (_sender, receiver) = channel::<()>(1);
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), Ok(None));
    }
}
