//! The places in memory from which bytes were sent, or into which they were received.
//!
//! Flow: each call adds its pieces to a ring -> [`Places::covered_bytes`] returns how many bytes of an array
//! were sent from, or received into, the memory that users see. Bound: the last [`MAX_PLACES`] pieces. If
//! older ones are forgotten, the result is too small.

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{iovec, msghdr};

/// The pieces of 256 MiB, if each had 4 KiB. Sockets move far more at once.
const MAX_PLACES: usize = 1 << 16;

/// The pieces that sockets and files took.
pub(crate) static SENT: Places = Places::new();

/// The pieces that sockets and files filled.
pub(crate) static RECEIVED: Places = Places::new();

/// The starts and lengths of the last pieces.
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

    /// Adds one piece of which a call moved `done` bytes. `done` is negative if the call failed.
    pub(crate) fn add(&self, start: *const c_void, done: isize) {
        let length = usize::try_from(done).unwrap_or(0);
        if length > 0 {
            let index = self.next.fetch_add(1, Ordering::Relaxed) % MAX_PLACES;
            self.starts[index].store(start.addr(), Ordering::Relaxed);
            self.lengths[index].store(length, Ordering::Relaxed);
        }
    }

    /// Adds the pieces of which a call moved `done` bytes in total.
    ///
    /// # Safety
    /// `pieces` points to `count` pieces, unless `done` is not above zero.
    pub(crate) unsafe fn add_pieces(&self, pieces: *const iovec, count: usize, done: isize) {
        let mut left = usize::try_from(done).unwrap_or(0);
        for index in 0..count {
            if left == 0 {
                return;
            }
            // SAFETY: the caller guarantees `count` pieces.
            let piece = unsafe { pieces.add(index) };
            // SAFETY: as above.
            let piece = unsafe { piece.read() };
            let moved = left.min(piece.iov_len);
            self.add(piece.iov_base, moved as isize);
            left -= moved;
        }
    }

    /// Adds the pieces of a message, as [`Places::add_pieces`] does.
    ///
    /// # Safety
    /// `message` points to a message with its pieces, unless `done` is not above zero.
    pub(crate) unsafe fn add_message(&self, message: *const msghdr, done: isize) {
        if done > 0 {
            // SAFETY: the caller guarantees a valid message.
            let message = unsafe { message.read() };
            // SAFETY: the caller guarantees that the message has these pieces.
            unsafe { self.add_pieces(message.msg_iov, message.msg_iovlen, done) };
        }
    }

    /// Returns how many of `length` bytes from `start` lie in remembered pieces.
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

    /// Forgets all pieces, so that reused memory does not count for its earlier content.
    pub(crate) fn clear(&self) {
        for length in &self.lengths {
            length.store(0, Ordering::Relaxed);
        }
    }
}
