//! The state of one connection, without a socket and without a clock: bytes and `now` come in, bytes and events go out.
//!
//! Two halves, so that a thread that sends and a thread that receives do not wait for each other: [`Inbound`] judges and
//! places what arrives, [`Outbound`] holds what will be sent and says what goes next. What one learns for the other (a
//! grant, a ping to answer) goes through [`SharedOutbound`]. `link` puts both on a socket; `simulation` drives two of
//! them against each other in virtual time while everything goes wrong, and `fairness` where nothing does.

mod calls;
mod error;
pub(crate) mod id_map;
mod keepalive;
mod min_rate;
mod receive;
mod resume;
mod send;

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod sim;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use teleport_wire::{CallAnswer, DecodeError, Goodbye, Hello, Order, RemoteError, Resume, Signature, Tree};

pub use self::error::{Closed, ProtocolError, SendError};
pub use self::min_rate::SlowCalls;
pub use self::receive::{Inbound, Received};
pub use self::send::{
    MAX_SEGMENTS_PER_WRITE, MAX_SMALL_BYTES, Outbound, Quota, UnsentBytes, Withdrawn, WriteBuffer,
};
use crate::config::Config;
use crate::memory::budget::Charge;
use crate::memory::rows::Ticket;
use crate::memory::user_held::Loan;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes calls.
    Client,
    /// Answers them.
    Server,
}

/// What pays for the memory of a received message until it is the user's.
#[derive(Debug)]
pub enum Hold {
    /// It has no payload.
    None,
    /// Bytes of the connection's eager credit, to be given back with [`Outbound::give_credit`].
    Eager {
        /// Payload bytes.
        bytes: u64,
    },
    /// Bytes of a budget; given back when dropped.
    Charged(Charge),
    /// As one of those above, of a message that is whole: where the memory is counted that users hold, it counts from when
    /// this is dropped.
    Lent {
        /// Bytes of a budget.
        charge: Option<Charge>,
        /// Bytes of the connection's eager credit, to be given back; 0 for none.
        eager_bytes: u64,
        /// Begins to count when it is dropped.
        loan: Loan,
    },
}

impl Hold {
    /// Bytes of the connection's eager credit, to be given back with [`Outbound::give_credit`]; 0 for none.
    pub fn eager_bytes(&self) -> u64 {
        match self {
            Hold::Eager { bytes } | Hold::Lent { eager_bytes: bytes, .. } => *bytes,
            Hold::None | Hold::Charged(_) => 0,
        }
    }

    fn with_loan(self, loan: Option<Loan>) -> Hold {
        match (loan, self) {
            (None, hold) => hold,
            (Some(loan), Hold::Charged(charge)) => Hold::Lent { charge: Some(charge), eager_bytes: 0, loan },
            (Some(loan), hold) => Hold::Lent { charge: None, eager_bytes: hold.eager_bytes(), loan },
        }
    }
}

/// A call, received whole.
#[derive(Debug)]
pub struct IncomingCall {
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
    /// What pays for the arguments' memory.
    pub hold: Hold,
}

/// What a connection tells the layer above.
#[derive(Debug)]
pub enum Event {
    /// The peer said hello: messages can be sent.
    Open(Hello),
    /// A message waits until its memory is paid for; answer with [`Inbound::grant`].
    Wants {
        /// The message.
        id: u64,
        /// Its payload.
        bytes: u64,
    },
    /// A call arrived (on a server).
    Call(IncomingCall),
    /// A call of ours was answered (on a client).
    Answer {
        /// The call.
        id: u64,
        /// Its result with what pays for it, or the error that the server or the connection found.
        answer: Result<(Result<Tree, DecodeError>, Hold), RemoteError>,
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
    /// A client has calls of an earlier connection, and waits for [`Outbound::answer_resume`] (on a server).
    Resume(Resume),
    /// The server said what became of the calls that [`Outbound::resume`] listed (on a client). Those that it has are open
    /// on this connection.
    Resumed {
        /// In the order of the list.
        calls: Vec<(u64, CallAnswer)>,
    },
    /// A message was given up before it was whole; its memory is free again.
    Dropped {
        /// What paid for it.
        hold: Hold,
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

/// Reaches the sending half from the receiving one, for a moment.
pub trait SharedOutbound {
    /// Runs `change` on the sending half. It must not block.
    fn with<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> T;
}

impl SharedOutbound for Mutex<Outbound> {
    fn with<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> T {
        change(&mut self.lock())
    }
}

impl SharedOutbound for RefCell<Outbound> {
    fn with<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> T {
        change(&mut self.borrow_mut())
    }
}

/// Both halves of a new connection. Preface and hello wait to be staged.
pub fn halves(role: Role, config: &Arc<Config>, now: Instant) -> (Inbound, Outbound) {
    (Inbound::new(role, config.clone(), now), Outbound::new(role, config))
}
