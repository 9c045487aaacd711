//! The state of calls, without sockets, threads or clocks.

pub(crate) mod counters;
pub(crate) mod deferred_results;
pub(crate) mod failures;
pub(crate) mod in_doubt;
pub(crate) mod pending;
pub(crate) mod resume;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod table;
