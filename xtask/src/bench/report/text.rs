//! Formats values, ratios and goals, with the three significant digits that the noise of a machine leaves.

use super::judged::Judged;
use crate::bench::outcome::{Contended, Goal, Outcome, Unit};
use crate::bench::stats::Interval;

/// Formats a value: "6.12 GB/s", "812 us", "3.1 ms", "1.24 M/s", "16 KiB".
pub(super) fn value(value: f64, unit: Unit) -> String {
    let (shown, unit) = match unit {
        Unit::Micros if value.abs() >= 1e6 => (value / 1e6, "s"),
        Unit::Micros if value.abs() >= 1e3 => (value / 1e3, "ms"),
        Unit::CallsPerSecond if value.abs() >= 1e6 => (value / 1e6, "M/s"),
        Unit::CallsPerSecond if value.abs() >= 1e4 => (value / 1e3, "k/s"),
        Unit::CallsPerSecond => (value, "/s"),
        Unit::Bytes => return bytes(value),
        other => (value, other.name()),
    };
    format!("{} {unit}", digits(shown)).trim_end().to_owned()
}

/// Formats a size: "512 B", "64 KiB", "1.5 GiB".
pub(super) fn bytes(bytes: f64) -> String {
    let (mut shown, mut unit) = (bytes, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if shown.abs() < 1024.0 {
            break;
        }
        (shown, unit) = (shown / 1024.0, larger);
    }
    format!("{} {unit}", digits(shown))
}

/// Formats three significant digits; whole numbers below 10,000 are kept.
pub(super) fn digits(value: f64) -> String {
    let size = value.abs();
    if size < 1e4 && value.fract() == 0.0 || size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Formats a round number with as few digits as possible: "0", "2.5", "99.9".
pub(super) fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Formats a time, with the proper sign for microseconds.
pub(super) fn micros(micros: f64) -> String {
    value(micros, Unit::Micros).replace(" us", " \u{b5}s")
}

/// Formats a ratio and both ends of its interval.
pub(super) fn ratio(Interval { low, median, high }: Interval) -> [String; 3] {
    [median, low, high].map(factor)
}

/// Formats Teleport's relation to the ceiling and both ends of its interval: the ratio, or the difference if
/// the goal is about that.
pub(super) fn to_ceiling(row: &Judged<'_>) -> Option<[String; 3]> {
    let ours = row.teleport()?;
    let Some(Goal::AboveCeiling(_)) = row.outcome.goal else {
        return ours.to_ceiling.map(ratio);
    };
    let signed = |difference: f64| {
        let sign = if difference < 0.0 { "-" } else { "+" };
        format!("{sign}{}", value(difference.abs(), row.outcome.unit))
    };
    ours.above_ceiling.map(|Interval { low, median, high }| [median, low, high].map(signed))
}

/// Joins a median and its interval: "0.97 (0.95 to 0.98)".
pub(super) fn with_interval([median, low, high]: [String; 3]) -> String {
    format!("{median} ({low} to {high})")
}

/// Formats one ratio.
pub(super) fn factor(ratio: f64) -> String {
    if ratio >= 100.0 { format!("{ratio:.0}") } else { format!("{ratio:.2}") }
}

/// Formats a goal: ">= 0.95 x ceiling", "<= 3 ms"; empty if there is none. `signs` mean at least and at
/// most.
pub(super) fn goal(outcome: &Outcome, [at_least, at_most]: [&str; 2]) -> String {
    let Some(goal) = outcome.goal else { return String::new() };
    let sign = if goal.is_a_minimum(outcome) { at_least } else { at_most };
    match goal {
        Goal::OfCeiling(ratio) => format!("{sign} {ratio} x ceiling"),
        Goal::AboveCeiling(most) => format!("{sign} {} above ceiling", value(most, outcome.unit)),
        Goal::OfBestPeer(ratio) => format!("{sign} {ratio} x best peer"),
        Goal::Most(most) => format!("{sign} {}", value(most, outcome.unit)),
    }
}

/// Returns the name of a contender, for readers.
pub(super) fn name(contended: &Contended) -> String {
    let name = match contended.contender.as_str() {
        "raw" => "raw sockets",
        "teleport" => "Teleport",
        "zmq" | "zeromq" => "ZeroMQ",
        "ucx" => "UCX",
        "flight" | "arrow-flight" => "Arrow Flight",
        other => other,
    };
    name.to_owned()
}

/// Returns the name of a transport, for headings.
pub(super) fn transport(transport: &str) -> &str {
    match transport {
        "tcp" => "TCP",
        "unix" | "ipc" => "Unix socket",
        "" => "Without a transport of its own",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_a_suitable_unit() {
        assert_eq!(value(6.1234, Unit::GBs), "6.12 GB/s");
        assert_eq!(value(12.34, Unit::Micros), "12.3 us");
        assert_eq!(value(3000.0, Unit::Micros), "3 ms");
        assert_eq!(value(1_243_000.0, Unit::CallsPerSecond), "1.24 M/s");
        assert_eq!(value(98_765.0, Unit::CallsPerSecond), "98.8 k/s");
        assert_eq!(value(37.0, Unit::Count), "37");
        assert_eq!(value(16384.0, Unit::Bytes), "16 KiB");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bytes(100.0), "100 B");
    }

    #[test]
    fn goals_name_their_direction_and_base() {
        use crate::bench::report::fixture::outcome;
        let with = |unit, goal| goal_of(&Outcome { goal: Some(goal), ..outcome("a row", unit, Vec::new()) });
        assert_eq!(with(Unit::GBs, Goal::OfCeiling(0.95)), ">= 0.95 x ceiling");
        assert_eq!(with(Unit::Micros, Goal::OfCeiling(1.25)), "<= 1.25 x ceiling");
        assert_eq!(with(Unit::CallsPerSecond, Goal::OfBestPeer(1.5)), ">= 1.5 x best peer");
        assert_eq!(with(Unit::Seconds, Goal::Most(30.0)), "<= 30 s");
        assert_eq!(with(Unit::Micros, Goal::AboveCeiling(3.0)), "<= 3 us above ceiling");
        assert_eq!(goal_of(&outcome("a row", Unit::GBs, Vec::new())), "");
    }

    fn goal_of(outcome: &Outcome) -> String {
        goal(outcome, [">=", "<="])
    }
}
