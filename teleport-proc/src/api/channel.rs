//! A bounded queue between threads, at which a [`Thread`](crate::Thread) that is killed does not wait any longer.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cancel::deadline::deadline;
use crate::cancel::interrupt::Waiters;

/// Makes a queue of at most `capacity` values, at least one: who sends waits while it is full, who receives while it is
/// empty. Both ends can be cloned.
///
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
        queue: Mutex::new(VecDeque::new()),
        changed: Waiters::default(),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
    });
    (Sender(shared.clone()), Receiver(shared))
}

/// The end of a [`channel`] that takes values.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// The end of a [`channel`] that gives them.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    capacity: usize,
    /// Invariant: at most `capacity` long.
    queue: Mutex<VecDeque<T>>,
    changed: Waiters,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

/// The other end of a channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected;

impl Display for Disconnected {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("nobody has the other end of the channel any more")
    }
}

impl Error for Disconnected {}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Nothing panics while it is changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Puts a value into the queue. **Blocks** while that is full.
    ///
    /// # Errors
    /// If nobody can receive it; the value is dropped.
    pub fn send(&self, value: T) -> Result<(), Disconnected> {
        let shared = &self.0;
        let mut value = Some(value);
        let sent = shared.changed.wait(None, || {
            let mut queue = shared.queue();
            // Acquire and Release: who sees the last one gone sees what it did before.
            if shared.receivers.load(Ordering::Acquire) == 0 {
                return Some(Err(Disconnected));
            }
            if queue.len() < shared.capacity {
                queue.extend(value.take());
                return Some(Ok(()));
            }
            None
        });
        shared.changed.wake();
        // Without a deadline the wait ends only when it has found something.
        sent.unwrap_or(Err(Disconnected))
    }
}

impl<T> Receiver<T> {
    /// Takes a value out of the queue. **Blocks** while that is empty.
    ///
    /// # Errors
    /// If it is empty and nobody can send.
    pub fn recv(&self) -> Result<T, Disconnected> {
        self.receive(None).and_then(|value| value.ok_or(Disconnected))
    }

    /// As [`recv`](Receiver::recv), at most for `time`: then it gives nothing.
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv).
    pub fn recv_timeout(&self, time: Duration) -> Result<Option<T>, Disconnected> {
        self.receive(deadline(time))
    }

    fn receive(&self, deadline: Option<Instant>) -> Result<Option<T>, Disconnected> {
        let shared = &self.0;
        let received = shared.changed.wait(deadline, || {
            // Asked first: what the last sender sent is there when it is gone.
            let is_last = shared.senders.load(Ordering::Acquire) == 0;
            match shared.queue().pop_front() {
                Some(value) => Some(Ok(value)),
                None => is_last.then_some(Err(Disconnected)),
            }
        });
        shared.changed.wake();
        received.transpose()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Sender(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Receiver(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.senders.fetch_sub(1, Ordering::Release);
        self.0.changed.wake();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.receivers.fetch_sub(1, Ordering::Release);
        self.0.changed.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn every_value_arrives_once_and_in_order_of_its_sender() {
        let (sender, receiver) = channel(3);
        let senders: Vec<_> = (0..4u32)
            .map(|who| {
                let sender = sender.clone();
                thread::spawn(move || (0..1000u32).for_each(|number| sender.send((who, number)).unwrap()))
            })
            .collect();
        drop(sender);
        let mut next = [0; 4];
        while let Ok((who, number)) = receiver.recv() {
            assert_eq!(number, next[who as usize]);
            next[who as usize] += 1;
            assert!(receiver.0.queue().len() <= 3);
        }
        assert_eq!(next, [1000; 4]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn the_longest_time_is_for_ever() {
        let (sender, receiver) = channel(1);
        let waiting = thread::spawn(move || receiver.recv_timeout(Duration::MAX));
        sender.send(7).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(Some(7)));
    }

    #[test]
    fn an_end_that_is_gone_wakes_the_other() {
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
