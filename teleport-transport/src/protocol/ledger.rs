//! The account of one connection: how the memory of its messages is paid for.
//!
//! A received message holds a [`Lease`], paid from the eager credit that this side gave its peer, or by a
//! charge to a budget. Dropping the lease returns the bytes. The eager credit of a message of at most 4 KiB
//! returns as soon as the message is complete. [`ReturnedCredit`] sums returned credit, so that one frame
//! returns the credit of many messages to the peer. The [`Ledger`] of the sending half counts the rest: the
//! credit of both sides, queued bytes, and large results, which are charged to the budget until they are
//! sent. Never blocks. Bounds: the connection's eager credit, 4 KiB for each open call, and the budget.

#[cfg(all(test, loom))]
mod models;

use std::fmt;
use std::sync::Arc;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering};
use teleport_wire::Message;

use super::charged_results::ChargedResults;
use super::error::ProtocolError;
use crate::memory::budget::{Budget, Charge};
use crate::memory::user_held::Loan;

/// Larger results are charged to the budget while they are queued. The limit on open calls bounds smaller
/// ones.
const MIN_CHARGED_BYTES: u64 = 4 << 10;

/// Messages of at most this much memory return their eager credit when they are complete. The limit on open
/// calls bounds their memory.
pub(super) const MAX_UNLEASED_BYTES: u64 = 4 << 10;

/// Pays for the memory of a received message. Drop it when the user takes the memory: the peer may then send
/// more.
///
/// The default pays for nothing, as does the lease of a message of at most 4 KiB that took eager credit.
#[derive(Debug, Default)]
pub struct Lease(Option<Box<Payment>>);

#[derive(Debug, Default)]
struct Payment {
    eager: Option<EagerBytes>,
    charge: Option<Charge>,
    /// Counts the memory as held by the user once this is dropped.
    handoff: Option<Loan>,
}

/// Bytes of the eager credit, which are returned on drop.
#[derive(Debug)]
struct EagerBytes {
    bytes: u64,
    credit: Arc<ReturnedCredit>,
}

impl Drop for EagerBytes {
    fn drop(&mut self) {
        self.credit.give_back(self.bytes);
    }
}

impl Lease {
    pub(super) fn eager(bytes: u64, credit: &Arc<ReturnedCredit>) -> Lease {
        let eager = Some(EagerBytes { bytes, credit: credit.clone() });
        Lease(Some(Box::new(Payment { eager, ..Payment::default() })))
    }

    pub(super) fn charged(charge: Option<Charge>) -> Lease {
        Lease(charge.map(|charge| Box::new(Payment { charge: Some(charge), ..Payment::default() })))
    }

    /// Returns the bytes of the connection's eager credit that the lease holds.
    pub fn eager_bytes(&self) -> u64 {
        self.0.as_ref().and_then(|payment| payment.eager.as_ref()).map_or(0, |eager| eager.bytes)
    }

    pub(super) fn is_charged(&self) -> bool {
        self.0.as_ref().is_some_and(|payment| payment.charge.is_some())
    }

    pub(super) fn set_handoff(&mut self, handoff: Option<Loan>) {
        if handoff.is_some() {
            self.0.get_or_insert_default().handoff = handoff;
        }
    }
}

/// Eager credit that was returned here but not yet to the peer.
///
/// Once a sixteenth of the connection's credit is returned, the next write includes it. A quarter of it is
/// worth a write of its own. So less than half is ever unused here and by the peer: less than a quarter of
/// returned leases, and less than a quarter of messages that need none.
pub(super) struct ReturnedCredit {
    bytes: AtomicU64,
    /// This many bytes are worth a frame in a write that happens anyway.
    min_frame_bytes: u64,
    /// This many bytes are worth a write.
    min_write_bytes: u64,
    /// Asks for a write.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ReturnedCredit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReturnedCredit").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

// Only the sum counts, so the additions need no order. Credit that is taken out changes the sending half,
// whose lock orders it after the arrival of the messages.
impl ReturnedCredit {
    pub(super) fn new(eager_credit_bytes: u64, wake: Box<dyn Fn() + Send + Sync>) -> ReturnedCredit {
        let min_frame_bytes = eager_credit_bytes.div_ceil(16).max(1);
        let min_write_bytes = eager_credit_bytes.div_ceil(4).max(1);
        ReturnedCredit { bytes: AtomicU64::new(0), min_frame_bytes, min_write_bytes, wake }
    }

