//! Where to listen and connect: addresses, sockets, listeners.

pub(crate) mod address;
pub(crate) mod socket;
