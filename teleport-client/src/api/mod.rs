//! The public interface: clients, calls, futures and statistics.

pub(crate) mod builder;
pub(crate) mod call;
pub(crate) mod client;
pub(crate) mod collect;
pub(crate) mod future;
pub(crate) mod method;
pub(crate) mod on_disconnect;
pub(crate) mod stats;