    fn give_back(&self, bytes: u64) {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.min_write_bytes {
            (self.wake)();
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn take(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }
}

/// The unsent bytes of large results, as memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnsentBytes {
    /// All of them.
    pub all: u64,
    /// All but the largest result, which may exceed any quota.
    pub but_largest: u64,
    /// True from [`await_drain`](Ledger::await_drain) until the unsent bytes are within the quota.
    pub is_drain_awaited: bool,
}

/// A limit on the unsent bytes of large results. Both bounds apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The bound for all results; `u64::MAX` for none.
    pub max_bytes: u64,
    /// The bound for all but the largest result.
    pub max_bytes_but_largest: u64,
}

impl Quota {
    /// Returns true if `unsent` is within the quota.
    pub fn allows(&self, unsent: UnsentBytes) -> bool {
        unsent.all <= self.max_bytes && unsent.but_largest <= self.max_bytes_but_largest
    }

    /// Returns half of the quota.
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

/// The counts of a connection's memory in the sending half.
#[derive(Debug)]
pub struct Ledger {
    /// The eager memory that the peer still accepts, and all that its hello granted.
    credit_bytes: u64,
    max_credit_bytes: u64,
    /// Eager memory that was received and not yet returned. Invariant: at most `max_eager_bytes`.
    held_eager_bytes: u64,
    /// The part of it that no lease holds. It returns with the credit of `returned`.
    unleased_bytes: u64,
    max_eager_bytes: u64,
    returned: Arc<ReturnedCredit>,
    /// Metadata and payload that are not staged.
    queued_bytes: u64,
    /// Payload that was staged since the connection began.
    staged_payload_bytes: u64,
    budget: Option<Budget>,
    results: ChargedResults,
    /// The quota of a pending `await_drain`.
    awaited: Option<Quota>,
}

impl Ledger {
    pub(super) fn new(max_eager_bytes: u64, budget: Option<Budget>, returned: Arc<ReturnedCredit>) -> Ledger {
        Ledger {
            credit_bytes: 0,
            max_credit_bytes: 0,
            held_eager_bytes: 0,
            unleased_bytes: 0,
            max_eager_bytes,
            returned,
            queued_bytes: 0,
            staged_payload_bytes: 0,
            budget,
            results: ChargedResults::default(),
            awaited: None,
        }
    }

    /// Returns the bytes of memory that the peer still accepts without a grant.
    pub fn credit_bytes(&self) -> u64 {
        self.credit_bytes
    }

    /// Returns the bytes of payload and metadata that wait for the socket or for a grant.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Returns the bytes of payload that were staged since the connection began.
    pub fn staged_payload_bytes(&self) -> u64 {
        self.staged_payload_bytes
    }

    /// Returns the bytes that are charged to the budget for large results.
    pub fn result_bytes(&self) -> u64 {
        self.results.bytes()
    }

    /// Returns the unsent bytes of large results. Small results do not count, since waiting for them gains
    /// nothing.
    pub fn unsent_bytes(&self) -> UnsentBytes {
        let (bytes, largest_bytes) = (self.results.bytes(), self.results.largest_bytes());
        UnsentBytes {
            all: self.queued_bytes.min(bytes),
            but_largest: self.queued_bytes.min(bytes - largest_bytes),
            is_drain_awaited: self.is_drain_awaited(),
        }
    }

    /// Returns true from [`await_drain`](Ledger::await_drain) until the unsent bytes are within the quota.
    pub fn is_drain_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    // ---- Eager credit ----

    /// The peer's hello granted this credit.
    pub(super) fn on_hello(&mut self, credit_bytes: u64) {
        (self.credit_bytes, self.max_credit_bytes) = (credit_bytes, credit_bytes);
    }

