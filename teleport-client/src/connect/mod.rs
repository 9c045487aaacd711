//! Finding the server: names, attempts to connect, the time between them, and the status of the connection.

pub(crate) mod backoff;
pub(crate) mod dial;
pub(crate) mod resolver;
pub(crate) mod status;
