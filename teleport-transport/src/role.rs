//! The two ends of a connection.

/// The role of one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes calls.
    Client,
    /// Answers them.
    Server,
}
