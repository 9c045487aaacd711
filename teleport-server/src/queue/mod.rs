//! The queue of a pool: connections take turns, and their calls take turns with due batches.

pub(crate) mod batch_timers;
pub(crate) mod fair_queue;
#[cfg(all(loom, test))]
mod models;
pub(crate) mod pool;
mod sync;
#[cfg(test)]
mod tests;
