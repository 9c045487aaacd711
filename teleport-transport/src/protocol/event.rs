//! The events of a connection, and the decisions that it asks of the layer above.

use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{CallAnswer, DecodeError, Goodbye, Hello, Order, RemoteError, Resume, Signature, Tree};

use super::ledger::Lease;
use crate::memory::rows::Ticket;

/// A call, received whole.
#[derive(Debug)]
pub struct Call {
    /// Names the call on this connection; the answer carries it.
    pub id: u64,
    /// What [`Gate::admit`] gave for its method.
    pub slot: u32,
    /// The arguments; an error where a string is not UTF-8. Null if they are in `row`.
    pub tree: Result<Tree, DecodeError>,
    /// The row that the arguments were received into, if [`Gate::place`] gave one.
    pub row: Option<Ticket>,
    /// When the caller stops waiting, if it said so.
    pub deadline: Option<Instant>,
    /// The caller allows the call to run twice.
    pub idempotent: bool,
    /// The call survives the connection: it is to be acknowledged, and its answer kept until the caller
    /// has it.
    pub resume: bool,
    /// Pays for the arguments' memory.
    pub lease: Lease,
}

/// A result, received whole.
#[derive(Debug)]
pub struct Reply {
    /// The result; an error where a string is not UTF-8.
    pub tree: Result<Tree, DecodeError>,
    /// Pays for its memory.
    pub lease: Lease,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The peer said hello: messages can be sent.
    Open(Hello),
    /// A message waits until its memory is paid for: call
    /// [`Inbound::send_grant`](super::Inbound::send_grant).
    Wants {
        /// The message.
        id: u64,
        /// Its payload.
        bytes: u64,
    },
    /// A call arrived (on a server).
    Call(Call),
    /// A call of ours was answered (on a client).
    Answer {
        /// The call.
        id: u64,
        /// Its result, or the error that the server or the connection found.
        answer: Result<Reply, RemoteError>,
    },
    /// The peer no longer wants the answer to a call, which may be running.
    Cancel {
        /// The call.
        id: u64,
    },
    /// The peer has these messages whole: calls of ours (on a client), or answers (on a server).
    Acknowledged {
        /// The calls.
        ids: Vec<u64>,
    },
    /// A client has calls of an earlier connection, and waits for
    /// [`Outbound::send_resume_answer`](super::Outbound::send_resume_answer) (on a server).
    Resume(Resume),
    /// The server said what became of the calls that
    /// [`Outbound::send_resume`](super::Outbound::send_resume) listed (on a client). The calls that it
    /// has are open on this connection.
    Resumed {
        /// In the order of the list.
        calls: Vec<(u64, CallAnswer)>,
    },
    /// A message that waited for memory will not come.
    Withdrawn {
        /// The message.
        id: u64,
    },
    /// The peer sends nothing more.
    Goodbye(Goodbye),
}

/// Decides about calls whose metadata has come and of which no payload was accepted. Its methods are
/// called with the receiving half locked: they must not block or use the connection.
pub trait Gate {
    /// Returns a number for `method`, which the call carries as its `slot`, or refuses the call.
    ///
    /// # Errors
    /// The answer to the call, whose payload is then not received.
    fn admit(&self, method: &str, payload_bytes: u64) -> Result<u32, RemoteError>;

    /// Checks the arguments of a call that was admitted as `slot`, before any memory is granted to
    /// them. Allows all by default.
    ///
    /// # Errors
    /// The answer to the call, whose payload is then not received.
    fn admit_tree(&self, _slot: u32, _signature: &Arc<Signature>) -> Result<(), RemoteError> {
        Ok(())
    }

    /// Returns a row of this signature for the arguments of a call, right before the first byte of its
    /// payload is received; none to receive them into memory of their own, which is the default. Their
    /// memory is paid for.
    ///
    /// # Errors
    /// The answer to the call, whose payload is then dropped as it comes.
    fn place(
        &self,
        _slot: u32,
        _signature: &Arc<Signature>,
        _order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        Ok(None)
    }
}
