//! Every call of a run: its content, its outcome for the caller, and how often it ran. The logic of
//! both sides writes here, so that the reported outcomes can be compared with the truth.

use std::time::Instant;

use teleport_wire::{Array, ErrorKind, Ran, Tree};

use super::arranger::SeenRows;
use super::invariants::Invariant;
use super::random::Random;

/// How a call ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Result,
    Failed(ErrorKind, Ran),
    /// Its connection was lost.
    Lost(Ran),
    Withdrawn(Ran),
    /// Its deadline passed before its answer arrived.
    Overdue(Ran),
}

impl Outcome {
    fn ran(self) -> Ran {
        match self {
            Outcome::Result => Ran::Yes,
            Outcome::Failed(_, ran)
            | Outcome::Lost(ran)
            | Outcome::Withdrawn(ran)
            | Outcome::Overdue(ran) => ran,
        }
    }
}

pub(super) struct Call {
    pub(super) tree: Tree,
    pub(super) method: String,
    pub(super) deadline: Option<Instant>,
    pub(super) idempotent: bool,
    /// The call survives a lost connection.
    pub(super) resume: bool,
    /// An earlier attempt may have run.
    pub(super) was_tried: bool,
    /// The server said that it does not know the session.
    pub(super) was_forgotten: bool,
    /// A byte of the call or of its result was changed on the way.
    pub(super) was_changed: bool,
    pub(super) runs: u32,
    pub(super) outcome: Option<Outcome>,
}

/// Counts what happened in one or more runs, to show that each case occurs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) results: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) overloaded: u64,
    pub(super) too_slow: u64,
    pub(super) checksum: u64,
    pub(super) expired: u64,
    pub(super) lost: u64,
    pub(super) never_sent: u64,
    pub(super) aborted: u64,
    pub(super) cancelled: u64,
    pub(super) overdue: u64,
    pub(super) not_alive: u64,
    pub(super) cut: u64,
    pub(super) resumed: u64,
    pub(super) sent_again: u64,
    pub(super) fenced: u64,
    pub(super) unknown: u64,
    pub(super) rows: SeenRows,
}

impl Seen {
    pub(super) fn each(&self) -> [u64; 23] {
        let SeenRows { whole, moved, vacated, abandoned, unplaced } = self.rows;
        [
            self.results,
            self.failed,
            self.refused,
            self.overloaded,
            self.too_slow,
            self.checksum,
            self.expired,
            self.lost,
            self.never_sent,
            self.aborted,
            self.cancelled,
            self.overdue,
            self.not_alive,
            self.cut,
            self.resumed,
            self.sent_again,
            self.fenced,
            self.unknown,
            whole,
            moved,
            vacated,
            abandoned,
            unplaced,
        ]
    }
}

pub(super) struct Ledger {
    pub(super) random: Random,
    pub(super) now: Instant,
    pub(super) calls: Vec<Call>,
    pub(super) seen: Seen,
}

impl Ledger {
    /// Creates a call that differs from all others.
    pub(super) fn note(&mut self, mut call: Call) -> usize {
        let number = self.calls.len();
        if call.method.is_empty() {
            call.method = number.to_string();
        }
        self.calls.push(call);
        number
    }

    /// Reports the outcome to the caller, which must happen once.
    pub(super) fn end(&mut self, number: usize, outcome: Outcome) {
        let call = &mut self.calls[number];
        Invariant::EndsOnce.require(call.outcome.is_none(), || {
            format!("call {number} ended as {:?}, and then as {outcome:?}", call.outcome)
        });
        let retold = |ran| if call.was_tried && ran == Ran::No { Ran::Maybe } else { ran };
        let outcome = match outcome {
            Outcome::Result => Outcome::Result,
            Outcome::Failed(kind, ran) => Outcome::Failed(kind, retold(ran)),
            Outcome::Lost(ran) => Outcome::Lost(retold(ran)),
            Outcome::Withdrawn(ran) => Outcome::Withdrawn(retold(ran)),
            Outcome::Overdue(ran) => Outcome::Overdue(retold(ran)),
        };
        call.outcome = Some(outcome);
        let seen = &mut self.seen;
        *match outcome {
            Outcome::Result => &mut seen.results,
            Outcome::Failed(ErrorKind::UnknownMethod, _) => &mut seen.refused,
            Outcome::Failed(ErrorKind::Overloaded, _) => &mut seen.overloaded,
            Outcome::Failed(ErrorKind::TooSlow, _) => &mut seen.too_slow,
            Outcome::Failed(ErrorKind::Checksum, _) => &mut seen.checksum,
            Outcome::Failed(ErrorKind::Expired, _) => &mut seen.expired,
            Outcome::Failed(ErrorKind::Cancelled, _) => &mut seen.cancelled,
            Outcome::Failed(ErrorKind::Deadline, _) | Outcome::Overdue(_) => &mut seen.overdue,
            Outcome::Failed(..) => &mut seen.failed,
            Outcome::Lost(_) => &mut seen.lost,
            Outcome::Withdrawn(_) => &mut seen.never_sent,
        } += 1;
    }

    /// Notes that the server runs the call.
    pub(super) fn run(&mut self, number: usize) {
        let call = &mut self.calls[number];
        call.runs += 1;
        Invariant::RunsAtMostOnce
            .require(call.runs == 1 || call.idempotent, || format!("call {number} runs {} times", call.runs));
    }

    /// Compares the reported outcomes with what happened.
    pub(super) fn check(&self) {
        for (number, call) in self.calls.iter().enumerate() {
            let found = || format!("call {number} ended as {:?} and ran {} times", call.outcome, call.runs);
            let Some(outcome) = call.outcome else {
                Invariant::Progress.require(false, found);
                continue;
            };
            Invariant::TellsWhetherItRan.require(
                match outcome.ran() {
                    Ran::No => call.runs == 0,
                    Ran::Maybe => true,
                    Ran::Yes => call.runs > 0,
                },
                found,
            );
            Invariant::BlamesTheChanged.require(
                !matches!(outcome, Outcome::Failed(ErrorKind::Checksum, _)) || call.was_changed,
                found,
            );
            Invariant::SurvivesCuts
                .require(!(matches!(outcome, Outcome::Lost(_)) && call.resume) || call.was_forgotten, found);
        }
    }

    /// Creates a list of up to three arrays. Most are small, and a few take several chunks.
    pub(super) fn tree(&mut self) -> Tree {
        let random = &mut self.random;
        let count = random.below(4);
        let arrays = (0..count).map(|_| {
            let bytes = match random.below(60) {
                0..6 => 0,
                6..40 => random.below(300),
                40..58 => random.below(20_000),
                58 => random.below(200_000),
                _ => random.below(1_200_000),
            };
            Tree::Array(Array::from(vec![random.next() as u8; bytes as usize]))
        });
        Tree::List(arrays.collect())
    }
}
