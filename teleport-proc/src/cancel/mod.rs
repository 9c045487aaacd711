//! Requests to threads and functions to end, and the waits for that.

pub(crate) mod deadline;
pub(crate) mod interrupt;
pub(crate) mod stop;
pub(crate) mod waiters;
pub(crate) mod wake_pipe;
