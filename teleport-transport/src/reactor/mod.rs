//! Threads that wait for sockets: the poller, its timers, and the spinning before a thread sleeps.

pub(crate) mod adaptive;
pub(crate) mod spin;
pub(crate) mod thread;
mod timers;
