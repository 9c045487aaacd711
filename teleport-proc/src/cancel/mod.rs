//! How threads and functions learn that they should end, and how long others wait for that.

pub(crate) mod deadline;
pub(crate) mod interrupt;
pub(crate) mod stop;
pub(crate) mod waiters;
pub(crate) mod wake_pipe;
