//! Network addresses, sockets and listeners.

pub(crate) mod address;
pub(crate) mod socket;
