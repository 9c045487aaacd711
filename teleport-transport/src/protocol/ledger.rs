//! The account of one connection: what pays for the memory of its messages.
//!
//! A received message holds a [`Lease`], paid either from the eager credit that this side gave its peer, or by a charge to
//! a budget. Dropping the lease gives the bytes back. Returned credit is added up in [`ReturnedCredit`]; one frame then
//! gives back what many messages took. Never blocks. Bound: the connection's eager credit and the budget.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::memory::budget::Charge;
use crate::memory::user_held::Loan;

/// Pays for the memory of a received message. Drop it when the memory belongs to the user: the peer may then send more.
///
/// The default pays for nothing.
#[derive(Debug, Default)]
pub struct Lease {
    eager: Option<EagerBytes>,
    charge: Option<Charge>,
    /// Counts the memory as held by the user from when this is dropped.
    handoff: Option<Loan>,
}

/// Bytes of the eager credit, returned when dropped.
#[derive(Debug)]
struct EagerBytes {
    bytes: u64,
    credit: Arc<ReturnedCredit>,
}

impl Drop for EagerBytes {
    fn drop(&mut self) {
        self.credit.give_back(self.bytes);
    }
}

impl Lease {
    pub(super) fn eager(bytes: u64, credit: &Arc<ReturnedCredit>) -> Lease {
        Lease { eager: Some(EagerBytes { bytes, credit: credit.clone() }), ..Lease::default() }
    }

    pub(super) fn charged(charge: Option<Charge>) -> Lease {
        Lease { charge, ..Lease::default() }
    }

    /// Bytes of the connection's eager credit that it holds.
    pub fn eager_bytes(&self) -> u64 {
        self.eager.as_ref().map_or(0, |eager| eager.bytes)
    }

    pub(super) fn is_charged(&self) -> bool {
        self.charge.is_some()
    }

    pub(super) fn set_handoff(&mut self, handoff: Option<Loan>) {
        self.handoff = handoff;
    }
}

/// Eager credit that came back and that the peer does not know of.
///
/// Once a sixteenth of the connection's credit has come back, the next write takes it along. Once half of it has, it is
/// worth a write of its own.
pub(super) struct ReturnedCredit {
    bytes: AtomicU64,
    /// This much is worth a frame in a write that happens anyway.
    min_frame_bytes: u64,
    /// This much is worth a write.
    min_write_bytes: u64,
    /// Asks for a write.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ReturnedCredit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReturnedCredit").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

// Only the sum counts, so the additions need no order. What is taken out changes the sending half, whose lock orders it
// after the arrival of the messages that it paid for.
impl ReturnedCredit {
    pub(super) fn new(eager_credit_bytes: u64, wake: Box<dyn Fn() + Send + Sync>) -> ReturnedCredit {
        let min_frame_bytes = eager_credit_bytes.div_ceil(16).max(1);
        let min_write_bytes = eager_credit_bytes.div_ceil(2).max(1);
        ReturnedCredit { bytes: AtomicU64::new(0), min_frame_bytes, min_write_bytes, wake }
    }

    fn give_back(&self, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.min_write_bytes {
            (self.wake)();
        }
    }

    /// Returns true if there is enough for a write of its own.
    pub(super) fn is_due(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.min_write_bytes
    }

    /// Returns true if there is enough for a frame in a write that happens anyway.
    pub(super) fn is_worth_frame(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.min_frame_bytes
    }

    pub(super) fn take(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }
}
