//! The invariants that hold in every run, by name. The panic of a broken invariant says what was found,
//! and the run prints its seed.

/// A promise that the simulation checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invariant {
    /// Every call ends exactly once for its caller.
    EndsOnce,
    /// A call runs at most once, unless its caller allows it to run twice.
    RunsAtMostOnce,
    /// A caller is told the truth about whether its call ran.
    TellsWhetherItRan,
    /// Nothing is delivered that was not sent. Arguments and results arrive with their own bytes.
    NothingMadeUp,
    /// A checksum error is reported for a message that was changed on its way, and for no other.
    BlamesTheChanged,
    /// The eager payload that a side has not given back is at most what that side offered.
    CreditKept,
    /// Payload is sent only if it is eager or granted, and never more of it than was announced.
    GrantsKept,
    /// Each row ends once: its call arrives whole, or it is abandoned.
    RowsEndOnce,
    /// The charges of all connections together never exceed the budget.
    BudgetKept,
    /// At the end of a run, budgets are unused, credits are whole, and neither side of a connection
    /// holds anything.
    AllReturns,
    /// Neither side ever refuses what the other sends.
    RulesKept,
    /// A connection is given up for silence only if something kept its bytes back.
    LivesWhileHeard,
    /// A call that can be resumed gets its answer, unless the server has forgotten the session.
    SurvivesCuts,
    /// After the last fault, everything ends within a bounded number of rounds.
    Progress,
}

impl Invariant {
    /// Ends the run if the invariant does not hold.
    #[track_caller]
    pub(super) fn require(self, holds: bool, found: impl FnOnce() -> String) {
        assert!(holds, "{self:?} does not hold: {}", found());
    }
}
