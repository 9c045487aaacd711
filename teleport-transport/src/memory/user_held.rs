//! How much received memory users hold: it counts against no budget any more, and yet somebody should see it.
//!
//! Flow: a message's memory is taken and stands behind a [`Loan`] -> its [`Lease`](crate::Lease) is dropped,
//! as a function takes it or a future is read: from here on it is counted -> the last array on it is dropped.
//! What is dropped before it was handed over is never counted. Never blocks. Costs two small allocations a
//! message, and none for those that are too small to count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use teleport_wire::Buffer;

/// Messages up to this size are not counted: that would cost as much as they do.
const MAX_UNCOUNTED_BYTES: u64 = 4096;

/// Counts bytes of received memory that are in users' hands. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Lent(Arc<AtomicU64>);

impl Lent {
    /// Bytes that users hold now: those of messages of more than 4 KiB of which an array, string or bytes is
    /// alive.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Puts the memory of a message behind a loan, unless it is too small to count.
    pub(crate) fn watch(&self, memory: Buffer) -> (Buffer, Option<Loan>) {
        let bytes = memory.len() as u64;
        self.watch_bytes(memory, bytes)
    }

    /// Memory of which so many bytes are in use, in users' hands from now on.
    pub(crate) fn lend(&self, memory: Buffer, bytes: u64) -> Buffer {
        let (memory, loan) = self.watch_bytes(memory, bytes);
        drop(loan);
        memory
    }

    fn watch_bytes(&self, memory: Buffer, bytes: u64) -> (Buffer, Option<Loan>) {
        if bytes <= MAX_UNCOUNTED_BYTES {
            return (memory, None);
        }
        let loan = Arc::new(State { bytes, came: AtomicBool::new(false), lent: self.clone() });
        (Buffer::from_owner_mut(Watched { memory, loan: loan.clone() }), Some(Loan(loan)))
    }
}

#[derive(Debug)]
struct State {
    bytes: u64,
    /// Whether one of the two has come: the memory was handed over, or it is gone. The second one takes off
    /// what the first, if it was handed over, has added; `AcqRel`, so that it is never taken off before.
    came: AtomicBool,
    lent: Lent,
}

/// The memory of one message, not yet handed over.
#[derive(Debug)]
pub struct Loan(Arc<State>);

impl Drop for Loan {
    /// The memory is the user's now, if there is any.
    fn drop(&mut self) {
        let State { bytes, came, lent } = &*self.0;
        lent.0.fetch_add(*bytes, Ordering::Relaxed);
        if came.swap(true, Ordering::AcqRel) {
            lent.0.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

/// What stands behind the arrays of a message.
struct Watched {
    memory: Buffer,
    loan: Arc<State>,
}

impl AsMut<[u8]> for Watched {
    fn as_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut().expect("it came from the pool with one owner, and has not been shared")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let State { bytes, came, lent } = &*self.loan;
        // Where it was handed over, it was added before.
        if came.swap(true, Ordering::AcqRel) {
            lent.0.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_from_when_it_was_handed_over() {
        let lent = Lent::default();
        let (memory, loan) = lent.watch(Buffer::zeroed(10_000));
        assert_eq!((memory.len(), lent.bytes()), (10_000, 0));
        drop(loan);
        let mut parts = memory.split(&[0..10, 64..10_000]).unwrap();
        assert!(parts[1].get_mut().is_some());
        drop(parts.pop());
        assert_eq!(lent.bytes(), 10_000, "each part keeps all of it");
        drop(parts);
        assert_eq!(lent.bytes(), 0);
    }

    #[test]
    fn of_a_slab_what_is_in_use_counts_at_once() {
        let lent = Lent::default();
        let memory = lent.lend(Buffer::zeroed(100_000), 10_000);
        assert_eq!((memory.len(), lent.bytes()), (100_000, 10_000));
        drop(memory);
        assert_eq!(lent.bytes(), 0);
    }

    #[test]
    fn what_nobody_took_never_counts() {
        let lent = Lent::default();
        let (memory, loan) = lent.watch(Buffer::zeroed(10_000));
        drop(memory);
        assert_eq!(lent.bytes(), 0);
        drop(loan);
        assert_eq!(lent.bytes(), 0);
        let (memory, loan) = lent.watch(Buffer::zeroed(MAX_UNCOUNTED_BYTES as usize));
        assert!(loan.is_none() && memory.len() as u64 == MAX_UNCOUNTED_BYTES);
    }
}
