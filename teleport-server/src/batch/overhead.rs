//! What a slab takes of memory beside the rows that calls have paid for.
//!
//! Flow: `new` (what its first bytes take) -> `sat` and `left` for each call -> dropped with the slab. Rows that were taken once
//! stay taken when their call goes, until another sits there: that is charged whatever is in use. Charges that are no longer due
//! are the caller's to drop, without a lock: they may have others granted.

use teleport_transport::wire::BatchLayout;
use teleport_transport::{Budget, Charge, Pages};

#[derive(Debug)]
pub(crate) struct Overhead {
    budget: Budget,
    row_bytes: u64,
    first_bytes: u64,
    /// Calls that have a seat, each of which has paid for its row.
    seated: u64,
    /// The most that there were: rows that are taken.
    most: u64,
    /// Invariant: not dropped where a lock is held, but with the slab.
    charge: Option<Charge>,
    /// What of the charge was past the budget's bound when the slab was opened.
    surplus: u64,
}

impl Overhead {
    /// What is to be charged when a slab is opened: for a call that has paid for its row.
    pub(crate) fn first_charge(stacked: &BatchLayout, pages: Pages) -> u64 {
        pages.first_bytes(stacked).saturating_sub(stacked.row_bytes())
    }

    /// Of a slab that is opened with this charge, so much of it past the bound.
    pub(crate) fn new(
        stacked: &BatchLayout,
        pages: Pages,
        budget: &Budget,
        charge: Charge,
        surplus: u64,
    ) -> Overhead {
        let (row_bytes, first_bytes) = (stacked.row_bytes(), pages.first_bytes(stacked));
        let charge = Some(charge);
        Overhead { budget: budget.clone(), row_bytes, first_bytes, seated: 0, most: 0, charge, surplus }
    }

    fn unpaid(&self) -> u64 {
        let taken = self.first_bytes.max(self.most * self.row_bytes);
        taken.saturating_sub(self.seated * self.row_bytes)
    }

    fn charged(&self) -> u64 {
        self.charge.as_ref().map_or(0, Charge::bytes)
    }

    /// A call sits down that has paid for its row. Gives what is due no longer.
    pub(crate) fn sat(&mut self) -> Option<Charge> {
        self.seated += 1;
        self.most = self.most.max(self.seated);
        let unpaid = self.unpaid();
        // By halves, so that the budget is asked a few times for a slab, not for each call.
        if unpaid > self.charged() / 2 {
            return None;
        }
        let less = (unpaid > 0).then(|| self.budget.charge_anyway(unpaid));
        std::mem::replace(&mut self.charge, less)
    }

    /// A call goes. Gives what is due no longer.
    pub(crate) fn left(&mut self) -> Option<Charge> {
        self.seated = self.seated.saturating_sub(1);
        // The slab goes with the last.
        if self.seated == 0 || self.unpaid() <= self.charged() {
            return None;
        }
        self.charge.replace(self.budget.charge_anyway(self.unpaid()))
    }

    /// What of the charge is past the bound.
    pub(crate) fn surplus(&self) -> u64 {
        self.surplus
    }

    /// What of that is so no longer, after a change.
    pub(crate) fn settle_surplus(&mut self) -> u64 {
        let left = self.surplus.min(self.charged());
        std::mem::replace(&mut self.surplus, left) - left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use teleport_transport::wire::{Array, Limits, Message, ResultMetadata, Signature};

    use super::*;

    const PAGE_BYTES: u64 = 2 << 20;

    /// A slab of so many rows of so many bytes, and what is charged for it.
    fn opened(rows: usize, row_bytes: usize, pages: Pages) -> (Overhead, Budget) {
        let row = Array::from(vec![0u8; row_bytes]).into();
        let message = Message::result(&row, &Limits::default()).unwrap();
        let metadata = ResultMetadata::decode(&message.metadata).unwrap();
        let signature = Signature::decode(metadata.signature, &Limits::default()).unwrap();
        let stacked = BatchLayout::new(Arc::new(signature), rows).unwrap();
        let budget = Budget::new(u64::MAX);
        let charge = budget.charge_anyway(Overhead::first_charge(&stacked, pages));
        (Overhead::new(&stacked, pages, &budget, charge, 0), budget)
    }

    #[test]
    fn small_slabs_take_what_their_rows_have_paid_for() {
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
    fn rows_stay_taken_when_their_calls_go() {
        const ROW: u64 = 6400;
        let (mut overhead, budget) = opened(16, ROW as usize, Pages::Usual);
        (0..10).for_each(|_| drop(overhead.sat()));
        for gone in 1..10 {
            drop(overhead.left());
            assert_eq!(budget.used_bytes(), gone * ROW);
        }
        // Until others sit there.
        (0..8).for_each(|_| drop(overhead.sat()));
        assert!(budget.used_bytes() > 0);
        drop(overhead.sat());
        assert_eq!(budget.used_bytes(), 0);
        drop(overhead);
        assert_eq!(budget.used_bytes(), 0);
    }
}
