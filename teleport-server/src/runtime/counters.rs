//! The counters of a server.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::stats::Stats;

/// One counter. Nothing else depends on it, so its memory order is relaxed.
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

/// The counters behind [`Stats`], with the same names.
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

    /// Returns statistics with these counters.
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
