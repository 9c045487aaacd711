//! What a server counts, and the numbers that its owner sees.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a server has done and does. Taken one after the other while work goes on, so the numbers may be a few apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that arrived whole since the start.
    pub calls: u64,
    /// Of these, those answered with a result.
    pub answered: u64,
    /// Of these, those answered with an error.
    pub failed: u64,
    /// Calls that were turned away before their arguments were taken: unknown methods, or the server was closing.
    pub refused: u64,
    /// Calls whose function runs now.
    pub running: usize,
    /// Calls that wait for a worker, or for their client to fetch results (`max_unsent_bytes`).
    pub queued: usize,
    /// Calls whose logs wait for a done function, or will.
    pub awaiting_done: usize,
    /// Clients that are connected.
    pub clients: usize,
    /// Bytes of `max_memory` that hold arguments whose functions have not started, that are granted to such, or that hold
    /// results of more than 4 KiB which clients have not fetched.
    pub held_bytes: u64,
    /// Bytes of arguments that functions took and of which something is alive, there or wherever they put it: their own
    /// memory, which no bound counts. Arguments of up to 4 KiB are not in it; of larger ones, one array that is kept keeps
    /// all arguments of its call alive.
    pub lent_bytes: u64,
    /// Calls that wait for memory to be received into.
    pub awaiting_memory: usize,
    /// Bytes of results that clients have not fetched yet.
    pub unsent_bytes: u64,
    /// Bytes of answers that are kept until their clients say that they have them.
    pub kept_bytes: u64,
}

/// One number. Each stands alone, so no order between them is needed.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn add_many(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn take_back_many(&self, count: usize) {
        self.0.fetch_sub(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The numbers behind [`Stats`], by the same names.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) calls: Counter,
    pub(crate) answered: Counter,
    pub(crate) failed: Counter,
    pub(crate) refused: Counter,
    pub(crate) running: Counter,
    pub(crate) clients: Counter,
}

impl Counters {
    pub(crate) fn clients(&self) -> usize {
        self.clients.get() as usize
    }

    /// Those of the statistics that are counted here.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            calls: self.calls.get(),
            answered: self.answered.get(),
            failed: self.failed.get(),
            refused: self.refused.get(),
            running: self.running.get() as usize,
            clients: self.clients(),
            ..Stats::default()
        }
    }
}
