//! What users see: the server and its options, methods, the context of a call, errors and numbers.

pub(crate) mod batch_options;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod handle;
pub(crate) mod list;
pub(crate) mod method;
pub(crate) mod methods;
pub(crate) mod name;
pub(crate) mod options;
pub(crate) mod server;
pub(crate) mod stats;
