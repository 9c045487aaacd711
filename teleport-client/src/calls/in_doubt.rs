//! A call whose connection was lost. Its state is unknown until the next connection reports it.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallState, Ran};

use crate::calls::pending::PendingCall;
use crate::error::call::CallError;

#[derive(Debug)]
pub(crate) struct InDoubtCall {
    pub(crate) call: Arc<PendingCall>,
    /// The part of the call that the server may have received.
    pub(crate) state: CallState,
    /// The time at which its connection was lost.
    pub(crate) since: Instant,
    /// The reason for the end of its connection.
    pub(crate) reason: Arc<Closed>,
}

impl InDoubtCall {
    /// Returns whether its function ran, as far as this side knows.
    pub(crate) fn ran(&self) -> Ran {
        if self.state == CallState::Unsent { Ran::No } else { Ran::Maybe }
    }

    /// Returns the error of a call that cannot continue.
    pub(crate) fn error(&self) -> CallError {
        CallError::lost(self.call.method.clone(), &self.reason, self.ran())
    }
}
