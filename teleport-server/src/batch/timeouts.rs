//! Calls that wait for too long: their time is over, or their batch does not become full.
//!
//! Flow: the supervisor looks (`expire`) -> what is late is answered -> of a batch that waits, the log is told (`tell`).

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::wire::{ErrorKind, Ran, RemoteError};

use crate::batch::batcher::{Batcher, Inner};
use crate::batch::plan::starvation::Starved;
use crate::call::OpenCall;

/// Clients of which a line of the log tells.
const MAX_TOLD: usize = 8;

/// What a look at those who wait has found.
#[derive(Debug)]
pub(crate) struct Expired {
    /// Calls that are not here any more, and what they are told.
    pub(crate) refused: Vec<(Arc<OpenCall>, RemoteError)>,
    pub(crate) starved: Vec<Waiting>,
    /// When to look again.
    pub(crate) next: Option<Instant>,
}

/// An exact batch that waits for long.
#[derive(Debug)]
pub(crate) struct Waiting {
    calls: Vec<Arc<OpenCall>>,
    /// How many it takes.
    rows: usize,
}

impl Batcher {
    /// Takes out calls whose time is over.
    pub(crate) fn expire(&self, now: Instant) -> Expired {
        let mut inner = self.inner.lock();
        let mut refused = Vec::new();
        for (key, was_for_batch) in inner.scheduler.late(now) {
            let error = if was_for_batch { self.not_full(&inner) } else { crate::refusal::late() };
            let Some(waiter) = inner.scheduler.remove(key) else { continue };
            inner.drop_row(&waiter);
            if let Some(call) = waiter.call
                && call.claim().is_some()
            {
                refused.push((call, error));
            }
        }
        let mut starved = Vec::new();
        for Starved { keys, rows } in inner.scheduler.starved(now) {
            let calls = keys.iter().filter_map(|key| inner.scheduler.value_mut(*key)?.call.clone());
            starved.push(Waiting { calls: calls.collect(), rows });
        }
        let next = inner.scheduler.next_expiry();
        self.settle(inner);
        Expired { refused, starved, next }
    }

    fn not_full(&self, inner: &Inner) -> RemoteError {
        let text = format!(
            "method {:?} waits for {} calls of one shape to run together, and in {} s only {} of any shape have come: raise \
             `max_inflight` or the number of clients, lower the batch size, or use `Batch::up_to`",
            self.method,
            self.plan.max_rows,
            self.plan.full_timeout().unwrap_or_default().as_secs_f64(),
            inner.scheduler.waiting(),
        );
        RemoteError::new(ErrorKind::Deadline, Ran::No, text)
    }

    /// Tells the log who is there, and whether they can ever be enough.
    pub(crate) fn tell(&self, waiting: &Waiting) {
        let Waiting { calls, rows } = waiting;
        let mut clients: Vec<(&str, usize, u32)> = Vec::new();
        for call in calls {
            let name = &*call.reply.caller.name;
            match clients.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, count, _)) => *count += 1,
                None => clients.push((name, 1, call.reply.caller.max_inflight)),
            }
        }
        let told = clients.iter().take(MAX_TOLD).map(|(name, count, max_inflight)| match max_inflight {
            0 => format!("{name} with {count}"),
            max_inflight => format!("{name} with {count} (`max_inflight` {max_inflight})"),
        });
        let mut told = told.collect::<Vec<_>>().join(", ");
        if clients.len() > MAX_TOLD {
            told.push_str(", …");
        }
        tracing::warn!(
            method = &*self.method,
            "a batch waits until it is full: it has {} of {rows} calls, from {} clients: {told}",
            calls.len(),
            clients.len(),
        );
    }
}
