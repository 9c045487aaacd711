//! State that the threads, connections and calls of a running server share.
//!
//! It refers to no call and no connection, so each of them can own it. Never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use teleport_transport::protocol::{Quota, UnsentBytes};
use teleport_transport::wire::Id128;
use teleport_transport::{Budget, Lent};

use crate::api::error::ServeError;
use crate::api::options::Options;
use crate::runtime::counters::Counters;
use crate::runtime::deadlines::Deadlines;
use crate::runtime::lifecycle::Lifecycle;
use crate::runtime::log_limit::LogLimit;

/// A connection with fewer unfetched bytes is never throttled, and no connection's share is smaller.
const MIN_UNSENT_BYTES: u64 = 64 << 10;

/// Connections share this part of the memory equally when more than the rest is in use.
const SHARED_PART: u64 = 2;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Counters,
    pub(crate) log_limit: LogLimit,
    pub(crate) budget: Budget,
    /// Distinguishes this server from another one at the same address.
    pub(crate) instance: Id128,
    /// The deadlines of queued calls.
    pub(crate) deadlines: Deadlines,
    /// Counts received memory that functions, or their users, still hold.
    pub(crate) lent: Option<Lent>,
    /// Connections that have not ended, including those in their handshake.
    pub(crate) connections: AtomicUsize,
    max_unsent_bytes: u64,
    stop_on_error: bool,
}

impl Shared {
    pub(crate) fn new(options: &Options, lifecycle: Arc<Lifecycle>) -> Arc<Shared> {
        Arc::new(Shared {
            lifecycle,
            counters: Counters::default(),
            log_limit: LogLimit::default(),
            budget: Budget::new(options.shared_memory()),
            instance: options.config.instance,
            deadlines: Deadlines::new(Instant::now()),
            lent: options.config.lent.clone(),
            connections: AtomicUsize::new(0),
            max_unsent_bytes: options.max_unsent(),
            stop_on_error: options.stop_on_error,
        })
    }

    pub(crate) fn lent_bytes(&self) -> u64 {
        self.lent.as_ref().map_or(0, Lent::bytes)
    }

    /// Returns the quota of unfetched results within which a connection may start calls.
    ///
    /// While memory is free, the largest result may have any size, so that one big result never blocks calls.
    /// When more than half of the memory is in use, all connections share the other half and the largest
    /// result counts too, because results are stored even if there is no memory left for them.
    pub(crate) fn quota(&self, unsent: UnsentBytes) -> Quota {
        let part = self.budget.max_bytes() / SHARED_PART;
        // A connection's largest result does not block its own calls.
        let largest_bytes = unsent.all - unsent.but_largest;
        if self.budget.used_bytes() <= part.saturating_add(largest_bytes) {
            return Quota { max_bytes: u64::MAX, max_bytes_but_largest: self.max_unsent_bytes };
        }
        let connections = self.connections.load(Ordering::SeqCst).max(1) as u64;
        let max_bytes = self.max_unsent_bytes.min((part / connections).max(MIN_UNSENT_BYTES));
        Quota { max_bytes, max_bytes_but_largest: max_bytes }
    }

    /// Returns true if a connection with these unfetched bytes must not start calls. A connection that was
    /// past its quota starts none until half of the quota is free.
    pub(crate) fn is_past_quota(&self, unsent: UnsentBytes) -> bool {
        // Most connections are below the smallest quota, so the shared budget is not read for them.
        let may_be = unsent.all > self.max_unsent_bytes.min(MIN_UNSENT_BYTES);
        unsent.is_drain_awaited || may_be && !self.quota(unsent).allows(unsent)
    }

    /// Notes the deadline of a queued call. The supervisor wakes in time for it.
    pub(crate) fn waits_until(&self, deadline: Option<Instant>) {
        if self.deadlines.note(deadline) {
            self.lifecycle.notify();
        }
    }

    /// Notes a failure of a function for the server's owner, and sends the `answer`.
    ///
    /// A caller that has the answer finds the failure noted. A server that ends because of the failure
    /// answers first.
    pub(crate) fn note_failure(&self, failure: impl FnOnce() -> ServeError, answer: impl FnOnce()) {
        if self.stop_on_error {
            answer();
            self.lifecycle.fail(failure);
        } else {
            self.lifecycle.note(failure);
            answer();
        }
    }
}
