//! Decides whether a row needs more rounds, and which rounds its verdict comes from.
//!
//! Flow: the outcomes of the rounds so far -> [`needed`]: the contenders that run again, or `None` when all
//! verdicts are clear -> after [`MAX_TIMES`] as many rounds, [`Remarks::settle`] compares the best rounds of
//! a row that is too noisy -> [`Remarks::notes`] for the report.

use super::outcome::{Compared, Goal, Kind, Outcome};
use super::report::{Judged, Noise, Verdict};

/// A row has at most this many times the rounds that fit into its time.
pub(super) const MAX_TIMES: usize = 3;

/// Returns the contenders that more rounds need for a clear verdict, or `None` if all verdicts are clear.
/// Peers take part only if the goal is relative to them, because some are slow.
pub(super) fn needed(outcomes: &[Outcome]) -> Option<Vec<String>> {
    let judged: Vec<Judged<'_>> = outcomes.iter().map(Judged::of).collect();
    let unclear: Vec<&Judged<'_>> = judged.iter().filter(|row| row.verdict == Verdict::Unclear).collect();
    if unclear.is_empty() {
        return None;
    }
    let ours = outcomes.iter().flat_map(|outcome| &outcome.results).filter(|one| one.kind != Kind::Peer);
    let against_peers = unclear.iter().filter(|row| matches!(row.outcome.goal, Some(Goal::OfBestPeer(_))));
    let peers = against_peers.filter_map(|row| row.best_peer()).map(|peer| peer.contended);
    Some(ours.chain(peers).map(|one| one.contender.clone()).collect())
}

/// The rows about whose rounds the report has something to say.
#[derive(Clone, Debug, Default)]
pub(super) struct Remarks {
    /// Rows with more rounds than fit into their time.
    again: Vec<String>,
    /// Rows whose best rounds are compared.
    best: Vec<String>,
    /// Noisy rows without a goal.
    noisy: Vec<String>,
}

impl Remarks {
    /// Ends the measurement of a row that had `rounds` rounds, `times` as many as fit into its time.
    pub(super) fn settle(&mut self, outcomes: Vec<Outcome>, rounds: usize, times: usize) -> Vec<Outcome> {
        outcomes.into_iter().map(|outcome| self.settle_one(outcome, rounds, times)).collect()
    }

    fn settle_one(&mut self, outcome: Outcome, rounds: usize, times: usize) -> Outcome {
        let judged = Judged::of(&outcome);
        let name = format!("{} over {}", outcome.row, outcome.transport);
        let (verdict, noise) = (judged.verdict, judged.noise());
        if times > 1 && verdict != Verdict::NoGoal {
            self.again.push(format!("{name} ({rounds} rounds)"));
        }
        let Some(Noise { whose, spread, width }) = noise else { return outcome };
        let percent = |part: f64| (part * 100.0).round();
        let (spread, width) = (percent(spread), percent(width));
        let remark = format!("{name} (rounds of {whose} spread {spread} %, interval {width} %)");
        match verdict {
            Verdict::Unclear => {
                self.best.push(remark);
                Outcome { compared: Compared::Best, ..outcome }
            }
            Verdict::NoGoal | Verdict::NotRun => {
                self.noisy.push(remark);
                outcome
            }
            // The noise did not keep the row from a verdict.
            Verdict::Met | Verdict::Missed => outcome,
        }
    }

