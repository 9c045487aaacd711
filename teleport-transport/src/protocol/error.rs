//! Why a connection ends, and why it refuses a message. The texts name the value, the limit and the
//! remedy.

use std::io;
use std::time::Duration;

use teleport_wire::{DecodeError, ErrorKind, Kind};

use crate::role::Role;

/// A rule of the format that the peer broke. The connection ends; no other is touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The bytes themselves are not of the format.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A frame came before the peer's hello.
    #[error("{kind} came before the hello")]
    BeforeHello {
        /// The frame.
        kind: Kind,
    },
    /// A frame came after the peer's goodbye.
    #[error("{kind} came after the goodbye")]
    AfterGoodbye {
        /// The frame.
        kind: Kind,
    },
    /// A frame of a kind that this side does not receive now.
    #[error("{kind} is not allowed here: this is the {role:?} and the hellos agreed on no such thing")]
    NotAllowed {
        /// The frame.
        kind: Kind,
        /// Which side received it.
        role: Role,
    },
    /// A frame names a message that does not exist.
    #[error("{kind} names message {id}, which is not open")]
    UnknownId {
        /// The frame.
        kind: Kind,
        /// What it named.
        id: u64,
    },
    /// A resume came after a call, a call before the answer to a resume, or an answer with other ids.
    #[error(
        "{kind} came out of turn: a resume stands before all calls, which wait for its answer of the same ids"
    )]
    OutOfTurn {
        /// The frame.
        kind: Kind,
    },
    /// A call's id is not above that of the call before.
    #[error("call {id} came after call {last_id}: ids must increase")]
    ReusedId {
        /// The call.
        id: u64,
        /// The newest one before it.
        last_id: u64,
    },
    /// An answer came to a call that was never made, was answered, or was withdrawn.
    #[error("an answer came for call {id}, which is not open")]
    UnexpectedAnswer {
        /// What it named.
        id: u64,
    },
    /// A result came of a call that the server cannot have whole.
    #[error("a result came for call {id}, whose payload was not sent to its end")]
    EarlyResult {
        /// The call.
        id: u64,
    },
    /// More calls came at once than the hello allows.
    #[error(
        "more than {max_open_calls} calls without an answer, or twice as many not sent whole (the server's `max_open_calls`)"
    )]
    TooManyCalls {
        /// The limit that was sent in the hello.
        max_open_calls: u32,
    },
    /// Payload came for a message that was not granted.
    #[error("payload of message {id} came before its grant")]
    NotGranted {
        /// The message.
        id: u64,
    },
    /// A chunk goes past the end of its message.
    #[error("more payload for message {id} than the {bytes} bytes that its metadata announced")]
    TooMuchData {
        /// The message.
        id: u64,
        /// What its metadata announced.
        bytes: u64,
    },
    /// More eager payload came than there was credit for.
    #[error("{bytes} eager bytes go past the credit of {max_bytes}")]
    CreditOverrun {
        /// The message's payload.
        bytes: u64,
        /// The whole credit of the connection.
        max_bytes: u64,
    },
    /// More credit was given back than was used.
    #[error("{bytes} bytes of credit given back go past the {max_bytes} that there are")]
    TooMuchCredit {
        /// What was given back.
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

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// This side closed it.
    #[error("this side closed the connection")]
    Here,
    /// The peer said goodbye.
    #[error("the peer closed the connection{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Goodbye {
        /// The error that caused it; none for a plain close.
        kind: Option<ErrorKind>,
        /// Its text; may be empty.
        reason: String,
    },
    /// The stream ended without a goodbye: the peer died, or the network between.
    #[error("the connection broke{}", error.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Lost {
        /// The system's error; none at the end of the stream.
        error: Option<io::Error>,
    },
    /// Nothing came for too long, not even the answer to a ping.
    #[error(
        "nothing came for {silence:.1?}, longer than `max_silence` ({max_silence:?}): the peer hangs or is cut off"
    )]
    NotAlive {
        /// How long nothing came.
        silence: Duration,
        /// The configured limit.
        max_silence: Duration,
    },
    /// The peer did not introduce itself in time.
    #[error("no hello within {waited:?} (`handshake_timeout`)")]
    NoHandshake {
        /// The configured limit.
        waited: Duration,
    },
    /// A frame came too slowly while others waited for its memory.
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
    /// Returns true if the peer does not speak the format at all, and would not understand a reason.
    pub fn is_stranger(&self) -> bool {
        matches!(self, ProtocolError::Decode(DecodeError::Preface(_)))
    }
}

impl Closed {
    /// Returns the kind that the peer gave in its goodbye, if any.
    pub fn goodbye_kind(&self) -> Option<ErrorKind> {
        match self {
            Closed::Goodbye { kind, .. } => *kind,
            _ => None,
        }
    }
}

/// Why a connection takes no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer's hello has not come yet.
    #[error("the connection is not open yet")]
    NotReady,
    /// The connection is over or ending.
    #[error("the connection is closed")]
    Closed,
    /// As many calls are open as the peer allows.
    #[error(
        "{max_open_calls} calls are open, which is all that the server allows a connection (`max_open_calls`)"
    )]
    TooManyCalls {
        /// The limit of the peer's hello.
        max_open_calls: u32,
    },
    /// This process was forked from the one that owns the connection.
    #[error("the connection belongs to the process that this one was forked from")]
    Forked,
    /// The call to answer has been answered, or was withdrawn.
    #[error("call {id} is not open: it was answered, or withdrawn by its caller")]
    NotOpen {
        /// The call.
        id: u64,
    },
}
