//! Judges rows: their ratios, intervals and verdicts.
//!
//! Flow: an [`Outcome`] -> [`Judged::of`] -> the runner decides whether the row needs more rounds; tables,
//! JSON and page show it. Ratios are taken pair by pair, round by round, so that drift of the machine
//! cancels out; `compare` says when they are not. Contenders without values are left out.

use super::compare::Comparison;
use crate::bench::outcome::{Compared, Contended, Goal, Kind, Outcome, Plot, Unit};
use crate::bench::stats::{Interval, spread};

/// A row is too noisy if the middle half of a contender's rounds spreads over more than this part of the
/// median,
const MAX_SPREAD: f64 = 0.25;
/// or if the interval of Teleport's ratio is wider than this.
const MAX_WIDTH: f64 = 0.15;

/// A row with the standings of its contenders.
pub(in crate::bench) struct Judged<'a> {
    pub(in crate::bench) outcome: &'a Outcome,
    /// The contenders with values, in the order of the row.
    pub(super) standings: Vec<Standing<'a>>,
    pub(in crate::bench) verdict: Verdict,
    best_peer: Option<usize>,
}

/// The values of one contender, and their relation to those of others.
pub(in crate::bench) struct Standing<'a> {
    pub(in crate::bench) contended: &'a Contended,
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// `None` if the row has no ceiling.
    pub(super) to_ceiling: Option<Interval>,
    /// How much more than the ceiling, in the row's unit; `None` if the row has none.
    pub(super) above_ceiling: Option<Interval>,
    /// `None` for the ceiling, and if no peer was run.
    pub(super) to_best_peer: Option<Interval>,
}

/// The outcome of a row's goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Verdict {
    Met,
    Missed,
    /// The goal lies within the interval.
    Unclear,
    /// Teleport, or the contender that the goal is relative to, was not run.
    NotRun,
    NoGoal,
}

impl Verdict {
    /// Returns the verdict for JSON; `None` unless it is certain.
    pub(super) fn met(self) -> Option<bool> {
        match self {
            Verdict::Met => Some(true),
            Verdict::Missed => Some(false),
            Verdict::Unclear | Verdict::NotRun | Verdict::NoGoal => None,
        }
    }

    /// Returns the verdict in a word; empty if there is no goal.
    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::Unclear => "unclear",
            Verdict::NotRun => "not run",
            Verdict::NoGoal => "",
        }
    }
}

/// How much the rounds of a row differ.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Noise {
    /// The contender whose rounds are meant: the one that the goal is relative to.
    pub(in crate::bench) whose: String,
    /// The middle half of its rounds, relative to their median.
    pub(in crate::bench) spread: f64,
    /// The width of the interval of Teleport's ratio, relative to the ratio.
    pub(in crate::bench) width: f64,
}

impl<'a> Judged<'a> {
    pub(in crate::bench) fn of(outcome: &'a Outcome) -> Judged<'a> {
        let comparison = Comparison::of(outcome);
        let run: Vec<&Contended> = outcome.results.iter().filter(|one| !one.values.is_empty()).collect();
        let ceiling = run.iter().find(|one| one.kind == Kind::Ceiling).copied();
        let best_peer = best_peer(outcome, &run);
        let base = best_peer.map(|best| run[best]);
        let standings = run.iter().map(|one| Standing::of(comparison, one, ceiling, base)).collect();
        let mut judged = Judged { outcome, standings, verdict: Verdict::NoGoal, best_peer };
        judged.verdict = judged.judge();
        judged
    }

    pub(super) fn ceiling(&self) -> Option<&Standing<'a>> {
        self.first(Kind::Ceiling)
    }

