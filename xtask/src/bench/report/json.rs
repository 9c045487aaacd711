//! The results as JSON: a list with one object for each contender of each row.

use serde_json::{Value, json};

use super::Report;
use super::judged::{Judged, Standing};
use crate::bench::outcome::{Compared, Goal, Kind, Outcome};
use crate::bench::stats::Interval;

/// Returns the list. Only Teleport's objects have goals and verdicts; they are null elsewhere.
pub(super) fn json(report: &Report<'_>) -> String {
    let objects =
        report.rows().flat_map(|row| row.standings.iter().map(move |standing| object(row, standing)));
    format!("{:#}\n", Value::Array(objects.collect()))
}

fn object(judged: &Judged<'_>, standing: &Standing<'_>) -> Value {
    let outcome = judged.outcome;
    let is_judged = standing.contended.kind == Kind::Teleport;
    let goal = outcome.goal.filter(|_| is_judged);
    let met = judged.verdict.met().filter(|_| is_judged);
    json!({
        "row": outcome.row,
        "transport": outcome.transport,
        "contender": standing.contended.contender,
        "unit": outcome.unit.name(),
        "rounds": standing.contended.values.len(),
        "compared": compared(outcome),
        "median": standing.median,
        "min": standing.min,
        "max": standing.max,
        "ratio_to_ceiling": standing.to_ceiling.map(|ratio| ratio.median),
        "ratio_to_ceiling_interval": interval(standing.to_ceiling),
        "above_ceiling": standing.above_ceiling.map(|above| above.median),
        "above_ceiling_interval": interval(standing.above_ceiling),
        "ratio_to_best_peer": standing.to_best_peer.map(|ratio| ratio.median),
        "ratio_to_best_peer_interval": interval(standing.to_best_peer),
        "goal": goal.map(Goal::value),
        "goal_is": goal.map(|goal| kind_of(goal, outcome)),
        "met": met,
    })
}

fn interval(ratio: Option<Interval>) -> Value {
    ratio.map_or(Value::Null, |ratio| json!([ratio.low, ratio.high]))
}

/// Returns which rounds the median and the ratios come from.
fn compared(outcome: &Outcome) -> &'static str {
    match outcome.compared {
        Compared::Pairs => "all rounds",
        Compared::Best => "best rounds",
    }
}

/// Returns what the goal's number is compared with.
fn kind_of(goal: Goal, outcome: &Outcome) -> &'static str {
    match (goal, goal.is_a_minimum(outcome)) {
        (Goal::OfCeiling(_), true) => "least ratio to ceiling",
        (Goal::OfCeiling(_), false) => "most ratio to ceiling",
        (Goal::AboveCeiling(_), _) => "most above ceiling",
        (Goal::OfBestPeer(_), true) => "least ratio to best peer",
        (Goal::OfBestPeer(_), false) => "most ratio to best peer",
        (Goal::Most(_), _) => "most",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::Unit;
    use crate::bench::report::About;
    use crate::bench::report::fixture::{outcome, peer, raw, teleport};

    fn rows(outcome: Outcome) -> Vec<Value> {
        serde_json::from_str(&Report::new(&About::default(), &[outcome]).json()).unwrap()
    }

    #[test]
    fn each_contender_has_an_object_and_teleport_the_goal() {
        let results = vec![raw(&[10.0; 5]), teleport(&[9.0; 5]), peer("zmq", &[3.0; 5])];
        let rows =
            rows(Outcome { goal: Some(Goal::OfCeiling(0.8)), ..outcome("a \"row\"", Unit::GBs, results) });
        assert_eq!(rows.len(), 3);
        let [raw, teleport, zmq] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(
            (&raw["row"], &raw["transport"], &raw["unit"]),
            (&json!("a \"row\""), &json!("tcp"), &json!("GB/s"))
        );
        assert_eq!(
            (&raw["ratio_to_ceiling"], &raw["goal"], &raw["met"]),
            (&json!(1.0), &Value::Null, &Value::Null)
        );
        assert_eq!((&teleport["ratio_to_ceiling"], &teleport["goal"]), (&json!(0.9), &json!(0.8)));
        assert_eq!((&teleport["ratio_to_best_peer"], &teleport["met"]), (&json!(3.0), &json!(true)));
        assert_eq!(teleport["ratio_to_ceiling_interval"], json!([0.9, 0.9]));
        assert_eq!((&zmq["ratio_to_best_peer"], &zmq["met"]), (&json!(1.0), &Value::Null));
        assert_eq!((&zmq["rounds"], &zmq["compared"]), (&json!(5), &json!("all rounds")));
    }

    #[test]
    fn met_is_null_without_a_certain_verdict() {
        let row =
            Outcome { goal: Some(Goal::OfBestPeer(1.5)), ..outcome("a", Unit::GBs, vec![teleport(&[9.0])]) };
        let rows = rows(row);
        assert_eq!((&rows[0]["goal"], &rows[0]["met"]), (&json!(1.5), &Value::Null));
        assert_eq!(Report::new(&About::default(), &[]).json(), "[]\n");
    }
}
