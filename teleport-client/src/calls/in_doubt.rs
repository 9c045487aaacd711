//! A call whose connection was lost. Its state is unknown until the next connection reports it.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallState, Key, Ran};

use crate::error::call::CallError;

#[derive(Clone, Debug)]
pub(crate) struct InDoubt {
    /// The part of the call that the server may have received.
    pub(crate) state: CallState,
    /// The time at which its connection was lost.
    pub(crate) since: Instant,
    /// The reason for the end of its connection.
    pub(crate) reason: Arc<Closed>,
}

impl InDoubt {
    /// Returns whether its function ran, as far as this side knows.
    pub(crate) fn ran(&self) -> Ran {
        if self.state == CallState::Unsent { Ran::No } else { Ran::Maybe }
    }

    /// Returns the error of a call of `method` that cannot continue.
    pub(crate) fn error(&self, method: &Key) -> CallError {
        CallError::lost(method.clone(), &self.reason, self.ran())
    }
}
