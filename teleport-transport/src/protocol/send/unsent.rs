//! What results that wait to be sent cost, and who waits for them to go.
//!
//! Flow: `hold` (a large result was queued) -> `release` (it was staged whole, or dropped). `await_drain` (too much waits)
//! -> `take_drained`, once, when little enough does. Knows no messages: the outbox says what is queued. Bound: one charge
//! an open call of the peer, one mark.

use teleport_wire::RemoteError;

use super::Outbound;
use crate::memory::budget::Charge;
use crate::protocol::id_map::IdMap;

/// What is left to be sent of large results, in bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnsentBytes {
    /// Of all of them.
    pub all: u64,
    /// Of all but the largest, which may be larger than any quota.
    pub but_largest: u64,
}

/// How much of large results may be left to be sent. Both have to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of all of them; `u64::MAX` where only the others count.
    pub max_bytes: u64,
    /// Of all but the largest.
    pub max_bytes_but_largest: u64,
}

impl Quota {
    /// Whether no more than this is left.
    pub fn allows(&self, unsent: UnsentBytes) -> bool {
        unsent.all <= self.max_bytes && unsent.but_largest <= self.max_bytes_but_largest
    }

    /// Half of it.
    pub fn half(self) -> Quota {
        let half = |bytes| if bytes == u64::MAX { bytes } else { bytes / 2 };
        Quota { max_bytes: half(self.max_bytes), max_bytes_but_largest: half(self.max_bytes_but_largest) }
    }

    fn or(self, other: Quota) -> Quota {
        Quota {
            max_bytes: self.max_bytes.max(other.max_bytes),
            max_bytes_but_largest: self.max_bytes_but_largest.max(other.max_bytes_but_largest),
        }
    }
}

/// Charges for results of one connection.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// With the window of the connection's pace in which each began.
    charges: IdMap<(u32, Charge)>,
    /// Invariant: the sum of `charges`.
    charged_bytes: u64,
    /// Invariant: the largest of `charges`.
    largest_bytes: u64,
    window: u32,
    /// Somebody waits until no more than this is left.
    mark: Option<Quota>,
}

impl Unsent {
    pub(super) fn hold(&mut self, id: u64, charge: Charge) {
        self.charged_bytes += charge.bytes();
        self.largest_bytes = self.largest_bytes.max(charge.bytes());
        self.charges.insert(id, (self.window, charge));
    }

    pub(super) fn release(&mut self, id: u64) {
        // Most connections hold nothing: no hash is computed for them.
        if !self.charges.is_empty()
            && let Some((_, charge)) = self.charges.remove(&id)
        {
            self.charged_bytes -= charge.bytes();
            if charge.bytes() == self.largest_bytes {
                let others = self.charges.values().map(|(_, charge)| charge.bytes());
                self.largest_bytes = others.max().unwrap_or_default();
            }
        }
    }

    pub(super) fn release_all(&mut self) {
        self.charges.clear();
        self.charged_bytes = 0;
        self.largest_bytes = 0;
    }

    /// What is charged, as far as it is still among so many bytes that are queued.
    pub(super) fn bytes(&self, queued_bytes: u64) -> UnsentBytes {
        UnsentBytes {
            all: queued_bytes.min(self.charged_bytes),
            but_largest: queued_bytes.min(self.charged_bytes - self.largest_bytes),
        }
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

    /// If several wait, the most that any of them allows counts: who looks too early asks again.
    pub(super) fn await_drain(&mut self, until: Quota) {
        self.mark = Some(self.mark.map_or(until, |mark| mark.or(until)));
    }

    pub(super) fn is_drained(&self, queued_bytes: u64) -> bool {
        self.mark.is_some_and(|mark| mark.allows(self.bytes(queued_bytes)))
    }

    pub(super) fn take_drained(&mut self, queued_bytes: u64) -> bool {
        let is_drained = self.is_drained(queued_bytes);
        if is_drained {
            self.mark = None;
        }
        is_drained
    }
}

impl Outbound {
    /// What is left to be sent of results that hold a charge. Smaller ones do not count: nobody has to wait for them, since
    /// nobody is made to fetch them.
    pub fn unsent_bytes(&self) -> UnsentBytes {
        self.unsent.bytes(self.queued_bytes)
    }

    /// Keeps what pays for the result that was queued last for call `id`, until it has gone whole or is dropped.
    pub fn hold_charge(&mut self, id: u64, charge: Charge) {
        self.unsent.hold(id, charge);
    }

