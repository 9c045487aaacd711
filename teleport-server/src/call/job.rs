//! The jobs of workers: a call, or the calls of a batch.

use std::sync::Arc;

use crate::call::open_call::OpenCall;
use crate::queue::pool::{Job, Queue};

/// The queue of one pool of a server.
pub(crate) type PoolQueue = Queue<OpenCall, BatchCalls>;

/// The calls of a batch that runs.
#[derive(Debug)]
pub(crate) struct BatchCalls {
    /// Never empty. In the order of rows.
    pub(crate) calls: Vec<Arc<OpenCall>>,
    /// The number of rows with padding.
    pub(crate) padded: usize,
}

impl Job<OpenCall, BatchCalls> {
    /// Returns the calls of the job. There are none if it has ended.
    pub(crate) fn calls(&self) -> Vec<Arc<OpenCall>> {
        match self {
            Job::Call(call) => call.upgrade().into_iter().collect(),
            Job::Batch(batch) => batch.upgrade().map(|batch| batch.calls.clone()).unwrap_or_default(),
        }
    }
}
