//! The memory of a slab beyond the rows that its calls have paid for.
//!
//! Flow: `new` -> `sat` and `left` for each call -> dropped with the slab. The row of a call that has left
//! stays in memory until another call takes its seat. So it is charged, even past the budget. Ended charges
//! are returned to the caller, which drops them without a lock: another one may then be granted.

use teleport_transport::wire::BatchLayout;
use teleport_transport::{Budget, Charge, Pages};

#[derive(Debug)]
pub(crate) struct Overhead {
    budget: Budget,
    row_bytes: u64,
    first_bytes: u64,
    /// Calls with a seat, each of which has paid for its row.
    seated: u64,
    /// The most calls that had a seat at once: their rows are in memory.
    max_seated: u64,
    charge: Option<Charge>,
    /// The part of the charge that exceeded the budget when the slab was opened.
    surplus: u64,
}

impl Overhead {
    /// Returns the charge for a new slab whose first call has paid for its row.
    pub(crate) fn first_charge(layout: &BatchLayout, pages: Pages) -> u64 {
        pages.first_bytes(layout).saturating_sub(layout.row_bytes())
    }

    pub(crate) fn new(
        layout: &BatchLayout,
        pages: Pages,
        budget: &Budget,
        charge: Charge,
        surplus: u64,
    ) -> Overhead {
        let (row_bytes, first_bytes) = (layout.row_bytes(), pages.first_bytes(layout));
        let (budget, charge) = (budget.clone(), Some(charge));
        Overhead { budget, row_bytes, first_bytes, seated: 0, max_seated: 0, charge, surplus }
    }

    fn unpaid(&self) -> u64 {
        let in_memory = self.first_bytes.max(self.max_seated * self.row_bytes);
        in_memory.saturating_sub(self.seated * self.row_bytes)
    }

    fn charged(&self) -> u64 {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }

    /// Called when a call that has paid for its row gets a seat. Returns an ended charge.
    pub(crate) fn sat(&mut self) -> Option<Charge> {
        self.seated += 1;
        self.max_seated = self.max_seated.max(self.seated);
        let unpaid = self.unpaid();
        // By halves, so that the budget is used a few times for each slab instead of for each call.
        if unpaid > self.charged() / 2 {
            return None;
        }
        let less = (unpaid > 0).then(|| self.budget.charge_anyway(unpaid));
        std::mem::replace(&mut self.charge, less)
    }

    /// Called when a call leaves. Returns an ended charge.
    pub(crate) fn left(&mut self) -> Option<Charge> {
        self.seated = self.seated.saturating_sub(1);
        // The slab is dropped with its last call.
        if self.seated == 0 || self.unpaid() <= self.charged() {
            return None;
        }
        self.charge.replace(self.budget.charge_anyway(self.unpaid()))
    }

    /// Returns the most by which the charge may exceed the budget.
    pub(crate) fn surplus(&self) -> u64 {
        self.surplus.min(self.charged())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use teleport_transport::wire::{Array, Limits, Message, ResultMetadata, Signature};

    use super::*;

    const PAGE_BYTES: u64 = 2 << 20;

    /// Opens a slab, and charges for it.
    fn opened(rows: usize, row_bytes: usize, pages: Pages) -> (Overhead, Budget) {
        let row = Array::from(vec![0u8; row_bytes]).into();
        let message = Message::result(&row, &Limits::default()).unwrap();
        let metadata = ResultMetadata::decode(message.metadata()).unwrap();
        let signature = Signature::decode(metadata.signature, &Limits::default()).unwrap();
        let layout = BatchLayout::new(Arc::new(signature), rows).unwrap();
        let budget = Budget::new(u64::MAX);
        let charge = budget.charge_anyway(Overhead::first_charge(&layout, pages));
        (Overhead::new(&layout, pages, &budget, charge, 0), budget)
    }

    #[test]
    fn small_slabs_take_only_what_their_calls_have_paid_for() {
        let (mut overhead, budget) = opened(16, 6400, Pages::Usual);
        for _ in 0..16 {
            drop(overhead.sat());
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    #[test]
    fn a_large_slab_takes_a_huge_page_until_its_rows_fill_it() {
        const ROW: u64 = 640 << 10;
        let (mut overhead, budget) = opened(16, ROW as usize, Pages::Usual);
        drop(overhead.sat());
        assert_eq!(budget.used_bytes(), PAGE_BYTES - ROW);
        drop(overhead.sat());
        drop(overhead.sat());
        assert_eq!(budget.used_bytes(), PAGE_BYTES - 3 * ROW);
        drop(overhead.sat());
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn small_pages_take_hardly_more_than_a_row() {
        let (mut overhead, budget) = opened(1 << 16, 100, Pages::Small);
        drop(overhead.sat());
        assert_eq!(budget.used_bytes(), overhead.first_bytes - 100);
        assert!(overhead.first_bytes <= 64 << 10);
    }

    #[test]
    fn rows_stay_charged_when_their_calls_leave() {
        const ROW: u64 = 6400;
        let (mut overhead, budget) = opened(16, ROW as usize, Pages::Usual);
        (0..10).for_each(|_| drop(overhead.sat()));
        for gone in 1..10 {
            drop(overhead.left());
            assert_eq!(budget.used_bytes(), gone * ROW);
        }
        // They stay charged until other calls take their seats.
        (0..8).for_each(|_| drop(overhead.sat()));
        assert!(budget.used_bytes() > 0);
        drop(overhead.sat());
        assert_eq!(budget.used_bytes(), 0);
        drop(overhead);
        assert_eq!(budget.used_bytes(), 0);
    }
}
