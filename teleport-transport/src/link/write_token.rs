//! The right to write to one socket: a flag that one thread at a time holds.
//!
//! Whoever has queued something tries to take it. Who fails leaves a mark, and the holder looks again before it lets go:
//! so nothing queued is ever left behind, and nobody waits. A holder that finds the socket full keeps the flag on behalf
//! of the poller, which takes it over when the socket is writable.

use std::sync::atomic::{AtomicU8, Ordering};

/// Nobody writes.
const IDLE: u8 = 0;
/// A thread writes.
const WRITING: u8 = 1;
/// A thread writes, and something was queued since it looked.
const DIRTY: u8 = 2;
/// The socket is full: the poller writes next.
const BLOCKED: u8 = 3;

// Every operation is sequentially consistent: a thread that queues first writes the queue (under its lock) and then
// reads the flag, the holder first reads the queue and then changes the flag; one of them must see the other.
#[derive(Debug)]
pub(super) struct WriteToken(AtomicU8);

impl WriteToken {
    pub(super) const fn new() -> WriteToken {
        WriteToken(AtomicU8::new(IDLE))
    }

    /// Whether nobody writes: not so while the socket is full.
    pub(super) fn is_idle(&self) -> bool {
        self.0.load(Ordering::SeqCst) == IDLE
    }

    /// Takes the right if it is free; if another thread holds it, that one will look again.
    pub(super) fn acquire(&self) -> bool {
        let next = |state| match state {
            IDLE => Some(WRITING),
            WRITING => Some(DIRTY),
            _ => None,
        };
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) == Ok(IDLE)
    }

    /// Lets go if nothing was queued since the holder looked; else the holder keeps it and looks again.
    pub(super) fn release(&self) -> bool {
        if self.0.compare_exchange(WRITING, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return true;
        }
        self.0.store(WRITING, Ordering::SeqCst);
        false
    }

    /// Whether the poller has the right, and waits until the socket is writable.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.load(Ordering::SeqCst) == BLOCKED
    }

    /// Hands the right to the poller, which takes it with `unblock`.
    pub(super) fn block(&self) {
        self.0.store(BLOCKED, Ordering::SeqCst);
    }

    /// The socket is writable: takes the right over if it was handed to the poller.
    pub(super) fn unblock(&self) -> bool {
        self.0.compare_exchange(BLOCKED, WRITING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn nothing_queued_is_left_behind() {
        let (right, queue, taken) = (WriteToken::new(), Mutex::new(Vec::new()), AtomicUsize::new(0));
        let push_and_flush = |item| {
            queue.lock().expect("no thread panics").push(item);
            if right.acquire() {
                loop {
                    let items = std::mem::take(&mut *queue.lock().expect("no thread panics"));
                    taken.fetch_add(items.len(), Ordering::Relaxed);
                    if right.release() {
                        break;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(push_and_flush));
            }
        });
        assert_eq!(taken.load(Ordering::Relaxed), 40_000);
    }

    #[test]
    fn a_blocked_right_is_the_pollers() {
        let right = WriteToken::new();
        assert!(right.is_idle() && right.acquire());
        assert!(!right.is_idle() && !right.acquire());
        assert!(!right.release(), "something was queued");
        right.block();
        assert!(!right.is_idle() && !right.acquire());
        assert!(right.unblock());
        assert!(!right.unblock());
        assert!(right.release() && right.is_idle());
    }
}
