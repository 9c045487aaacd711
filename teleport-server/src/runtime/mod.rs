//! State that all threads of a running server share: its life, deadlines, counters and connections.

pub(crate) mod connections;
pub(crate) mod counters;
pub(crate) mod deadlines;
pub(crate) mod lifecycle;
pub(crate) mod log_limit;
pub(crate) mod shared;
