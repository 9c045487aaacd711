//! The queue of a pool: connections take turns, and their calls take turns with due batches.

pub(crate) mod batch_timers;
pub(crate) mod fair_queue;
pub(crate) mod pool;
#[cfg(test)]
mod tests;
