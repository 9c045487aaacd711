//! A call whose connection was lost: nobody knows what became of it, until the next connection tells.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallState, Ran};

use crate::calls::pending::PendingCall;
use crate::error::call::CallError;

#[derive(Debug)]
pub(crate) struct InDoubtCall {
    pub(crate) call: Arc<PendingCall>,
    /// How much of it the server can have.
    pub(crate) state: CallState,
    /// When its connection was lost.
    pub(crate) since: Instant,
    /// Why its connection ended.
    pub(crate) reason: Arc<Closed>,
}

impl InDoubtCall {
    /// Returns whether its function ran, as far as this side can tell.
    pub(crate) fn ran(&self) -> Ran {
        if self.state == CallState::Unsent { Ran::No } else { Ran::Maybe }
    }

    /// The error of a call that does not go on.
    pub(crate) fn error(&self) -> CallError {
        CallError::lost(self.call.method.clone(), &self.reason, self.ran())
    }
}
