//! Threads that wait for many sockets at once. They know connections only through the trait
//! [`Source`](source::Source).

pub(crate) mod accept;
pub(crate) mod adaptive;
mod event_loop;
pub(crate) mod mailbox;
pub(crate) mod poller;
pub(crate) mod source;
pub(crate) mod spin;
mod timers;
pub(crate) mod wakers;

#[cfg(test)]
pub(crate) use event_loop::still::StillPoller;
