//! Whether a call is accepted before its arguments come, and where they are received.

use std::sync::Arc;

use teleport_transport::Ticket;
use teleport_transport::protocol::Gate;
use teleport_transport::wire::{Order, RemoteError, Signature};

use crate::connection::dispatch::Connection;
use crate::refusal::closing;

impl Connection {
    fn count_refused<T>(&self, admitted: Result<T, RemoteError>) -> Result<T, RemoteError> {
        if admitted.is_err() {
            self.shared.counters.refused.add();
        }
        admitted
    }
}

impl Gate for Connection {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        let admitted = if self.shared.lifecycle.is_closing() {
            Err(closing())
        } else {
            self.shared.registry.find(method)
        };
        self.count_refused(admitted)
    }

    fn admit_tree(&self, slot: u32, signature: &Arc<Signature>) -> Result<(), RemoteError> {
        self.count_refused(self.shared.batcher_of(slot).map_or(Ok(()), |batcher| batcher.admit(signature)))
    }

    fn place(
        &self,
        slot: u32,
        signature: &Arc<Signature>,
        order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        let Some(batcher) = self.shared.batcher_of(slot) else { return Ok(None) };
        self.count_refused(batcher.place(signature, order))
    }
}