    /// Has [`take_drained`](Outbound::take_drained) tell when no more than `until` allows is [unsent](Outbound::unsent_bytes),
    /// which may be now.
    pub fn await_drain(&mut self, until: Quota) {
        self.unsent.await_drain(until);
    }

    /// Whether as little is left as was waited for; says so once.
    pub fn take_drained(&mut self) -> bool {
        self.unsent.take_drained(self.queued_bytes)
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
    pub(in crate::protocol) fn holds_charges(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// What was charged for results that have not gone whole.
    #[cfg(test)]
    pub(in crate::protocol) fn result_charge_bytes(&self) -> u64 {
        self.unsent.charged_bytes
    }

    /// Payload that was staged since the connection began.
    pub fn staged_payload_bytes(&self) -> u64 {
        self.staged_payload_bytes
    }

    /// A window of the connection's pace is over: with `error`, the results that were there before it began are replaced; gives how
    /// many that were.
    pub(in crate::protocol) fn end_window(&mut self, error: Option<&RemoteError>) -> usize {
        let mut before = self.unsent.end_window();
        before.sort_unstable();
        error.map_or(0, |error| before.into_iter().filter(|id| self.replace_answer(*id, error)).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::budget::Budget;

    #[test]
    fn charges_are_given_back_once() {
        let (budget, mut unsent) = (Budget::new(100), Unsent::default());
        for id in 1..=3 {
            unsent.hold(id, budget.charge_anyway(60));
        }
        unsent.release(2);
        unsent.release(2);
        unsent.release(77);
        assert_eq!((budget.used_bytes(), unsent.charged_bytes), (120, 120));
        assert_eq!(unsent.end_window(), []);
        unsent.hold(4, budget.charge_anyway(1));
        let mut before = unsent.end_window();
        before.sort_unstable();
        assert_eq!(before, [1, 3]);
        unsent.release_all();
        assert_eq!((budget.used_bytes(), unsent.charged_bytes), (0, 0));
    }

    fn quota(max_bytes: u64, max_bytes_but_largest: u64) -> Quota {
        Quota { max_bytes, max_bytes_but_largest }
    }

    #[test]
    fn the_largest_is_counted_apart() {
        let (budget, mut unsent) = (Budget::new(100), Unsent::default());
        let mut bytes = |id: u64, held: u64| {
            match held {
                0 => unsent.release(id),
                held => unsent.hold(id, budget.charge_anyway(held)),
            }
            let UnsentBytes { all, but_largest } = unsent.bytes(1000);
            (all, but_largest)
        };
        assert_eq!(bytes(1, 10), (10, 0));
        assert_eq!(bytes(2, 500), (510, 10));
        assert_eq!(bytes(3, 20), (530, 30));
        assert_eq!(bytes(2, 0), (30, 10));
        assert_eq!(bytes(3, 0), (10, 0));
        assert_eq!(bytes(4, 10), (20, 10));
        assert_eq!(bytes(1, 0), (10, 0));
        assert_eq!(unsent.bytes(7), UnsentBytes { all: 7, but_largest: 0 }, "the rest has gone");
        unsent.release_all();
        assert_eq!(unsent.bytes(1000), UnsentBytes::default());
    }

    #[test]
    fn a_quota_may_let_the_largest_pass() {
        let unsent = UnsentBytes { all: 500, but_largest: 10 };
        assert!(quota(u64::MAX, 10).allows(unsent) && !quota(u64::MAX, 9).allows(unsent));
        assert!(quota(500, 500).allows(unsent) && !quota(499, 499).allows(unsent));
        assert_eq!(quota(u64::MAX, 10).half(), quota(u64::MAX, 5));
        assert_eq!(quota(8, 10).half(), quota(4, 5));
    }

    #[test]
    fn who_waits_is_told_once() {
        let (budget, mut unsent) = (Budget::new(100), Unsent::default());
        assert!(!unsent.take_drained(0), "nobody waits");
        unsent.hold(1, budget.charge_anyway(20));
        [3, 10, 5].into_iter().for_each(|max_bytes| unsent.await_drain(quota(max_bytes, max_bytes)));
        assert!(!unsent.take_drained(11));
        assert!(unsent.take_drained(10) && !unsent.take_drained(0));
        unsent.hold(2, budget.charge_anyway(8));
        [quota(9, 9), quota(u64::MAX, 7)].into_iter().for_each(|until| unsent.await_drain(until));
        assert!(unsent.take_drained(100), "the second one's is met, and the first asks again");
    }
}
