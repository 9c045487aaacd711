//! How threads and functions are told to end, and how long others wait for that.

pub(crate) mod deadline;
pub(crate) mod interrupt;
pub(crate) mod stop;