    /// The peer returned credit.
    pub(super) fn on_credit(&mut self, bytes: u64) -> Result<(), ProtocolError> {
        let max_bytes = self.max_credit_bytes;
        let credit_bytes = self.credit_bytes.saturating_add(bytes);
        if credit_bytes > max_bytes {
            return Err(ProtocolError::TooMuchCredit { bytes, max_bytes });
        }
        self.credit_bytes = credit_bytes;
        Ok(())
    }

    /// An eager message of the peer arrived.
    pub(super) fn on_eager(&mut self, bytes: u64) -> Result<(), ProtocolError> {
        if bytes > self.max_eager_bytes - self.held_eager_bytes {
            return Err(ProtocolError::CreditOverrun { bytes, max_bytes: self.max_eager_bytes });
        }
        self.held_eager_bytes += bytes;
        Ok(())
    }

    /// The eager memory of a small complete message needs no lease: the credit can be returned.
    pub(super) fn return_unleased(&mut self, bytes: u64) {
        self.unleased_bytes += bytes;
    }

    /// Returns true if there is enough credit to return for a write of its own.
    pub(super) fn is_credit_due(&self) -> bool {
        self.unleased_bytes.max(self.returned.bytes()) >= self.returned.min_write_bytes
    }

    /// Returns true if there is enough credit to return for a frame in a write that happens anyway.
    pub(super) fn is_credit_worth_frame(&self) -> bool {
        self.unleased_bytes + self.returned.bytes() >= self.returned.min_frame_bytes
    }

    /// Takes the credit that should be returned to the peer.
    pub(super) fn take_returned(&mut self) -> u64 {
        let bytes = self.returned.take() + std::mem::take(&mut self.unleased_bytes);
        self.held_eager_bytes = self.held_eager_bytes.saturating_sub(bytes);
        bytes
    }

    // ---- Queued messages ----

    /// Returns true if the payload is sent without a grant, because the peer's credit pays for it.
    #[inline]
    pub(super) fn is_eager(&self, message: &Message) -> bool {
        message.payload_bytes() > 0 && message.memory_bytes() <= self.credit_bytes
    }

    /// Returns the most memory that a result may take that is sent without a grant and without a charge.
    #[inline]
    pub(super) fn max_uncharged_bytes(&self) -> u64 {
        self.credit_bytes.min(MIN_CHARGED_BYTES)
    }

    /// Counts the metadata and the payload of a message to be sent, together `bytes`. `eager_bytes` of the
    /// peer's credit pay for its payload.
    #[inline]
    pub(super) fn queue(&mut self, bytes: u64, eager_bytes: u64) {
        self.queued_bytes += bytes;
        self.credit_bytes -= eager_bytes;
    }

    /// Counts queued bytes that are not sent any more. `eager_bytes` of credit paid for a message that the
    /// peer never learned of.
    pub(super) fn unqueue(&mut self, bytes: u64, eager_bytes: u64) {
        self.queued_bytes -= bytes;
        self.credit_bytes += eager_bytes;
    }

    /// Metadata and payload were staged, together `bytes`.
    #[inline]
    pub(super) fn on_staged(&mut self, bytes: u64, payload_bytes: u64) {
        self.staged_payload_bytes += payload_bytes;
        self.queued_bytes -= bytes;
    }

    /// Forgets everything that is queued or charged.
    pub(super) fn clear(&mut self) {
        self.queued_bytes = 0;
        self.results = ChargedResults::default();
    }

    // ---- The budget ----

    /// Charges memory even if there is no room.
    pub(super) fn charge(&self, bytes: u64) -> Option<Charge> {
        self.budget.as_ref().map(|budget| budget.charge_anyway(bytes))
    }

    /// Charges a result if it is large. Returns true if it is charged.
    pub(super) fn charge_result(&mut self, id: u64, message: &Message, window: u32) -> bool {
        if message.payload_bytes() <= MIN_CHARGED_BYTES {
            return false;
        }
        let charge = self.charge(message.memory_bytes());
        let is_charged = charge.is_some();
        if let Some(charge) = charge {
            self.results.push(id, charge, window);
        }
        is_charged
    }

    /// Releases the charge of a result that was sent or is not sent any more, if it has one.
    pub(super) fn release_result(&mut self, id: u64) {
        self.results.release(id);
    }