    /// Returns a sentence for each kind of remark.
    pub(super) fn notes(&self) -> Vec<String> {
        let all = [
            ("Run again, because a verdict was unclear", &self.again),
            (
                "Too noisy to tell from all rounds, so that the best quarter of each contender's rounds is compared",
                &self.best,
            ),
            ("Noisy, and without a verdict", &self.noisy),
        ];
        let said = all.into_iter().filter(|(_, rows)| !rows.is_empty());
        said.map(|(what, rows)| format!("{what}: {}.", rows.join("; "))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::{Contended, Unit};

    /// Rounds that spread widely around 10.
    const NOISY: [f64; 8] = [5.0, 15.0, 8.0, 14.0, 6.0, 16.0, 9.0, 7.0];

    fn contended(contender: &str, kind: Kind, values: &[f64]) -> Contended {
        let (contender, values) = (contender.to_owned(), values.to_vec());
        Contended { contender, kind, values, latencies_us: Vec::new(), settings: String::new() }
    }

    /// A row of steady plain sockets, Teleport with these rounds, and two peers.
    fn row(goal: Option<Goal>, ours: &[f64]) -> Outcome {
        let results = vec![
            contended("raw", Kind::Ceiling, &[10.0; 24]),
            contended("teleport", Kind::Teleport, ours),
            contended("fast", Kind::Peer, &[8.0; 24]),
            contended("slow", Kind::Peer, &[1.0; 24]),
        ];
        let (row, unit, compared) = ("a row".to_owned(), Unit::GBs, Compared::Pairs);
        Outcome { row, transport: "tcp", unit, results, goal, point: None, compared }
    }

    #[test]
    fn clear_rows_and_rows_without_a_goal_are_not_run_again() {
        assert_eq!(needed(&[row(Some(Goal::OfCeiling(0.95)), &[9.9; 8]), row(None, &NOISY)]), None);
        assert_eq!(needed(&[row(Some(Goal::OfCeiling(0.95)), &[9.0; 8])]), None, "missed is clear");
        assert_eq!(needed(&[row(Some(Goal::OfCeiling(0.4)), &NOISY)]), None, "met, whatever the noise");
    }

    #[test]
    fn those_run_again_to_whom_an_unclear_goal_is_relative() {
        let clear = || row(Some(Goal::OfBestPeer(0.5)), &[9.9; 8]);
        let names = needed(&[clear(), row(Some(Goal::OfCeiling(1.0)), &NOISY)]).unwrap();
        assert!(names.contains(&"raw".to_owned()) && names.contains(&"teleport".to_owned()));
        assert!(!names.contains(&"fast".to_owned()) && !names.contains(&"slow".to_owned()), "{names:?}");
        let names = needed(&[row(Some(Goal::OfBestPeer(1.2)), &NOISY)]).unwrap();
        assert!(names.contains(&"fast".to_owned()) && !names.contains(&"slow".to_owned()), "{names:?}");
    }

    #[test]
    fn best_rounds_settle_what_noise_left_open() {
        let mut remarks = Remarks::default();
        let rounds = NOISY.repeat(3);
        let outcomes = [1.0, 0.4].map(|goal| row(Some(Goal::OfCeiling(goal)), &rounds)).to_vec();
        let settled = remarks.settle(outcomes, 24, 3);
        assert_eq!(
            settled.iter().map(|one| one.compared).collect::<Vec<_>>(),
            [Compared::Best, Compared::Pairs]
        );
        assert_eq!(Judged::of(&settled[0]).verdict, Verdict::Met);
        let notes = remarks.notes();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("a row over tcp (24 rounds)"), "{notes:?}");
        assert!(notes[1].contains("best quarter") && notes[1].matches("a row").count() == 1, "{notes:?}");
    }

    #[test]
    fn a_goal_amid_steady_rounds_stays_unclear() {
        let near: Vec<f64> = (0..9).map(|i| 9.9 + 0.1 * f64::from(i % 3)).collect();
        let mut remarks = Remarks::default();
        let settled = remarks.settle(vec![row(Some(Goal::OfCeiling(1.0)), &near)], 24, 3);
        assert_eq!(settled[0].compared, Compared::Pairs);
        assert_eq!(Judged::of(&settled[0]).verdict, Verdict::Unclear);
    }

    #[test]
    fn quiet_runs_have_no_notes_and_noise_without_a_goal_has_one() {
        let mut remarks = Remarks::default();
        remarks.settle(vec![row(Some(Goal::OfCeiling(0.9)), &[9.9; 8]), row(None, &[9.9; 8])], 30, 1);
        assert!(remarks.notes().is_empty(), "{:?}", remarks.notes());
        remarks.settle(vec![row(None, &NOISY)], 30, 1);
        assert_eq!(remarks.notes().len(), 1);
    }
}
