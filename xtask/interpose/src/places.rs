//! Where in memory the bytes lay that a socket or a file took or gave.
//!
//! Flow: after each call, the pieces that it filled or emptied -> a ring -> [`Places::covered_bytes`] of an array, which tells
//! whether the array was sent from, or received into, the very memory that the caller or the function sees.
//! Bound: the last [`MAX_PLACES`] pieces; older ones are forgotten, and then less is covered than was.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{iovec, msghdr};

/// Pieces of 256 MiB, if each were of 4 KiB: sockets give and take far more at once.
const MAX_PLACES: usize = 1 << 16;

/// What sockets and files took.
pub(crate) static SENT: Places = Places::new();

/// What they gave.
pub(crate) static RECEIVED: Places = Places::new();

/// Start and length of the last pieces.
pub(crate) struct Places {
    next: AtomicUsize,
    starts: [AtomicUsize; MAX_PLACES],
    lengths: [AtomicUsize; MAX_PLACES],
}

impl Places {
    const fn new() -> Places {
        Places {
            next: AtomicUsize::new(0),
            starts: [const { AtomicUsize::new(0) }; MAX_PLACES],
            lengths: [const { AtomicUsize::new(0) }; MAX_PLACES],
        }
    }

    /// Notes one piece of which a call moved `done` bytes; below zero where it failed.
    pub(crate) fn add(&self, start: *const c_void, done: isize) {
        let length = usize::try_from(done).unwrap_or(0);
        if length > 0 {
            let index = self.next.fetch_add(1, Ordering::Relaxed) % MAX_PLACES;
            self.starts[index].store(start.addr(), Ordering::Relaxed);
            self.lengths[index].store(length, Ordering::Relaxed);
        }
    }

    /// Notes the pieces of which a call moved `done` bytes in all.
    ///
    /// # Safety
    /// `pieces` points to `count` pieces, unless `done` is not above zero.
    pub(crate) unsafe fn add_pieces(&self, pieces: *const iovec, count: usize, done: isize) {
        let mut left = usize::try_from(done).unwrap_or(0);
        for index in 0..count {
            if left == 0 {
                return;
            }
            // SAFETY: there are `count` of them, says the caller.
            let piece = unsafe { pieces.add(index) };
            // SAFETY: as above.
            let piece = unsafe { piece.read() };
            let moved = left.min(piece.iov_len);
            self.add(piece.iov_base, moved as isize);
            left -= moved;
        }
    }

    /// As [`Places::add_pieces`] with the pieces of a message.
    ///
    /// # Safety
    /// `message` points to a message with its pieces, unless `done` is not above zero.
    pub(crate) unsafe fn add_message(&self, message: *const msghdr, done: isize) {
        if done > 0 {
            // SAFETY: it is a message, says the caller.
            let message = unsafe { message.read() };
            // SAFETY: its pieces are so many, says the caller.
            unsafe { self.add_pieces(message.msg_iov, message.msg_iovlen, done) };
        }
    }

    /// How many of `length` bytes from `start` lie in pieces that are remembered.
    pub(crate) fn covered_bytes(&self, start: usize, length: usize) -> usize {
        let end = start.saturating_add(length);
        let mut pieces: Vec<(usize, usize)> = (0..MAX_PLACES)
            .map(|index| {
                let start = self.starts[index].load(Ordering::Relaxed);
                (start, start + self.lengths[index].load(Ordering::Relaxed))
            })
            .filter(|&(from, to)| from < end && start < to)
            .collect();
        pieces.sort_unstable();
        let (mut at, mut covered) = (start, 0);
        for (from, to) in pieces {
            let (from, to) = (from.max(at), to.min(end));
            if from < to {
                covered += to - from;
                at = to;
            }
        }
        covered
    }

    /// Forgets all pieces: memory that is used again must not count for what lay there before.
    pub(crate) fn clear(&self) {
        for length in &self.lengths {
            length.store(0, Ordering::Relaxed);
        }
    }
}
