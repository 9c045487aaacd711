//! Why calls fail, and why clients do not connect.

pub(crate) mod call;
pub(crate) mod connect;
