//! Calls of a batched method that wait for too long: their deadline has passed, or their batch does not
//! become full.
//!
//! Flow: the supervisor calls `expire` -> late calls are refused, and the log gives the reason why an exact
//! batch waits (`log_starved`).

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::wire::{ErrorKind, Ran, RemoteError};

use crate::batch::batcher::Batcher;
use crate::batch::plan::starvation::{LateBy, Starved, late, next_expiry, starved};
use crate::call::open_call::OpenCall;

/// A line of the log names at most this many clients.
const MAX_NAMED: usize = 8;

/// The result of `expire`.
#[derive(Debug)]
pub(crate) struct Expired {
    pub(crate) starved: Vec<StarvedBatch>,
    /// The time at which to call `expire` again.
    pub(crate) next: Option<Instant>,
}

/// An exact batch that has waited for a long time.
#[derive(Debug)]
pub(crate) struct StarvedBatch {
    method: Arc<str>,
    calls: Vec<Arc<OpenCall>>,
    /// The number of calls in a full batch.
    rows: usize,
}

/// Refuses the calls that have waited for too long.
pub(crate) fn expire(batcher: &Batcher, now: Instant) -> Expired {
    let mut inner = batcher.inner.lock();
    let mut refused: Vec<(Arc<OpenCall>, RemoteError)> = Vec::new();
    for (key, late_by) in late(&inner.scheduler, now) {
        let error = match late_by {
            LateBy::Deadline => crate::call::refusal::late(),
            LateBy::FullTimeout => not_full(batcher, inner.scheduler.waiting()),
        };
        if let Some(waiter) = inner.scheduler.remove(key) {
            inner.free(&waiter);
            refused.extend(waiter.call.map(|(call, _)| (call, error)));
        }
    }
    let mut batches = Vec::new();
    for Starved { keys, rows } in starved(&mut inner.scheduler, now) {
        let calls =
            keys.iter().filter_map(|key| Some(inner.scheduler.value_mut(*key)?.call.as_ref()?.0.clone()));
        batches.push(StarvedBatch { method: batcher.method.clone(), calls: calls.collect(), rows });
    }
    let next = next_expiry(&inner.scheduler);
    batcher.settle(inner);
    refused.iter().for_each(|(call, error)| call.refuse(error));
    Expired { starved: batches, next }
}

fn not_full(batcher: &Batcher, waiting: usize) -> RemoteError {
    let text = format!(
        "method {:?} waits for {} calls of one shape to run together, and in {} s only {waiting} of any shape have come: \
         raise `max_inflight` or the number of clients, lower the batch size, or use `Batch::up_to`",
        batcher.method,
        batcher.policy.max_rows,
        batcher.policy.full_timeout().unwrap_or_default().as_secs_f64(),
    );
    RemoteError::new(ErrorKind::Deadline, Ran::No, text)
}

/// Logs which clients have calls in the batch, and how many they could have.
pub(crate) fn log_starved(batch: &StarvedBatch) {
    let StarvedBatch { method, calls, rows } = batch;
    let mut clients: Vec<(&str, usize, u32)> = Vec::new();
    for call in calls {
        let caller = &call.caller;
        match clients.iter_mut().find(|(name, ..)| *name == caller.name) {
            Some((_, count, _)) => *count += 1,
            None => clients.push((&caller.name, 1, caller.max_inflight)),
        }
    }
    let named = clients.iter().take(MAX_NAMED).map(|(name, count, max_inflight)| match max_inflight {
        0 => format!("{name} with {count}"),
        max_inflight => format!("{name} with {count} (`max_inflight` {max_inflight})"),
    });
    let mut named = named.collect::<Vec<_>>().join(", ");
    if clients.len() > MAX_NAMED {
        named.push_str(", …");
    }
    tracing::warn!(
        method = &**method,
        "a batch waits until it is full: it has {} of {rows} calls, from {} clients: {named}",
        calls.len(),
        clients.len(),
    );
}
