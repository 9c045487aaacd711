//! Calls that survive their connections: `records` is what a session knows of its calls, `session` one
//! session, and `table` all sessions of a server.

pub(crate) mod records;
#[expect(clippy::module_inception, reason = "the session itself")]
pub(crate) mod session;
pub(crate) mod table;
