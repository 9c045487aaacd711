//! Batching: which calls run together, where their rows lie, and how a function gets them.
//!
//! `options` is what a user says of it. `state` decides, without memory, threads or a clock: `place` to `remove` there, making
//! batches in `closing`, who waits for too long in `patience`, when one is due in `bucket` with what it has `learned`, seats in `slab`. `batcher` does it with
//! calls and `memory`, for which `upkeep` pays: `taking` a batch, and `waiting` for too long. `run` calls the function; `list` is the other form of
//! functions, `reader` knows whose rows are copied out of a result. `stats` counts.

pub(crate) mod batcher;
pub(crate) mod list;
pub(crate) mod options;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod waiting;

mod bucket;
mod closing;
mod learned;
mod memory;
mod patience;
pub(crate) mod reader;
mod slab;
mod state;
mod taking;
#[cfg(test)]
mod tests;
mod upkeep;
