//! What becomes of a call in flight when its connection is lost.

/// What becomes of a call in flight when its connection is lost. Chosen for a client
/// ([`on_disconnect`](crate::ClientBuilder::on_disconnect)) or a call ([`on_disconnect`](crate::Call::on_disconnect)).
///
/// The client connects again by itself in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// It fails with [`CallError::Disconnected`](crate::CallError::Disconnected) or
    /// [`NotAlive`](crate::CallError::NotAlive); [`ran`](crate::CallError::ran) says *maybe*, or *no* if not a byte of it had
    /// left.
    #[default]
    Fail,
    /// It survives: the client keeps the arguments until the server has them, the server keeps the result until the client
    /// has it, and on the next connection both agree on what became of the call. So it runs at most once, and what has
    /// arrived is not sent again. Costs an acknowledgement each way.
    ///
    /// It fails all the same if there is no connection for `connect_timeout`; if the server has dropped the result meanwhile
    /// ([`ErrorKind::Expired`](crate::wire::ErrorKind::Expired), it ran); and if the server has restarted, unless the call is
    /// [`idempotent`](crate::Call::idempotent), or had not begun to leave: then it is sent to the new one. The same holds for a
    /// server that closes before the call has started.
    Resume,
}
