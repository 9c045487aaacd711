//! Batches: how calls of one signature lie in one memory, and how a result for all of them is sent row by row.

pub(crate) mod batch;
pub(crate) mod batch_result;
