//! The reasons for the end of a connection and for the refusal of a message. The texts name the value, the
//! limit and the remedy.

use std::io;
use std::time::Duration;

use teleport_wire::{DecodeError, ErrorKind, Kind};

use crate::role::Role;

/// A rule of the format that the peer broke. Only this connection ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The bytes are not valid in the format.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A frame arrived before the peer's hello.
    #[error("{kind} came before the hello")]
    BeforeHello {
        /// The frame.
        kind: Kind,
    },
    /// A frame arrived after the peer's goodbye.
    #[error("{kind} came after the goodbye")]
    AfterGoodbye {
        /// The frame.
        kind: Kind,
    },
    /// A frame of a kind that this side does not accept now.
    #[error("{kind} is not allowed here: this is the {role:?} and the hellos agreed on no such thing")]
    NotAllowed {
        /// The frame.
        kind: Kind,
        /// The side that received it.
        role: Role,
    },
    /// A frame names a message that does not exist.
    #[error("{kind} names message {id}, which is not open")]
    UnknownId {
        /// The frame.
        kind: Kind,
        /// The unknown id.
        id: u64,
    },
    /// A resume arrived after a call, a call before the answer to a resume, or an answer with other ids.
    #[error(
        "{kind} came out of turn: a resume stands before all calls, which wait for its answer of the same ids"
    )]
    OutOfTurn {
        /// The frame.
        kind: Kind,
    },
    /// The id of a call is not larger than that of the call before.
    #[error("call {id} came after call {last_id}: ids must increase")]
    ReusedId {
        /// The call.
        id: u64,
        /// The newest call before it.
        last_id: u64,
    },
    /// An answer arrived for a call that was never made, was answered, or was withdrawn.
    #[error("an answer came for call {id}, which is not open")]
    UnexpectedAnswer {
        /// The id of that call.
        id: u64,
    },
    /// A result arrived for a call that the server cannot have completely.
    #[error("a result came for call {id}, whose payload was not sent to its end")]
    EarlyResult {
        /// The call.
        id: u64,
    },
    /// The peer has more open calls than the hello allows.
    #[error(
        "more than {max_open_calls} calls without an answer, or twice as many not sent whole (the server's `max_open_calls`)"
    )]
    TooManyCalls {
        /// The limit that was sent in the hello.
        max_open_calls: u32,
    },
    /// Payload arrived for a message that was not granted.
    #[error("payload of message {id} came before its grant")]
    NotGranted {
        /// The message.
        id: u64,
    },
    /// A chunk exceeds the rest of its message.
    #[error("more payload for message {id} than the {bytes} bytes that its metadata announced")]
    TooMuchData {
        /// The message.
        id: u64,
        /// The bytes that its metadata announced.
        bytes: u64,
    },
    /// An inline payload is shorter or longer than its message.
    #[error("{found} bytes of inline payload for message {id}, whose metadata announced {bytes}")]
    InlineBytes {
        /// The message.
        id: u64,
        /// The length of the inline payload.
        found: u64,
        /// The bytes that its metadata announced.
        bytes: u64,
    },
    /// More eager payload arrived than there was credit for.
    #[error("{bytes} eager bytes go past the credit of {max_bytes}")]
    CreditOverrun {
        /// The message's payload.
        bytes: u64,
        /// The whole credit of the connection.
        max_bytes: u64,
    },
    /// The peer returned more credit than was used.
    #[error("{bytes} bytes of credit given back go past the {max_bytes} that there are")]
    TooMuchCredit {
        /// The returned credit.
        bytes: u64,
        /// The whole credit of the connection.
        max_bytes: u64,
    },
    /// A message without payload claims eager credit.
    #[error("message {id} has no payload but claims eager credit")]
    EagerWithoutPayload {
        /// The message.
        id: u64,
    },
}

/// The reason for the end of a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// This side closed it.
    #[error("this side closed the connection")]
    Here,
    /// The peer said goodbye.
    #[error("the peer closed the connection{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Goodbye {
        /// The error that caused it; `None` for a plain close.
        kind: Option<ErrorKind>,
        /// The peer's text; may be empty.
        reason: String,
    },
    /// The stream ended without a goodbye: the peer died, or the network failed.
    #[error("the connection broke{}", error.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Lost {
        /// The system's error; `None` at the end of the stream.
        error: Option<io::Error>,
    },
    /// Nothing arrived for too long, not even the answer to a ping.
    #[error(
        "nothing came for {silence:.1?}, longer than `max_silence` ({max_silence:?}): the peer hangs or is cut off"
    )]
    NotAlive {
        /// The time since the last bytes.
        silence: Duration,
        /// The configured limit.
        max_silence: Duration,
    },
    /// The peer did not complete the handshake in time.
    #[error("no hello within {waited:?} (`handshake_timeout`)")]
    NoHandshake {
        /// The configured limit.
        waited: Duration,
    },
    /// A frame arrived too slowly while others waited for its memory.
    #[error(
        "a call's metadata came slower than {min_rate} bytes per second (`min_rate`) while others waited for memory"
    )]
    TooSlow {
        /// The configured limit.
        min_rate: u64,
    },
    /// The peer broke a rule of the format.
    #[error("the peer does not keep to the protocol: {0}")]
    Protocol(#[from] ProtocolError),
}

impl ProtocolError {
    /// Returns true if the peer does not use this format at all and would not understand a reason.
    pub fn is_stranger(&self) -> bool {
        matches!(self, ProtocolError::Decode(DecodeError::Preface(_)))
    }
}

impl Closed {
    /// Returns the error kind of the peer's goodbye, if it has one.
    pub fn goodbye_kind(&self) -> Option<ErrorKind> {
        match self {
            Closed::Goodbye { kind, .. } => *kind,
            _ => None,
        }
    }
}

/// The reason why a connection refuses a message of this side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer's hello has not arrived yet.
    #[error("the connection is not open yet")]
    NotReady,
    /// The connection has ended or is ending.
    #[error("the connection is closed")]
    Closed,
    /// The peer's limit on open calls is reached.
    #[error(
        "{max_open_calls} calls are open, which is all that the server allows a connection (`max_open_calls`)"
    )]
    TooManyCalls {
        /// The limit from the peer's hello.
        max_open_calls: u32,
    },
    /// The caller's `register` refused the call.
    #[error("the call was refused by the layer above")]
    Refused,
    /// The message cannot be encoded where it is queued, because it is large or has a new shape. It must be
    /// encoded first.
    #[error("the message must be encoded before it is sent")]
    Unencoded,
    /// This process was forked from the one that owns the connection.
    #[error("the connection belongs to the process that this one was forked from")]
    Forked,
    /// The call was answered or withdrawn already.
    #[error("call {id} is not open: it was answered, or withdrawn by its caller")]
    NotOpen {
        /// The call.
        id: u64,
    },
}
