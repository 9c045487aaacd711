//! Batching: calls of one method that run together.
//!
//! `plan` decides which calls run together and when. `batcher` holds the calls, `memory` their rows, and
//! `overhead` counts the rest of the memory of slabs. `assemble` brings the rows of a batch together,
//! `execute` runs it, and `timeouts` refuses calls that wait for too long.

pub(crate) mod assemble;
pub(crate) mod batcher;
pub(crate) mod execute;
pub(crate) mod memory;
pub(crate) mod overhead;
pub(crate) mod plan;
pub(crate) mod timeouts;