    pub(super) fn teleport(&self) -> Option<&Standing<'a>> {
        self.first(Kind::Teleport)
    }

    /// Returns the peer with the best median.
    pub(in crate::bench) fn best_peer(&self) -> Option<&Standing<'a>> {
        self.best_peer.map(|best| &self.standings[best])
    }

    /// Returns true for points of a sweep without a goal, which would fill the tables.
    pub(super) fn is_for_plots_only(&self) -> bool {
        let swept = |plot| matches!(plot, Plot::ThroughputOverSize | Plot::CallsOverInFlight);
        self.outcome.goal.is_none() && self.outcome.point.is_some_and(|point| swept(point.plot))
    }

    fn first(&self, kind: Kind) -> Option<&Standing<'a>> {
        self.standings.iter().find(|standing| standing.contended.kind == kind)
    }

    /// Returns Teleport's value that the goal is about.
    pub(super) fn under_judgement(&self, goal: Goal) -> Option<Interval> {
        let teleport = self.teleport()?;
        match goal {
            Goal::OfCeiling(_) => teleport.to_ceiling,
            Goal::AboveCeiling(_) => teleport.above_ceiling,
            Goal::OfBestPeer(_) => teleport.to_best_peer,
            Goal::Most(_) => Some(Comparison::of(self.outcome).own(&teleport.contended.values)),
        }
    }

    /// Returns the verdict for tables, with a remark if only the best rounds led to it.
    pub(super) fn said(&self) -> String {
        match self.outcome.compared {
            Compared::Pairs => self.verdict.word().to_owned(),
            Compared::Best => format!("{}, best rounds", self.verdict.word()),
        }
    }

    /// Returns the noise of the values that the verdict depends on, or `None` if they are steady. Memory is
    /// always steady.
    pub(in crate::bench) fn noise(&self) -> Option<Noise> {
        let teleport = self.teleport().filter(|_| self.outcome.unit != Unit::MiB)?;
        let base = match self.outcome.goal {
            Some(Goal::OfBestPeer(_)) => self.best_peer(),
            Some(Goal::Most(_)) => None,
            _ => self.ceiling(),
        };
        let ratio = match self.outcome.goal {
            Some(Goal::OfBestPeer(_)) => teleport.to_best_peer,
            Some(Goal::Most(_)) => self.under_judgement(Goal::Most(0.0)),
            _ => teleport.to_ceiling,
        };
        let Standing { contended, .. } = base.unwrap_or(teleport);
        let spread = spread(&contended.values);
        let width = ratio.map_or(0.0, |Interval { low, median, high }| (high - low) / median);
        let is_noisy = spread > MAX_SPREAD || width > MAX_WIDTH;
        is_noisy.then(|| Noise { whose: contended.contender.clone(), spread, width })
    }

    fn judge(&self) -> Verdict {
        let Some(goal) = self.outcome.goal else { return Verdict::NoGoal };
        let Some(Interval { low, high, .. }) = self.under_judgement(goal) else { return Verdict::NotRun };
        let (reached_by_all, reached_by_none) = match (goal.is_a_minimum(self.outcome), goal.value()) {
            (true, goal) => (low >= goal, high < goal),
            (false, goal) => (high <= goal, low > goal),
        };
        match (reached_by_all, reached_by_none) {
            (true, _) => Verdict::Met,
            (_, true) => Verdict::Missed,
            _ => Verdict::Unclear,
        }
    }
}

impl Goal {
    pub(super) fn value(self) -> f64 {
        match self {
            Goal::OfCeiling(value)
            | Goal::AboveCeiling(value)
            | Goal::OfBestPeer(value)
            | Goal::Most(value) => value,
        }
    }

    /// Returns true if Teleport should reach at least the goal.
    pub(super) fn is_a_minimum(self, outcome: &Outcome) -> bool {
        !matches!(self, Goal::Most(_) | Goal::AboveCeiling(_)) && outcome.unit.more_is_better()
    }
}

impl<'a> Standing<'a> {
    fn of(
        comparison: Comparison,
        contended: &'a Contended,
        ceiling: Option<&Contended>,
        best_peer: Option<&Contended>,
    ) -> Standing<'a> {
        let values = &contended.values;
        let others_peer = best_peer.filter(|_| contended.kind != Kind::Ceiling);
        Standing {
            contended,
            median: comparison.median(values),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            to_ceiling: ceiling.and_then(|base| comparison.ratio(values, &base.values)),
            above_ceiling: ceiling.and_then(|base| comparison.difference(values, &base.values)),
            to_best_peer: others_peer.and_then(|base| comparison.ratio(values, &base.values)),
        }
    }
}

