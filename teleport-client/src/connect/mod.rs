//! Finding the server: resolvers, attempts to connect, and the time between them.

pub(crate) mod backoff;
pub(crate) mod dial;
pub(crate) mod resolver;
