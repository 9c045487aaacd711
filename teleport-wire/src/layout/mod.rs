//! Batches: the memory layout of many calls, and a result for all of them that is sent row by row.

pub(crate) mod batch;
pub(crate) mod batch_result;
