//! How far a row is from its goal, as a small drawing in its line of the table.
//!
//! The goal stands in the middle of every strip and better is to the right of it, whatever the unit, so that the eye runs down
//! one line. What lies beyond a strip's end has an arrow.

use super::judged::{Judged, Verdict};
use super::plot::Svg;

const SIZE: (f64, f64) = (150.0, 22.0);
/// From the goal to the end.
const HALF: f64 = 62.0;
/// The ratio at the end: near goals are what one wants to tell apart.
const MAX_FACTOR: f64 = 4.0 / 3.0;

/// None for a row that has no verdict.
pub(super) fn strip(row: &Judged<'_>) -> Option<String> {
    if matches!(row.verdict, Verdict::NoGoal | Verdict::NotRun) {
        return None;
    }
    let goal = row.outcome.goal?;
    let measured = row.under_judgement(goal)?;
    let sign = if goal.is_a_minimum(row.outcome) { 1.0 } else { -1.0 };
    let middle = SIZE.0 / 2.0;
    // From -1 to 1 on the strip.
    let distance = |value: f64| sign * (value / goal.value()).max(1e-9).ln() / MAX_FACTOR.ln();
    let at = |value: f64| middle + distance(value).clamp(-1.0, 1.0) * HALF;
    let y = SIZE.1 / 2.0;
    let mut svg = Svg::new(SIZE.0, SIZE.1);
    svg.line("grid", (middle - HALF, y), (middle + HALF, y));
    svg.line("mark", (middle, 2.0), (middle, SIZE.1 - 2.0));
    svg.line("s-teleport", (at(measured.low), y), (at(measured.high), y));
    let beyond = distance(measured.median);
    if beyond.abs() > 1.0 {
        let tip = beyond.signum();
        let end = middle + tip * HALF;
        svg.area(
            "f-teleport",
            &[(end + tip * 9.0, y), (end - tip * 2.0, y - 6.0), (end - tip * 2.0, y + 6.0)],
        );
    } else {
        svg.circle("f-teleport", (at(measured.median), y), 4.5);
    }
    Some(svg.inline(row.verdict.word()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::{Goal, Outcome, Unit};
    use crate::bench::report::fixture::{outcome, raw, teleport};
    use crate::bench::report::plot::well_formed;

    fn drawn(unit: Unit, goal: Option<Goal>, value: f64) -> Option<String> {
        let row = Outcome { goal, ..outcome("a row", unit, vec![raw(&[10.0]), teleport(&[value])]) };
        let drawn = strip(&Judged::of(&row));
        drawn.iter().for_each(|svg| well_formed::check(svg).unwrap());
        drawn
    }

    #[test]
    fn better_is_to_the_right_of_the_goal_in_every_unit() {
        let x = |unit, goal, value| {
            let svg = drawn(unit, Some(goal), value).unwrap();
            let behind = svg.split("cx=\"").nth(1).unwrap();
            behind.split('"').next().unwrap().parse::<f64>().unwrap()
        };
        assert!(x(Unit::GBs, Goal::OfCeiling(0.9), 10.0) > 75.0);
        assert!(x(Unit::GBs, Goal::OfCeiling(0.9), 8.5) < 75.0);
        assert!(x(Unit::Micros, Goal::OfCeiling(1.25), 11.0) > 75.0);
        assert!(x(Unit::Seconds, Goal::Most(30.0), 33.0) < 75.0);
    }

    #[test]
    fn what_lies_beyond_has_an_arrow_and_what_has_no_goal_has_no_strip() {
        for value in [0.0, 1.0, 1e9] {
            let svg = drawn(Unit::GBs, Some(Goal::OfCeiling(1.0)), value).unwrap();
            assert!(!svg.contains("<circle"), "{svg}");
        }
        assert_eq!(drawn(Unit::GBs, None, 1.0), None);
        assert_eq!(drawn(Unit::GBs, Some(Goal::OfBestPeer(1.0)), 1.0), None);
    }
}
