//! What was measured, as tables for reading and as JSON for programs.

use serde_json::json;

use super::Measure;
use super::stats::{Interval, bootstrap, median};

/// All rounds of one row.
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) transport: &'static str,
    pub(super) measure: Measure,
    /// The second is compared with the first.
    pub(super) contenders: [&'static str; 2],
    /// Of each, round by round.
    pub(super) values: [Vec<f64>; 2],
    /// The ratio that is to be reached, if there is one.
    pub(super) goal: Option<f64>,
}

impl Outcome {
    /// The second contender over the first, round by round.
    fn ratio(&self) -> Interval {
        let [base, other] = &self.values;
        let ratios: Vec<f64> = other.iter().zip(base).map(|(other, base)| other / base).collect();
        bootstrap(&ratios)
    }

    /// None where the interval straddles the goal.
    fn met(&self, goal: f64) -> Option<bool> {
        let Interval { low, high, .. } = self.ratio();
        let more_is_better = self.measure == Measure::Throughput;
        match (low >= goal, high >= goal) {
            (true, true) => Some(more_is_better),
            (false, false) => Some(!more_is_better),
            _ => None,
        }
    }

    fn unit(&self) -> &'static str {
        match self.measure {
            Measure::Throughput => "GB/s",
            Measure::Latency => "us",
        }
    }

    /// The goal and whether it is met, where there is one.
    fn judged(&self) -> String {
        let Some(goal) = self.goal else { return String::new() };
        let sign = if self.measure == Measure::Throughput { ">=" } else { "<=" };
        let met = self.met(goal).map_or("unclear", |met| if met { "yes" } else { "no" });
        format!("{:<8} {met}", format!("{sign} {goal}"))
    }
}

/// Prints a table for each pair of contenders.
pub(super) fn print(outcomes: &[Outcome]) {
    let mut pairs: Vec<[&str; 2]> = Vec::new();
    for outcome in outcomes {
        if !pairs.contains(&outcome.contenders) {
            pairs.push(outcome.contenders);
        }
    }
    for pair in pairs {
        let [base, other] = pair;
        let row = "row";
        println!("{row:<43} over {base:>14} {other:>14}   ratio (95 % interval)    goal     met");
        outcomes.iter().filter(|outcome| outcome.contenders == pair).for_each(print_row);
        println!();
    }
}

fn print_row(outcome: &Outcome) {
    let Interval { low, median: middle, high } = outcome.ratio();
    let [base, other] = outcome.values.each_ref().map(|v| format!("{:.2} {}", median(v), outcome.unit()));
    let (name, over) = (outcome.name, outcome.transport);
    let ratio = format!("{middle:.2} ({low:.2} to {high:.2})");
    println!(
        "{}",
        format!("{name:<43} {over:>4} {base:>14} {other:>14}   {ratio:<24} {}", outcome.judged()).trim_end()
    );
}

/// A list of rows, two for each outcome.
pub(super) fn json(outcomes: &[Outcome]) -> String {
    let rows: Vec<_> = outcomes.iter().flat_map(|outcome| [base_row(outcome), other_row(outcome)]).collect();
    format!("{:#}\n", serde_json::Value::Array(rows))
}

/// What the ratio is called: only plain sockets are a ceiling.
fn ratio_name(outcome: &Outcome) -> &'static str {
    if outcome.contenders[0] == "raw" { "ratio_to_ceiling" } else { "ratio_to_base" }
}

fn base_row(outcome: &Outcome) -> serde_json::Value {
    row(outcome, 0, json!({ratio_name(outcome): 1.0, "goal": null, "met": null}))
}

fn other_row(outcome: &Outcome) -> serde_json::Value {
    let met = outcome.goal.and_then(|goal| outcome.met(goal));
    row(outcome, 1, json!({ratio_name(outcome): outcome.ratio().median, "goal": outcome.goal, "met": met}))
}

fn row(outcome: &Outcome, contender: usize, judged: serde_json::Value) -> serde_json::Value {
    let values = &outcome.values[contender];
    let mut row = json!({
        "row": format!("{} over {}", outcome.name, outcome.transport),
        "contender": outcome.contenders[contender],
        "unit": outcome.unit(),
        "median": median(values),
        "min": values.iter().copied().fold(f64::INFINITY, f64::min),
        "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "ratio_to_ceiling": null,
        "ratio_to_best_peer": null,
    });
    if let (Some(row), serde_json::Value::Object(judged)) = (row.as_object_mut(), judged) {
        row.extend(judged);
    }
    row
}
