//! What pays for the memory of messages.

use crate::memory::budget::Charge;
use crate::memory::user_held::Loan;

/// What pays for the memory of a received message until it is the user's.
#[derive(Debug)]
pub enum Hold {
    /// It has no payload.
    None,
    /// Bytes of the connection's eager credit, to be given back with [`Outbound::give_credit`](super::Outbound::give_credit).
    Eager {
        /// Payload bytes.
        bytes: u64,
    },
    /// Bytes of a budget; given back when dropped.
    Charged(Charge),
    /// As one of those above, of a message that is whole: where the memory is counted that users hold, it counts from when
    /// this is dropped.
    Lent {
        /// Bytes of a budget.
        charge: Option<Charge>,
        /// Bytes of the connection's eager credit, to be given back; 0 for none.
        eager_bytes: u64,
        /// Begins to count when it is dropped.
        loan: Loan,
    },
}

impl Hold {
    /// Bytes of the connection's eager credit, to be given back with [`Outbound::give_credit`](super::Outbound::give_credit); 0 for none.
    pub fn eager_bytes(&self) -> u64 {
        match self {
            Hold::Eager { bytes } | Hold::Lent { eager_bytes: bytes, .. } => *bytes,
            Hold::None | Hold::Charged(_) => 0,
        }
    }

    pub(super) fn with_loan(self, loan: Option<Loan>) -> Hold {
        match (loan, self) {
            (None, hold) => hold,
            (Some(loan), Hold::Charged(charge)) => Hold::Lent { charge: Some(charge), eager_bytes: 0, loan },
            (Some(loan), hold) => Hold::Lent { charge: None, eager_bytes: hold.eager_bytes(), loan },
        }
    }
}