    /// Returns the charged results that were queued before `window`.
    pub(super) fn results_older_than(&self, window: u32) -> Vec<u64> {
        self.results.older_than(window)
    }

    /// Requests a report of [`poll_drained`](Ledger::poll_drained) once the unsent bytes are within `until`,
    /// which may be at once. If several requests are pending, the largest quota counts; a caller that finds
    /// its own exceeded asks again.
    pub fn await_drain(&mut self, until: Quota) {
        self.awaited = Some(self.awaited.map_or(until, |awaited| awaited.or(until)));
    }

    /// Returns true, once, if the unsent bytes are within the quota of [`await_drain`](Ledger::await_drain).
    pub fn poll_drained(&mut self) -> bool {
        let is_drained = self.is_drained();
        if is_drained {
            self.awaited = None;
        }
        is_drained
    }

    pub(super) fn is_drained(&self) -> bool {
        self.awaited.is_some_and(|until| until.allows(self.unsent_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use teleport_wire::{Array, Limits, Tree};

    use super::*;

    fn ledger() -> Ledger {
        let returned = Arc::new(ReturnedCredit::new(0, Box::new(|| {})));
        let mut ledger = Ledger::new(0, Some(Budget::new(100)), returned);
        ledger.queued_bytes = 1 << 20;
        ledger
    }

    fn quota(max_bytes: u64, max_bytes_but_largest: u64) -> Quota {
        Quota { max_bytes, max_bytes_but_largest }
    }

    fn result(bytes: usize) -> Message {
        let tree = Tree::Array(Array::zeros::<u8>([bytes]));
        Message::result(&tree, &Limits::default()).expect("it is small")
    }

    #[test]
    fn small_results_are_not_charged() {
        let mut ledger = ledger();
        assert!(!ledger.charge_result(1, &result(MIN_CHARGED_BYTES as usize), 0));
        assert!(ledger.charge_result(2, &result(5000), 0));
        assert_eq!(ledger.result_bytes(), 5000);
    }

    #[test]
    fn unsent_bytes_are_at_most_those_that_are_queued() {
        let mut ledger = ledger();
        for (id, bytes) in [(1, 6400), (2, 64_000)] {
            assert!(ledger.charge_result(id, &result(bytes), 0));
        }
        let unsent = UnsentBytes { all: 70_400, but_largest: 6400, is_drain_awaited: false };
        assert_eq!(ledger.unsent_bytes(), unsent);
        ledger.queued_bytes = 7;
        assert_eq!(
            ledger.unsent_bytes(),
            UnsentBytes { all: 7, but_largest: 7, ..unsent },
            "the rest has gone"
        );
        ledger.clear();
        assert_eq!(ledger.unsent_bytes(), UnsentBytes::default());
    }

    #[test]
    fn a_quota_may_let_the_largest_pass() {
        let unsent = UnsentBytes { all: 500, but_largest: 10, is_drain_awaited: false };
        assert!(quota(u64::MAX, 10).allows(unsent) && !quota(u64::MAX, 9).allows(unsent));
        assert!(quota(500, 500).allows(unsent) && !quota(499, 499).allows(unsent));
        assert_eq!(quota(u64::MAX, 10).half(), quota(u64::MAX, 5));
        assert_eq!(quota(8, 10).half(), quota(4, 5));
    }

    #[test]
    fn a_drain_is_reported_once() {
        let mut ledger = ledger();
        assert!(!ledger.poll_drained(), "nobody waits");
        assert!(ledger.charge_result(1, &result(5000), 0));
        [3, 10, 5].into_iter().for_each(|max_bytes| ledger.await_drain(quota(max_bytes, max_bytes)));
        ledger.queued_bytes = 11;
        assert!(!ledger.poll_drained() && ledger.unsent_bytes().is_drain_awaited);
        ledger.queued_bytes = 10;
        assert!(ledger.poll_drained() && !ledger.unsent_bytes().is_drain_awaited);
        ledger.queued_bytes = 0;
        assert!(!ledger.poll_drained());
        ledger.queued_bytes = 100;
        [quota(9, 9), quota(u64::MAX, 7)].into_iter().for_each(|until| ledger.await_drain(until));
        assert!(ledger.poll_drained(), "the second quota is met, and the first asks again");
    }
}
