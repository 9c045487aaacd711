//! The budget memory that a link holds, and the check that its peer is not slow while others wait for memory.
//!
//! Flow: memory is charged (a grant, a result, a large frame) -> `watch_rate` -> the event loop calls
//! `check_rate` once a window, until nothing is held. Never blocks. Bound: one timeout per link.

use std::time::Instant;

use teleport_wire::Message;

use super::port::Port;
use super::status::Flag;
use super::writer::Writer;
use crate::memory::budget::{Budget, Charge, OnGrant};
use crate::protocol::{Closed, Inbound, Outbound, SendError, SlowCalls};
use crate::reactor::mailbox::Command;
use crate::reactor::source::Request;

/// A link's access to a budget. Without a budget, all memory is granted.
#[derive(Debug)]
pub(super) struct Memory {
    budget: Option<Budget>,
    /// The peer has a minimum rate.
    has_min_rate: bool,
}

impl Memory {
    pub(super) fn new(budget: Option<Budget>, inbound: &Inbound) -> Memory {
        Memory { budget, has_min_rate: inbound.has_min_rate() }
    }

    /// Removes the connection's requests for memory.
    pub(super) fn forget(&self, key: usize) {
        if let Some(budget) = &self.budget {
            budget.forget_connection(key as u64);
        }
    }

    /// Removes the request of a message that was withdrawn.
    pub(super) fn forget_message(&self, key: usize, id: u64) {
        if let Some(budget) = &self.budget {
            budget.forget_message(key as u64, id);
        }
    }

    /// Queues an answer. Charges its memory if it is large.
    pub(super) fn queue_answer(
        &self,
        port: &Port,
        outbound: &mut Outbound,
        id: u64,
        message: Message,
    ) -> Result<(), SendError> {
        let before = outbound.ledger().result_bytes();
        outbound.send_answer(id, message)?;
        if outbound.ledger().result_bytes() > before {
            port.status.set(Flag::CHARGED);
            self.watch_rate(port);
        }
        Ok(())
    }

    /// Requests memory for message `id`. Grants it if there is room or somebody waits for the message.
    /// Otherwise the link gets a request when it is its turn.
    pub(super) fn request(
        &self,
        port: &Port,
        writer: &Writer,
        inbound: &mut Inbound,
        (id, bytes): (u64, u64),
        is_awaited: impl FnOnce() -> bool,
    ) {
        let Some(budget) = &self.budget else { return inbound.send_grant(id, None, writer) };
        let on_grant = || -> OnGrant {
            let event_loop = port.event_loop.clone();
            Box::new(move |charge| event_loop.request(Request::Grant { id, charge }))
        };
        let charge = (budget.try_charge(bytes))
            .or_else(|| is_awaited().then(|| budget.charge_anyway(bytes)))
            .or_else(|| budget.request(port.key as u64, id, bytes, on_grant));
        if let Some(charge) = charge {
            self.grant(port, writer, inbound, id, charge);
        }
    }

    /// Charges message `id` even if there is no room. Returns `None` if it does not wait for memory.
    pub(super) fn charge_anyway(&self, port: &Port, inbound: &Inbound, id: u64) -> Option<Charge> {
        let budget = self.budget.as_ref()?;
        // Charged before its request is removed, so that its memory is not granted to others.
        let charge = budget.charge_anyway(inbound.wanted_bytes(id)?);
        budget.forget_message(port.key as u64, id);
        Some(charge)
    }

    /// Grants a message whose memory is charged.
    pub(super) fn grant(&self, port: &Port, writer: &Writer, inbound: &mut Inbound, id: u64, charge: Charge) {
        inbound.send_grant(id, Some(charge), writer);
        self.watch_rate(port);
    }

    /// Notes that the connection holds memory of the budget, for which others may wait.
    pub(super) fn watch_rate(&self, port: &Port) {
        if self.has_min_rate && port.status.set(Flag::RATE_CHECKED) {
            port.send(Command::Timeout(port.key, Instant::now()));
        }
    }

    /// Ends calls that are slower than `min_rate` while others wait. Returns them, and the time of the next
    /// check if the connection holds memory.
    ///
    /// # Errors
    /// Fails if the connection cannot continue.
    pub(super) fn check_rate(
        &self,
        port: &Port,
        writer: &Writer,
        inbound: &mut Inbound,
        now: Instant,
    ) -> Result<(SlowCalls, Option<Instant>), Closed> {
        let budget = self.budget.as_ref().filter(|_| port.status.has(Flag::RATE_CHECKED));
        let Some(budget) = budget else { return Ok(Default::default()) };
        // Cleared first: memory that a thread charges from now on either sets the flag again or is seen here.
        port.status.clear(Flag::RATE_CHECKED);
        let unwritten = writer.lock().unwritten_bytes as u64;
        let others_wait = || budget.others_wait(port.key as u64);
        let again = inbound.handle_rate_timeout(now, unwritten, writer, others_wait)?;
        if again.is_some() {
            port.status.set(Flag::RATE_CHECKED);
        }
        Ok((inbound.poll_slow_calls(), again))
    }
}
