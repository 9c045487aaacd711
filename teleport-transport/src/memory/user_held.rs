//! Counts the received memory that users hold, which no budget counts any more.
//!
//! Flow: a message's memory is allocated, with a [`Loan`] -> its [`Lease`](crate::Lease) is dropped when a
//! function takes the message or a future is read: from now on the memory counts -> its last array is
//! dropped. Memory that is dropped before it is handed over never counts. Never blocks. Costs two small
//! allocations a message, and none for messages too small to count.

#[cfg(all(test, loom))]
mod models;

use std::sync::Arc;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use teleport_wire::Buffer;

/// Messages up to this size are not counted: counting them would cost as much as they do.
const MAX_UNCOUNTED_BYTES: u64 = 4096;

/// Counts the bytes of received memory that users hold. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Lent(Arc<AtomicU64>);

impl Lent {
    /// Returns the bytes that users hold now. A message of more than 4 KiB counts while one of its arrays,
    /// strings or bytes is alive.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets the memory of a message be counted, unless it is too small.
    pub(crate) fn watch(&self, memory: Buffer) -> (Buffer, Option<Loan>) {
        let bytes = memory.len() as u64;
        self.watch_bytes(memory, bytes)
    }

    /// Counts memory with `bytes` used bytes as held by the user from now on.
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
    /// Set when the memory is handed over or freed. The second of these events subtracts the bytes that the
    /// handover added; `AcqRel`, so that the subtraction is never first.
    came: AtomicBool,
    lent: Lent,
}

/// The memory of one message that is not handed over yet.
#[derive(Debug)]
pub struct Loan(Arc<State>);

impl Drop for Loan {
    /// Hands the memory over to the user, unless it is freed already.
    fn drop(&mut self) {
        let State { bytes, came, lent } = &*self.0;
        lent.0.fetch_add(*bytes, Ordering::Relaxed);
        if came.swap(true, Ordering::AcqRel) {
            lent.0.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

/// The owner of the arrays of a message.
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
        // If it was handed over, its bytes were added before.
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
    fn used_bytes_of_a_slab_count_at_once() {
        let lent = Lent::default();
        let memory = lent.lend(Buffer::zeroed(100_000), 10_000);
        assert_eq!((memory.len(), lent.bytes()), (100_000, 10_000));
        drop(memory);
        assert_eq!(lent.bytes(), 0);
    }

    #[test]
    fn memory_that_nobody_took_never_counts() {
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
