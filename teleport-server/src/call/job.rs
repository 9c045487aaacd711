//! A worker's current job: a call, or the calls of a batch.

use std::sync::Arc;

use crate::call::open_call::OpenCall;

/// The calls of a batch that runs.
#[derive(Debug)]
pub(crate) struct BatchCalls {
    /// Never empty. In the order of rows.
    pub(crate) calls: Vec<Arc<OpenCall>>,
    /// The number of rows with padding.
    pub(crate) padded: usize,
}

/// The job of a worker.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Call(Arc<OpenCall>),
    Batch(Arc<BatchCalls>),
}

impl Job {
    pub(crate) fn calls(&self) -> &[Arc<OpenCall>] {
        match self {
            Job::Call(call) => std::slice::from_ref(call),
            Job::Batch(batch) => &batch.calls,
        }
    }

    pub(crate) fn method(&self) -> &str {
        self.calls().first().map_or("", |call| &call.method.name)
    }
}
