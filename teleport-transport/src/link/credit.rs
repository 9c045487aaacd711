//! Eager credit on its way back to the peer.
//!
//! Flow: a [`Lease`](super::Lease) is dropped, on any thread -> counted here -> once a sixteenth of what the connection gives has
//! come together, the next write takes it along; once half of it has, it goes by itself, or at the end of the turn of reading in
//! which it came back. So most messages cost one addition, and one frame gives back what many took. Never blocks. Bound: the connection's credit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::Link;

/// What has come back of one link's credit.
#[derive(Debug)]
pub(super) struct Credit {
    link: Weak<Link>,
    bytes: AtomicU64,
    /// So much is worth a frame.
    along_bytes: u64,
    /// So much is worth a write.
    due_bytes: u64,
}

// Only the sum counts, so the additions need no order. What is taken out is given to the outbox, whose lock orders it after
// the arrival of the messages that it stood for.
impl Credit {
    pub(super) fn new(link: Weak<Link>, eager_credit_bytes: u64) -> Arc<Credit> {
        let (along_bytes, due_bytes) =
            (eager_credit_bytes.div_ceil(16).max(1), eager_credit_bytes.div_ceil(2));
        Arc::new(Credit { link, bytes: AtomicU64::new(0), along_bytes, due_bytes })
    }

    pub(super) fn give_back(&self, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes < self.due_bytes {
            return;
        }
        // Who reads the link writes at the end of the turn, or answers before.
        if let Some(link) = self.link.upgrade().filter(|link| !link.is_in_turn()) {
            link.give_credit(self.take());
        }
    }

    /// Whether it is worth a write of its own.
    pub(super) fn is_due(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.due_bytes
    }

    /// Whether it is worth a frame in a write that happens anyway.
    pub(super) fn goes_along(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.along_bytes
    }

    pub(super) fn take(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }
}
