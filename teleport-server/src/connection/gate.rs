//! Admits calls before their arguments arrive, and chooses the memory for these.

use std::sync::Arc;

use teleport_transport::Ticket;
use teleport_transport::protocol::Gate;
use teleport_transport::wire::{Order, RemoteError, Signature};

use crate::batch::batcher::Batcher;
use crate::call::refusal::closing;
use crate::call::route::Route;
use crate::connection::dispatch::Connection;
use crate::runtime::counters::Counted;

impl Connection {
    /// Returns the batcher of a method; `None` if the method is not batched.
    fn batcher(&self, slot: u32) -> Option<&Arc<Batcher>> {
        match self.dispatcher.registry.method(slot)?.route {
            Route::Batch(batcher) => Some(self.dispatcher.batcher(batcher)),
            Route::Inline | Route::Pool(_) => None,
        }
    }

    fn check_open(&self) -> Result<(), RemoteError> {
        if self.dispatcher.shared.lifecycle.is_closing() { Err(self.refused(closing())) } else { Ok(()) }
    }

    /// Counts a call that is refused.
    #[cold]
    fn refused(&self, error: RemoteError) -> RemoteError {
        self.dispatcher.shared.counters.here().add(Counted::Refused);
        error
    }
}

impl Gate for Connection {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        self.check_open()?;
        self.dispatcher.registry.find(method).map_err(|error| self.refused(error))
    }

    fn admit_again(&self, _slot: u32) -> Result<(), RemoteError> {
        self.check_open()
    }

    fn has_rows(&self, slot: u32) -> bool {
        let method = self.dispatcher.registry.method(slot);
        method.is_some_and(|method| matches!(method.route, Route::Batch(_)))
    }

    fn admit_tree(&self, slot: u32, signature: &Arc<Signature>) -> Result<(), RemoteError> {
        match self.batcher(slot) {
            Some(batcher) => batcher.admit(signature).map_err(|error| self.refused(error)),
            None => Ok(()),
        }
    }

    fn place(
        &self,
        slot: u32,
        signature: &Arc<Signature>,
        order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        match self.batcher(slot) {
            Some(batcher) => batcher.place(signature, order).map_err(|error| self.refused(error)),
            None => Ok(None),
        }
    }
}
