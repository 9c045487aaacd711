//! The invariants that hold in every run, by name. A broken invariant says what was found; the run prints its
//! seed.

/// A promise that the simulation checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invariant {
    /// Every call ends exactly once for its caller.
    EndsOnce,
    /// A call runs at most once, unless its caller allows it to run twice.
    RunsAtMostOnce,
    /// What a caller is told of whether its call ran is true.
    TellsWhetherItRan,
    /// Nothing is delivered that was not sent: arguments and results have their own bytes.
    NothingMadeUp,
    /// A checksum error is told of a message that was changed on its way, and of no other.
    BlamesTheChanged,
    /// Eager payload under way to a side and not given back is at most what that side offered.
    CreditKept,
    /// No payload is sent that was neither eager nor granted, nor more than was announced.
    GrantsKept,
    /// A row is given for a call that comes whole, or is abandoned, once.
    RowsEndOnce,
    /// The charges of all connections together never go past the budget.
    BudgetKept,
    /// When all has come to its end, budgets are unused, and credits whole, and nothing is left in any
    /// half.
    AllReturns,
    /// Neither side ever refuses what the other sends.
    RulesKept,
    /// A connection is given up for silence only where something kept its bytes.
    LivesWhileHeard,
    /// A call that can be resumed gets its answer, unless the server has forgotten the session.
    SurvivesCuts,
    /// After the last fault everything comes to its end in a bounded number of rounds.
    Progress,
}

impl Invariant {
    /// Ends the run if the invariant does not hold.
    #[track_caller]
    pub(super) fn require(self, holds: bool, found: impl FnOnce() -> String) {
        assert!(holds, "{self:?} does not hold: {}", found());
    }
}
