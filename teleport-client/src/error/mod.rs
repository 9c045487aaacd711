//! The errors of calls and of connecting.

pub(crate) mod call;
pub(crate) mod connect;
