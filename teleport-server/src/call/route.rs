//! What a call needs to know of its method: the name, and where it goes.

use std::sync::Arc;

use crate::call::run_time::RunTime;

/// Where a method's calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// They run on the thread that received them.
    Inline,
    /// To the pool with this number.
    Pool(usize),
    /// To the batcher with this number.
    Batch(usize),
}

/// One method of a running server, without its function.
#[derive(Debug)]
pub(crate) struct MethodInfo {
    pub(crate) name: Arc<str>,
    /// Its index in the registry.
    pub(crate) slot: u32,
    pub(crate) route: Route,
    /// The number of the done function that gets its logs.
    pub(crate) done: Option<usize>,
    /// How long an inline method takes.
    pub(crate) run_time: RunTime,
}
