//! What sends calls, waits for answers, connects again and ends clients.
//!
//! [`shared`] holds what all threads of a client share. The other files are what is done with it: [`sending`] by callers,
//! [`events`] and [`resume`] by the thread that reads the connection and by the timer, [`dialing`] by the thread that
//! connects, [`closing`] by the owner of the client.

pub(crate) mod closing;
pub(crate) mod dialing;
pub(crate) mod events;
pub(crate) mod resume;
pub(crate) mod sending;
pub(crate) mod shared;
pub(crate) mod timer;
