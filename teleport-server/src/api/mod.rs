//! The public interface: the server and its options, functions, errors and statistics.

pub(crate) mod batch_options;
pub(crate) mod error;
pub(crate) mod functions;
pub(crate) mod handle;
pub(crate) mod options;
pub(crate) mod server;
pub(crate) mod stats;
