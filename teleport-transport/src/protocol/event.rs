//! What a connection tells the layer above, and what it asks it.

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
    /// When the caller stops waiting; none if it waits for as long as it takes.
    pub deadline: Option<Instant>,
    /// Whether the caller allows it to run twice.
    pub idempotent: bool,
    /// Whether it survives the connection: to be acknowledged, and its answer kept until the caller has it.
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

/// What a connection tells the layer above.
#[derive(Debug)]
pub enum Event {
    /// The peer said hello: messages can be sent.
    Open(Hello),
    /// A message waits until its memory is paid for; answer with [`Inbound::grant`](super::Inbound::grant).
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
    /// A client has calls of an earlier connection, and waits for [`Outbound::answer_resume`](super::Outbound::answer_resume) (on a server).
    Resume(Resume),
    /// The server said what became of the calls that [`Outbound::resume`](super::Outbound::resume) listed (on a client). Those that it has are open
    /// on this connection.
    Resumed {
        /// In the order of the list.
        calls: Vec<(u64, CallAnswer)>,
    },
    /// A message that waited for memory will not come.
    Withdrawn {
        /// The message.
        id: u64,
    },
    /// The peer sends nothing any more.
    Goodbye(Goodbye),
}

/// Decides about calls when their metadata has come and no byte of payload was accepted. Called with the receiving half
/// locked: it must not block, nor use the connection.
pub trait Gate {
    /// Gives a number for `method` that the call will carry, or refuses the call.
    ///
    /// # Errors
    /// What the caller is told; the call's payload is then not received.
    fn admit(&self, method: &str, payload_bytes: u64) -> Result<u32, RemoteError>;

    /// Looks at what the arguments of a call are that was admitted as `slot`, before any memory is granted to them. Allows
    /// all by default.
    ///
    /// # Errors
    /// What the caller is told; the call's payload is then not received.
    fn admit_tree(&self, _slot: u32, _signature: &Arc<Signature>) -> Result<(), RemoteError> {
        Ok(())
    }

    /// Gives a row of a slab for the arguments of a call, whose memory is paid for, right before the first byte of its
    /// payload is received; none to have them in memory of their own, which is the default. The row is of this signature.
    ///
    /// # Errors
    /// What the caller is told; the call's payload is then dropped as it comes.
    fn place(
        &self,
        _slot: u32,
        _signature: &Arc<Signature>,
        _order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        Ok(None)
    }
}
