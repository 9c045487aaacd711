//! A running server: what its threads share, their start and end, timers and counters.

pub(crate) mod counters;
pub(crate) mod deadlines;
pub(crate) mod lifecycle;
pub(crate) mod log_limit;
pub(crate) mod shared;
pub(crate) mod supervisor;
