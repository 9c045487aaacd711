//! The two ends of a connection.

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes calls.
    Client,
    /// Answers them.
    Server,
}
