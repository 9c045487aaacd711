//! What was measured, as a table for reading and as JSON for programs.

use serde_json::json;

use super::stats::{Interval, bootstrap, median};
use super::{Measure, Row};

/// All rounds of one row.
pub(super) struct Outcome {
    pub(super) row: Row,
    pub(super) transport: &'static str,
    pub(super) raw: Vec<f64>,
    pub(super) teleport: Vec<f64>,
}

impl Outcome {
    /// Teleport over raw, round by round.
    fn ratio(&self) -> Interval {
        let ratios: Vec<f64> = self.teleport.iter().zip(&self.raw).map(|(ours, raw)| ours / raw).collect();
        bootstrap(&ratios)
    }

    /// None where the interval straddles the goal.
    fn met(&self) -> Option<bool> {
        let Interval { low, high, .. } = self.ratio();
        let (goal, more_is_better) = (self.row.goal, self.row.measure == Measure::Throughput);
        match (low >= goal, high >= goal) {
            (true, true) => Some(more_is_better),
            (false, false) => Some(!more_is_better),
            _ => None,
        }
    }

    fn unit(&self) -> &'static str {
        match self.row.measure {
            Measure::Throughput => "GB/s",
            Measure::Latency => "us",
        }
    }

    fn goal(&self) -> String {
        let sign = if self.row.measure == Measure::Throughput { ">=" } else { "<=" };
        format!("{sign} {}", self.row.goal)
    }
}

/// Prints the table.
pub(super) fn print(outcomes: &[Outcome]) {
    println!(
        "{:<43} {:>4} {:>14} {:>14}   ratio (95 % interval)    goal     met",
        "row", "over", "raw", "teleport"
    );
    for outcome in outcomes {
        let Interval { low, median: middle, high } = outcome.ratio();
        let met = outcome.met().map_or("unclear", |met| if met { "yes" } else { "no" });
        let values =
            [&outcome.raw, &outcome.teleport].map(|v| format!("{:.2} {}", median(v), outcome.unit()));
        println!(
            "{:<43} {:>4} {:>14} {:>14}   {middle:.2} ({low:.2} to {high:.2})      {:<8} {met}",
            outcome.row.name,
            outcome.transport,
            values[0],
            values[1],
            outcome.goal(),
        );
    }
}

/// A list of rows, two for each outcome.
pub(super) fn json(outcomes: &[Outcome]) -> String {
    let rows: Vec<_> =
        outcomes.iter().flat_map(|outcome| [raw_row(outcome), teleport_row(outcome)]).collect();
    format!("{:#}\n", serde_json::Value::Array(rows))
}

fn raw_row(outcome: &Outcome) -> serde_json::Value {
    row(outcome, "raw", &outcome.raw, json!({"ratio_to_ceiling": 1.0, "goal": null, "met": null}))
}

fn teleport_row(outcome: &Outcome) -> serde_json::Value {
    let ratio = outcome.ratio().median;
    let judged = json!({"ratio_to_ceiling": ratio, "goal": outcome.row.goal, "met": outcome.met()});
    row(outcome, "teleport", &outcome.teleport, judged)
}

fn row(outcome: &Outcome, contender: &str, values: &[f64], judged: serde_json::Value) -> serde_json::Value {
    let mut row = json!({
        "row": format!("{} over {}", outcome.row.name, outcome.transport),
        "contender": contender,
        "unit": outcome.unit(),
        "median": median(values),
        "min": values.iter().copied().fold(f64::INFINITY, f64::min),
        "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "ratio_to_best_peer": null,
    });
    if let (Some(row), serde_json::Value::Object(judged)) = (row.as_object_mut(), judged) {
        row.extend(judged);
    }
    row
}
