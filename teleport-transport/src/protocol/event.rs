//! The events of a connection, and the decisions that it asks of the layer above.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use teleport_wire::{CallAnswer, DecodeError, Goodbye, Hello, Order, RemoteError, Resume, Signature, Tree};

use super::ledger::Lease;
use crate::memory::rows::Ticket;

/// A complete call.
#[derive(Debug)]
pub struct Call {
    /// The id of the call on this connection. The answer carries it.
    pub id: u64,
    /// The number that [`Gate::admit`] returned for its method.
    pub slot: u32,
    /// The arguments, or an error if a string is not UTF-8. Null if they are in `row`.
    pub tree: Result<Tree, DecodeError>,
    /// The row with the arguments, if [`Gate::place`] returned one.
    pub row: Option<Ticket>,
    /// The time at which the caller stops waiting, if there is one.
    pub deadline: Option<Instant>,
    /// The caller allows the call to run twice.
    pub idempotent: bool,
    /// The call survives the connection. It must be acknowledged, and its answer kept until the caller has
    /// it.
    pub resume: bool,
    /// Pays for the arguments' memory, if they take more than 4 KiB.
    pub lease: Lease,
}

/// A complete result.
#[derive(Debug)]
pub struct Reply {
    /// The result, or an error if a string is not UTF-8.
    pub tree: Result<Tree, DecodeError>,
    /// Pays for its memory, if it takes more than 4 KiB.
    pub lease: Lease,
}

/// The answer to a call: its result, or an error from the server or the connection.
pub type Answer = Result<Reply, RemoteError>;

/// The most ids that need no allocation. They take less room than a call.
const MAX_FEW_IDS: usize = 8;

/// A list of ids, most often a short one.
pub struct Ids(IdList);

enum IdList {
    Few { ids: [u64; MAX_FEW_IDS], count: usize },
    Many(Vec<u64>),
}

impl FromIterator<u64> for Ids {
    fn from_iter<I: IntoIterator<Item = u64>>(ids: I) -> Ids {
        let mut rest = ids.into_iter();
        let (mut ids, mut count) = ([0; MAX_FEW_IDS], 0);
        while let Some(id) = rest.next() {
            if count == MAX_FEW_IDS {
                return Ids(IdList::Many(ids.into_iter().chain([id]).chain(rest).collect()));
            }
            ids[count] = id;
            count += 1;
        }
        Ids(IdList::Few { ids, count })
    }
}

impl Deref for Ids {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match &self.0 {
            IdList::Few { ids, count } => &ids[..*count],
            IdList::Many(ids) => ids,
        }
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// An event of a connection.
#[derive(Debug)]
pub enum Event {
    /// The peer's hello arrived: messages can be sent.
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
    /// A call of this side was answered (on a client).
    Answer {
        /// The call.
        id: u64,
        /// Its answer.
        answer: Answer,
    },
    /// The peer no longer wants the answer to a call. The call may be running.
    Cancel {
        /// The call.
        id: u64,
    },
    /// The peer has received these messages completely: calls of this side (on a client), or answers (on a
    /// server).
    Acknowledged {
        /// The calls.
        ids: Ids,
    },
    /// A client asks for its calls of earlier connections, and waits for
    /// [`Outbound::send_resume_answer`](super::Outbound::send_resume_answer) (on a server).
    Resume(Resume),
    /// The server answered [`Outbound::send_resume`](super::Outbound::send_resume) (on a client). The calls
    /// that it has are open on this connection.
    Resumed {
        /// The calls in the order of the request.
        calls: Vec<(u64, CallAnswer)>,
    },
    /// A message that waited for memory was withdrawn.
    Withdrawn {
        /// The message.
        id: u64,
    },
    /// The peer sends nothing more.
    Goodbye(Goodbye),
}

/// Decides about calls whose metadata has arrived, before any payload is accepted. The methods run with the
/// receiving half locked: they must not block or use the connection. [`admit`](Gate::admit),
/// [`admit_again`](Gate::admit_again) and [`has_rows`](Gate::has_rows) may run with the sending half locked
/// too: they must not take a lock under which anybody uses a connection.
pub trait Gate {
    /// Admits a call of `method` and returns the `slot` of the call, or refuses it.
    ///
    /// # Errors
    /// Returns the answer to the call. Its payload is then not received.
    fn admit(&self, method: &str, payload_bytes: u64) -> Result<u32, RemoteError>;

    /// Admits another call like one that was admitted as `slot` on the same connection: the method, the order
    /// and the signature are the same. Decides only what may have changed since then. Accepts all by default.
    ///
    /// # Errors
    /// Returns the answer to the call. Its payload is then not received.
    fn admit_again(&self, _slot: u32) -> Result<(), RemoteError> {
        Ok(())
    }

    /// Returns true if the calls of this `slot` must be asked about with [`admit_tree`](Gate::admit_tree) and
    /// [`place`](Gate::place). The answer never changes. True by default.
    fn has_rows(&self, _slot: u32) -> bool {
        true
    }

    /// Checks the arguments of each call that was admitted as `slot`, before memory is granted to them.
    /// Accepts all by default.
    ///
    /// # Errors
    /// Returns the answer to the call. Its payload is then not received.
    fn admit_tree(&self, _slot: u32, _signature: &Arc<Signature>) -> Result<(), RemoteError> {
        Ok(())
    }

    /// Returns a row of this signature for the arguments of a call, right before their first byte is
    /// received. Returns `None` to receive them into memory of their own, which is the default. Their memory
    /// is already charged.
    ///
    /// # Errors
    /// Returns the answer to the call. Its payload is then dropped as it arrives.
    fn place(
        &self,
        _slot: u32,
        _signature: &Arc<Signature>,
        _order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_ids_has_all_of_them() {
        for count in [0, 1, MAX_FEW_IDS as u64, MAX_FEW_IDS as u64 + 1, 100] {
            let ids: Ids = (1..=count).collect();
            assert!(ids.iter().copied().eq(1..=count));
            assert_eq!(matches!(ids.0, IdList::Few { .. }), count <= MAX_FEW_IDS as u64);
        }
    }
}
