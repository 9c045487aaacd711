//! Running functions: queues of pools, workers, done functions, and panics.

pub(crate) mod batch_timers;
pub(crate) mod done;
pub(crate) mod failures;
pub(crate) mod fair_queue;
pub(crate) mod job;
pub(crate) mod panic;
pub(crate) mod queue;
pub(crate) mod run;
pub(crate) mod run_time;
#[cfg(test)]
mod tests;
pub(crate) mod worker;
