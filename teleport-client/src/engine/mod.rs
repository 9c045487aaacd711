//! What sends calls, waits for answers and ends clients.

pub(crate) mod resume;
pub(crate) mod shared;
pub(crate) mod timer;
