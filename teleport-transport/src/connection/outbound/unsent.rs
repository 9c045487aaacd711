//! What results that wait to be sent cost, and who waits for them to go.
//!
//! Flow: `hold` (a large result was queued) -> `release` (it was staged whole, or dropped). `await_drain` (too much waits)
//! -> `take_drained`, once, when little enough does. Knows no messages: the outbox says what is queued. Bound: one charge
//! an open call of the peer, one mark.

use teleport_wire::RemoteError;

use super::Outbound;
use crate::budget::Charge;
use crate::id_map::IdMap;

/// Charges for results of one connection.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// With the window of the connection's pace in which each began.
    charges: IdMap<(u32, Charge)>,
    /// Invariant: the sum of `charges`.
    charged_bytes: u64,
    window: u32,
    /// Somebody waits until no more bytes than this are left.
    mark: Option<u64>,
}

impl Unsent {
    pub(super) fn hold(&mut self, id: u64, charge: Charge) {
        self.charged_bytes += charge.bytes();
        self.charges.insert(id, (self.window, charge));
    }

    pub(super) fn release(&mut self, id: u64) {
        // Most connections hold nothing: no hash is computed for them.
        if !self.charges.is_empty()
            && let Some((_, charge)) = self.charges.remove(&id)
        {
            self.charged_bytes -= charge.bytes();
        }
    }

    pub(super) fn release_all(&mut self) {
        self.charges.clear();
        self.charged_bytes = 0;
    }

    pub(super) fn charged_bytes(&self) -> u64 {
        self.charged_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.charges.is_empty()
    }

    /// The results that were held before this window began. Begins the next one.
    pub(super) fn end_window(&mut self) -> Vec<u64> {
        let window = self.window;
        self.window += 1;
        self.charges.iter().filter(|(_, (since, _))| *since < window).map(|(id, _)| *id).collect()
    }

    /// If several wait, the largest mark counts: who looks too early asks again.
    pub(super) fn await_drain(&mut self, max_bytes: u64) {
        self.mark = Some(self.mark.map_or(max_bytes, |mark| mark.max(max_bytes)));
    }

    pub(super) fn is_drained(&self, unsent_bytes: u64) -> bool {
        self.mark.is_some_and(|mark| unsent_bytes <= mark)
    }

    pub(super) fn take_drained(&mut self, unsent_bytes: u64) -> bool {
        let is_drained = self.is_drained(unsent_bytes);
        if is_drained {
            self.mark = None;
        }
        is_drained
    }
}

impl Outbound {
    /// What is left to be sent of results that hold a charge. Smaller ones do not count: nobody has to wait for them, since
    /// nobody is made to fetch them.
    pub fn unsent_bytes(&self) -> u64 {
        self.queued_bytes.min(self.unsent.charged_bytes())
    }

    /// Keeps what pays for the result that was queued last for call `id`, until it has gone whole or is dropped.
    pub fn hold_charge(&mut self, id: u64, charge: Charge) {
        self.unsent.hold(id, charge);
    }

    /// Has [`take_drained`](Outbound::take_drained) tell when no more than `max_bytes` are [unsent](Outbound::unsent_bytes), which
    /// may be now.
    pub fn await_drain(&mut self, max_bytes: u64) {
        self.unsent.await_drain(max_bytes);
    }

    /// Whether as little is left as was waited for; says so once.
    pub fn take_drained(&mut self) -> bool {
        self.unsent.take_drained(self.unsent_bytes())
    }

    /// Has what the structure of the peer's calls takes paid for, where that is large and has changed; true if nothing was
    /// before.
    pub fn settle_structure(&mut self, charge: impl FnOnce(u64) -> Charge) -> bool {
        // Nobody is answered any more once the goodbye is on its way.
        let bytes = if self.is_finished() { 0 } else { self.peer_calls.large_structure_bytes() };
        let held_bytes = self.structure.as_ref().map_or(0, Charge::bytes);
        if bytes != held_bytes {
            self.structure = (bytes > 0).then(|| charge(bytes));
        }
        bytes > 0 && held_bytes == 0
    }

    /// Whether it holds charges for results.
    pub(in crate::connection) fn holds_charges(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// What was charged for results that have not gone whole.
    #[cfg(test)]
    pub(in crate::connection) fn result_charge_bytes(&self) -> u64 {
        self.unsent.charged_bytes()
    }

    /// Payload that was staged since the connection began.
    pub(in crate::connection) fn staged_payload_bytes(&self) -> u64 {
        self.staged_payload_bytes
    }

    /// A window of the connection's pace is over: with `error`, the results that were there before it began are replaced; gives how
    /// many that were.
    pub(in crate::connection) fn end_window(&mut self, error: Option<&RemoteError>) -> usize {
        let mut before = self.unsent.end_window();
        before.sort_unstable();
        error.map_or(0, |error| before.into_iter().filter(|id| self.replace_answer(*id, error)).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn charges_are_given_back_once() {
        let (budget, mut unsent) = (Budget::new(100), Unsent::default());
        for id in 1..=3 {
            unsent.hold(id, budget.charge_anyway(60));
        }
        unsent.release(2);
        unsent.release(2);
        unsent.release(77);
        assert_eq!((budget.used_bytes(), unsent.charged_bytes()), (120, 120));
        assert_eq!(unsent.end_window(), []);
        unsent.hold(4, budget.charge_anyway(1));
        let mut before = unsent.end_window();
        before.sort_unstable();
        assert_eq!(before, [1, 3]);
        unsent.release_all();
        assert_eq!((budget.used_bytes(), unsent.charged_bytes()), (0, 0));
    }

    #[test]
    fn who_waits_is_told_once() {
        let mut unsent = Unsent::default();
        assert!(!unsent.take_drained(0), "nobody waits");
        [3, 10, 5].into_iter().for_each(|max_bytes| unsent.await_drain(max_bytes));
        assert!(!unsent.take_drained(11));
        assert!(unsent.take_drained(10) && !unsent.take_drained(0));
    }
}
