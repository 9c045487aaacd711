//! The setting for calls in flight when their connection is lost.

/// Decides what happens to a call in flight when its connection is lost.
///
/// It is set for a [client](crate::ClientBuilder::on_disconnect) or a [call](crate::Call::on_disconnect).
/// The client connects again by itself in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// The call fails with [`CallError::Disconnected`](crate::CallError::Disconnected) or
    /// [`NotAlive`](crate::CallError::NotAlive). [`ran`](crate::CallError::ran) returns *maybe*, or *no* if
    /// no byte of it was sent.
    #[default]
    Fail,
    /// The call survives.
    ///
    /// The client keeps the arguments until the server has them, and the server keeps the result until the
    /// client has it. On the next connection both agree on the state of the call. So it runs at most once,
    /// and complete messages are not sent again. Costs an acknowledgement each way.
    ///
    /// The call still fails
    /// - if there is no connection for `connect_timeout`,
    /// - if the server has dropped the result meanwhile
    ///   ([`ErrorKind::Expired`](crate::wire::ErrorKind::Expired), it ran),
    /// - if the server has restarted, or closed before the call started. In this case, a call that is
    ///   [`idempotent`](crate::Call::idempotent), or of which no byte was sent, is sent to the new server
    ///   instead.
    Resume,
}
