//! Batching: `plan` decides which calls run together, and the rest brings their rows there and runs the function.

pub(crate) mod assemble;
pub(crate) mod batcher;
pub(crate) mod execute;
pub(crate) mod memory;
pub(crate) mod overhead;
pub(crate) mod plan;
pub(crate) mod timeouts;
