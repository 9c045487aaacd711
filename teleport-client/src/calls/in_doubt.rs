//! Calls whose connection was lost, until the next one tells what became of them.
//!
//! Flow: `sent` (which ids the session has used) -> `lost`, and `hold` each call that survives -> `list` for the next
//! connection -> `take` each as its fate is known. A call that was withdrawn meanwhile is no longer here.
//! Pure: no connection, no clock. Bound: the client's slots, which such calls keep.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallState, Id128, Ran, Resume};

use crate::calls::pending::PendingCall;

/// A call without a connection.
#[derive(Debug)]
pub(crate) struct InDoubtCall {
    pub(crate) flight: Arc<PendingCall>,
    /// What the server can have of it.
    pub(crate) state: CallState,
    pub(crate) since: Instant,
    /// Why its connection ended.
    pub(crate) reason: Arc<Closed>,
}

impl InDoubtCall {
    /// Whether its function ran, as far as this side can tell.
    pub(crate) fn ran(&self) -> Ran {
        if self.state == CallState::Unsent { Ran::No } else { Ran::Maybe }
    }
}

#[derive(Debug, Default)]
pub(crate) struct InDoubtCalls {
    calls: BTreeMap<u64, InDoubtCall>,
    /// The server that the calls were made to.
    server: Id128,
    last_id: u64,
    used: bool,
    /// Calls of the current connection that were withdrawn, and whose answers are to be acknowledged all the same.
    unwanted: HashSet<u64>,
}

impl InDoubtCalls {
    /// A call goes out on a connection.
    pub(crate) fn sent(&mut self, id: u64, flight: &PendingCall) {
        self.last_id = self.last_id.max(id);
        self.used |= flight.resumes();
    }

    /// The last id of the session: those of the next connection are above it.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Whether a connection has to begin with a resume: the server may have something of this session.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// What is held was made to this server.
    pub(crate) fn belongs_to(&mut self, server: Id128) {
        self.server = server;
    }

    /// A call was withdrawn, and is still to be answered.
    pub(crate) fn withdrawn(&mut self, id: u64, flight: &PendingCall) {
        if flight.resumes() {
            self.unwanted.insert(id);
        }
    }

    /// A call was withdrawn while the server was asked for it.
    pub(crate) fn unwanted(&mut self, id: u64) {
        self.unwanted.insert(id);
    }

    /// No more is to come of a call that was withdrawn; true if its answer is to be acknowledged.
    pub(crate) fn forget(&mut self, id: u64) -> bool {
        self.unwanted.remove(&id)
    }

    /// The connection is over: what is not held will not be answered.
    pub(crate) fn lost(&mut self) {
        self.unwanted.clear();
    }

    pub(crate) fn hold(&mut self, id: u64, held: InDoubtCall) {
        self.calls.insert(id, held);
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<InDoubtCall> {
        self.calls.remove(&id)
    }

    pub(crate) fn take_all(&mut self) -> Vec<Arc<PendingCall>> {
        std::mem::take(&mut self.calls).into_values().map(|held| held.flight).collect()
    }

    /// Takes those that `is_due`.
    pub(crate) fn take_if(&mut self, is_due: impl Fn(&InDoubtCall) -> bool) -> Vec<InDoubtCall> {
        let due: Vec<u64> = self.calls.iter().filter(|(_, held)| is_due(held)).map(|(id, _)| *id).collect();
        due.into_iter().filter_map(|id| self.calls.remove(&id)).collect()
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = &InDoubtCall> {
        self.calls.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// What the next connection asks.
    pub(crate) fn list(&self) -> Resume {
        Resume { server: self.server, calls: self.calls.iter().map(|(id, held)| (*id, held.state)).collect() }
    }
}
