//! Eager credit on its way back to the peer.
//!
//! Flow: a [`Lease`](super::Lease) is dropped, on any thread -> counted here -> once half of what the connection gives has come
//! together, one frame gives it back. So most messages cost one addition. Never blocks. Bound: the connection's credit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::Link;

/// What has come back of one link's credit.
#[derive(Debug)]
pub(super) struct Credit {
    link: Weak<Link>,
    bytes: AtomicU64,
    /// So much is worth a frame.
    due_bytes: u64,
}

impl Credit {
    pub(super) fn new(link: Weak<Link>, eager_credit_bytes: u64) -> Arc<Credit> {
        Arc::new(Credit { link, bytes: AtomicU64::new(0), due_bytes: eager_credit_bytes.div_ceil(2) })
    }

    pub(super) fn give_back(&self, bytes: u64) {
        // Only the sum counts, and the link's lock orders what is done with it.
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes < self.due_bytes {
            return;
        }
        if let Some(link) = self.link.upgrade() {
            link.give_credit(self.bytes.swap(0, Ordering::Relaxed));
        }
    }
}
