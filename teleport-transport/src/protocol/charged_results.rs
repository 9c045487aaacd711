//! The results of a connection that are charged to the budget, until they are staged completely.
//!
//! Flow: `push` when the result is queued -> `release` when it was staged, replaced or is not wanted. Knows
//! no frames and no clock. Bound: the open calls.

use std::collections::VecDeque;

use crate::memory::budget::Charge;

#[derive(Debug)]
struct ChargedResult {
    id: u64,
    charge: Charge,
    /// The window of the minimum rate in which it was queued.
    window: u32,
}

#[derive(Debug, Default)]
pub(super) struct ChargedResults {
    results: VecDeque<ChargedResult>,
    /// Invariant: the sum, and the largest, of the charges.
    bytes: u64,
    largest_bytes: u64,
}

impl ChargedResults {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn largest_bytes(&self) -> u64 {
        self.largest_bytes
    }

    pub(super) fn push(&mut self, id: u64, charge: Charge, window: u32) {
        self.bytes += charge.bytes();
        self.largest_bytes = self.largest_bytes.max(charge.bytes());
        self.results.push_back(ChargedResult { id, charge, window });
    }

    /// Returns the memory of a result to the budget, if the result is charged.
    pub(super) fn release(&mut self, id: u64) {
        // Most results leave in their order.
        let Some(index) = self.results.iter().position(|result| result.id == id) else { return };
        let Some(ChargedResult { charge, .. }) = self.results.remove(index) else { return };
        self.bytes -= charge.bytes();
        if charge.bytes() == self.largest_bytes {
            self.largest_bytes = 0;
            for other in &self.results {
                self.largest_bytes = self.largest_bytes.max(other.charge.bytes());
                if self.largest_bytes == charge.bytes() {
                    break;
                }
            }
        }
    }

    /// Returns the results that were queued before `window`.
    pub(super) fn older_than(&self, window: u32) -> Vec<u64> {
        let is_old = |result: &&ChargedResult| result.window < window;
        self.results.iter().filter(is_old).map(|result| result.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::budget::Budget;

    #[test]
    fn the_largest_result_is_counted_apart() {
        let budget = Budget::new(100);
        let mut results = ChargedResults::default();
        let mut bytes = |id: u64, bytes: u64| {
            match bytes {
                0 => results.release(id),
                bytes => results.push(id, budget.charge_anyway(bytes), 0),
            }
            assert_eq!(budget.used_bytes(), results.bytes());
            (results.bytes(), results.bytes() - results.largest_bytes())
        };
        assert_eq!(bytes(1, 10), (10, 0));
        assert_eq!(bytes(2, 500), (510, 10));
        assert_eq!(bytes(3, 20), (530, 30));
        assert_eq!(bytes(2, 0), (30, 10));
        assert_eq!(bytes(3, 0), (10, 0));
        assert_eq!(bytes(4, 10), (20, 10));
        assert_eq!(bytes(1, 0), (10, 0));
        assert_eq!(bytes(1, 0), (10, 0), "it is released once");
    }

    #[test]
    fn results_of_earlier_windows_are_found() {
        let budget = Budget::new(100);
        let mut results = ChargedResults::default();
        for (id, window) in [(7, 0), (5, 1), (6, 2)] {
            results.push(id, budget.charge_anyway(1), window);
        }
        assert_eq!(results.older_than(2), [7, 5]);
    }
}
