//! Calls that survive their connections: `records` holds the calls of a session, `session` is one session,
//! and `table` holds all sessions of a server.

pub(crate) mod records;
#[expect(clippy::module_inception, reason = "the session itself")]
pub(crate) mod session;
pub(crate) mod table;
