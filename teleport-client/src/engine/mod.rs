//! The engine of a client: it sends calls, waits for answers, reconnects and ends the client.
//!
//! [`shared`] holds the state. Callers use [`sending`], the thread that reads the connection and the timer
//! use [`events`] and [`resume`], the thread that connects uses [`dialing`], the owner of the client
//! [`closing`].

pub(crate) mod closing;
pub(crate) mod dialing;
pub(crate) mod events;
pub(crate) mod last_link;
pub(crate) mod resume;
pub(crate) mod sending;
pub(crate) mod shared;
pub(crate) mod timer;