fn best_peer(outcome: &Outcome, run: &[&Contended]) -> Option<usize> {
    let peers = run.iter().enumerate().filter(|(_, one)| one.kind == Kind::Peer);
    let comparison = Comparison::of(outcome);
    let medians = peers.map(|(index, one)| (index, comparison.median(&one.values)));
    let best = if outcome.unit.more_is_better() {
        medians.max_by(|a, b| a.1.total_cmp(&b.1))
    } else {
        medians.min_by(|a, b| a.1.total_cmp(&b.1))
    };
    best.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::Unit;
    use crate::bench::report::fixture::{outcome, peer, raw, teleport};

    fn verdict(unit: Unit, goal: Goal, results: Vec<Contended>) -> Verdict {
        let outcome = Outcome { goal: Some(goal), ..outcome("a row", unit, results) };
        Judged::of(&outcome).verdict
    }

    #[test]
    fn a_goal_is_met_missed_or_unclear() {
        let both = || vec![raw(&[10.0; 9]), teleport(&[9.6; 9])];
        assert_eq!(verdict(Unit::GBs, Goal::OfCeiling(0.95), both()), Verdict::Met);
        assert_eq!(verdict(Unit::GBs, Goal::OfCeiling(0.97), both()), Verdict::Missed);
        let noisy: Vec<f64> = (0..9).map(|i| 9.0 + f64::from(i % 3)).collect();
        let noisy = vec![raw(&[10.0; 9]), teleport(&noisy)];
        assert_eq!(verdict(Unit::GBs, Goal::OfCeiling(1.0), noisy), Verdict::Unclear);
    }

    #[test]
    fn less_is_better_for_times_and_goals_of_at_most() {
        let both = || vec![raw(&[10.0; 9]), teleport(&[12.0; 9])];
        assert_eq!(verdict(Unit::Micros, Goal::OfCeiling(1.25), both()), Verdict::Met);
        assert_eq!(verdict(Unit::Micros, Goal::OfCeiling(1.1), both()), Verdict::Missed);
        assert_eq!(verdict(Unit::Micros, Goal::Most(12.0), both()), Verdict::Met);
        assert_eq!(verdict(Unit::Seconds, Goal::Most(11.0), vec![teleport(&[12.0])]), Verdict::Missed);
    }

    #[test]
    fn a_goal_above_the_ceiling_takes_the_difference_of_each_pair() {
        // Both slow down together, so their medians differ no more than the rounds of one.
        let bases: Vec<f64> = (0..9).map(|i| 10.0 + f64::from(i)).collect();
        let values: Vec<f64> = bases.iter().map(|base| base + 2.0).collect();
        let both = || vec![raw(&bases), teleport(&values)];
        assert_eq!(verdict(Unit::Micros, Goal::AboveCeiling(3.0), both()), Verdict::Met);
        assert_eq!(verdict(Unit::Micros, Goal::AboveCeiling(1.5), both()), Verdict::Missed);
        assert_eq!(verdict(Unit::Micros, Goal::AboveCeiling(3.0), vec![teleport(&[1.0])]), Verdict::NotRun);
    }

    #[test]
    fn best_rounds_decide_where_all_rounds_do_not() {
        // Two of three rounds are disturbed, each in its own way.
        let ours: Vec<f64> = (0..24).map(|i| [10.0, 4.0, 6.0][i % 3]).collect();
        let bases: Vec<f64> = (0..24).map(|i| [5.0, 10.0, 4.0][i % 3]).collect();
        let row = |compared| {
            let row = outcome("a row", Unit::GBs, vec![raw(&bases), teleport(&ours)]);
            Outcome { goal: Some(Goal::OfCeiling(0.95)), compared, ..row }
        };
        let all = row(Compared::Pairs);
        let judged = Judged::of(&all);
        assert_eq!((judged.verdict, judged.said()), (Verdict::Unclear, "unclear".to_owned()));
        let Noise { whose, spread, width } = judged.noise().unwrap();
        assert!(whose == "raw" && spread > 0.25 && width > 0.15, "{whose} {spread} {width}");
        let best = row(Compared::Best);
        let judged = Judged::of(&best);
        assert_eq!((judged.verdict, judged.said()), (Verdict::Met, "met, best rounds".to_owned()));
        assert_eq!(judged.teleport().unwrap().median, 10.0, "the table shows what is compared");
    }

    #[test]
    fn noise_is_that_of_what_the_goal_is_relative_to() {
        let noisy: Vec<f64> = (0..9).map(|i| 5.0 + f64::from(i)).collect();
        let row = |goal| {
            let results = vec![raw(&noisy), teleport(&[9.0; 9]), peer("zmq", &[3.0; 9])];
            Outcome { goal, ..outcome("a row", Unit::GBs, results) }
        };
        let whose = |goal| Judged::of(&row(goal)).noise().map(|noise| noise.whose);
        assert_eq!(whose(Some(Goal::OfCeiling(0.9))), Some("raw".to_owned()));
        assert_eq!(whose(None), Some("raw".to_owned()));
        assert_eq!(whose(Some(Goal::OfBestPeer(1.5))), None);
        assert_eq!(whose(Some(Goal::Most(1.5))), None);
        let alone = outcome("alone", Unit::Micros, vec![teleport(&noisy)]);
        assert_eq!(Judged::of(&alone).noise().unwrap().whose, "teleport");
    }

    #[test]
    fn the_best_peer_depends_on_the_direction_of_the_unit() {
        let all = || {
            vec![
                teleport(&[30.0; 3]),
                peer("slow", &[10.0; 3]),
                peer("fast", &[20.0; 3]),
                peer("absent", &[]),
            ]
        };
        let calls = outcome("calls", Unit::CallsPerSecond, all());
        let judged = Judged::of(&calls);
        assert_eq!(judged.best_peer().unwrap().contended.contender, "fast");
        assert_eq!(judged.teleport().unwrap().to_best_peer.unwrap().median, 1.5);
        assert_eq!(judged.standings.len(), 3, "contenders without values are left out");
        let times = outcome("times", Unit::Micros, all());
        assert_eq!(Judged::of(&times).best_peer().unwrap().contended.contender, "slow");
    }

    #[test]
    fn a_goal_relative_to_a_missing_contender_is_not_run() {
        assert_eq!(verdict(Unit::GBs, Goal::OfBestPeer(1.5), vec![teleport(&[1.0])]), Verdict::NotRun);
        assert_eq!(verdict(Unit::GBs, Goal::OfCeiling(1.5), vec![teleport(&[1.0])]), Verdict::NotRun);
        assert_eq!(verdict(Unit::GBs, Goal::Most(1.5), vec![raw(&[1.0])]), Verdict::NotRun);
        assert_eq!(
            verdict(Unit::Count, Goal::OfCeiling(1.0), vec![raw(&[0.0]), teleport(&[0.0])]),
            Verdict::NotRun
        );
    }
}
