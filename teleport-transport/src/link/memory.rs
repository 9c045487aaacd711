//! What a link holds of its server's memory: who is told when large results have gone, and whether the peer crawls with
//! what others wait for.
//!
//! Flow: memory is charged (a grant, a result, a large frame) -> `watch_pace` -> the poller calls `handle_pace` once a
//! window, until nothing is held. `await_drain` -> [`Handler::drained`](super::Handler::drained), by the poller.
//! Never blocks. Bounds: one timer a link, however much it holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Link;
use teleport_wire::Message;

use crate::protocol::{Closed, Inbound, Outbound, Quota, SendError, SlowCalls, UnsentBytes};
use crate::reactor::mailbox::Command;
use crate::reactor::source::Request;

impl Link {
    /// Queues an answer, and has it paid for if it is large.
    pub(super) fn queue_answer(
        self: &Arc<Self>,
        outbound: &mut Outbound,
        id: u64,
        message: Message,
    ) -> Result<(), SendError> {
        let before = outbound.ledger().result_bytes();
        outbound.send_answer(id, message)?;
        if outbound.ledger().result_bytes() > before {
            self.watch_pace();
        }
        Ok(())
    }

    /// What is left to be sent of large results.
    pub fn unsent_bytes(&self) -> UnsentBytes {
        self.outbound.lock().ledger().unsent_bytes()
    }

    /// Bytes of arrays that were sent, or are about to be, since the link began.
    pub fn sent_payload_bytes(&self) -> u64 {
        self.outbound.lock().ledger().staged_payload_bytes()
    }

    /// Has [`Handler::drained`](super::Handler::drained) called, once, when no more of large results is left to be sent than
    /// `until` allows, which may be at once. If several ask before that, the most that any of them allows counts.
    pub fn await_drain(self: &Arc<Self>, until: Quota) {
        let mut outbound = self.outbound.lock();
        outbound.ledger_mut().await_drain(until);
        let drained = outbound.ledger_mut().poll_drained();
        drop(outbound);
        self.tell_drained(drained);
    }

    /// The poller tells: this may be a worker, and may hold locks of the link.
    pub(super) fn tell_drained(self: &Arc<Self>, drained: bool) {
        if drained {
            self.request(Request::Drained);
        }
    }

    pub(crate) fn drained(self: &Arc<Self>) {
        self.handler.drained(self);
    }

    /// From now on the connection holds memory of the budget: somebody may wait for it.
    pub(super) fn watch_pace(self: &Arc<Self>) {
        if self.has_pace && !self.paced.swap(true, Ordering::SeqCst) {
            self.poller.send(Command::Timeout(self.key, Instant::now()));
        }
    }

    /// Ends what crawls while others wait; gives when to look again, if the connection holds anything.
    pub(super) fn handle_pace(
        self: &Arc<Self>,
        inbound: &mut Inbound,
        now: Instant,
    ) -> Result<Option<Instant>, Closed> {
        let budget = self.budget.as_ref().filter(|_| self.paced.load(Ordering::Relaxed));
        let Some(budget) = budget else { return Ok(None) };
        // First, and sequentially consistent: who holds something from now on either sees this, or is seen here.
        self.paced.store(false, Ordering::SeqCst);
        let unwritten = self.unwritten.load(Ordering::Relaxed) as u64;
        let others_wait = || budget.others_wait(self.key as u64);
        let again = inbound.handle_rate_timeout(now, unwritten, &self.outbound, others_wait)?;
        let slow = inbound.poll_slow_calls();
        if slow != SlowCalls::default() {
            self.handler.gave_up(self, slow);
            // Nothing may be written for long: those who wait for results to go hear of it here.
            let drained = self.outbound.lock().ledger_mut().poll_drained();
            self.tell_drained(drained);
        }
        if again.is_some() {
            self.paced.store(true, Ordering::SeqCst);
        }
        Ok(again)
    }
}
