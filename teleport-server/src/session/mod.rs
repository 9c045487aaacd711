//! Calls that survive their connections.

pub(crate) mod records;
#[expect(clippy::module_inception, reason = "the session itself")]
pub(crate) mod session;
pub(crate) mod table;
