//! The part of a method that its calls use: the name, and where they run.

use std::sync::Arc;

use crate::call::run_time::RunTime;

/// The place where a method's calls run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// On the thread that received them.
    Inline,
    /// In the pool with this number.
    Pool(usize),
    /// In the batcher with this number.
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
    /// The run time of an inline method.
    pub(crate) run_time: RunTime,
}
