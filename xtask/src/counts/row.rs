//! One count, and its comparison with the accepted count.

/// The relative change of a count that passes. It is larger than the differences between runs of one
/// program.
const TENTH: f64 = 0.1;

/// The same for whole calls, whose counts differ by up to 2 % between runs.
const TWENTIETH: f64 = 0.05;

/// One count.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Also the name in the file of accepted counts.
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) bound: Bound,
}

/// The limit of a count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// This share above the accepted count, plus `slack` for effects of the scheduler.
    Accepted { share: f64, slack: f64 },
    /// A fixed goal.
    Most(f64),
}

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Held,
    /// Above this limit, which fails.
    Above(f64),
    /// Far below this accepted count; the new one should be accepted.
    Below(f64),
    /// Never accepted, which fails.
    New,
}

impl Row {
    /// Makes a row of a count that varies by less than a tenth.
    pub(super) fn exact(name: impl Into<String>, value: f64) -> Row {
        Row::with_slack(name, value, 0.0)
    }

    /// Makes a row of a count that varies by less than a tenth and this much.
    pub(super) fn with_slack(name: impl Into<String>, value: f64, slack: f64) -> Row {
        Row { name: name.into(), value, bound: Bound::Accepted { share: TENTH, slack } }
    }

    /// Makes a row of a count that varies by less than a twentieth and this much.
    pub(super) fn close(name: impl Into<String>, value: f64, slack: f64) -> Row {
        Row { name: name.into(), value, bound: Bound::Accepted { share: TWENTIETH, slack } }
    }

    /// Returns the limit of this count, given the accepted one.
    pub(super) fn limit(&self, accepted: Option<f64>) -> Option<f64> {
        match self.bound {
            Bound::Accepted { share, slack } => accepted.map(|accepted| accepted * (1.0 + share) + slack),
            Bound::Most(most) => Some(most),
        }
    }

    pub(super) fn verdict(&self, accepted: Option<f64>) -> Verdict {
        match (self.limit(accepted), self.bound, accepted) {
            (None, ..) => Verdict::New,
            (Some(limit), ..) if self.value > limit => Verdict::Above(limit),
            (_, Bound::Accepted { share, slack }, Some(accepted))
                if self.value < accepted * (1.0 - share) - slack =>
            {
                Verdict::Below(accepted)
            }
            _ => Verdict::Held,
        }
    }
}

/// Formats a count; large counts are rounded.
pub(super) fn shown(value: f64) -> String {
    if value.fract() == 0.0 || value >= 1000.0 {
        grouped(value.round() as u64)
    } else {
        format!("{value:.2}")
    }
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_passes_and_more_than_that_fails() {
        let row = |value| Row::exact("x", value);
        assert_eq!(row(110.0).verdict(Some(100.0)), Verdict::Held);
        assert!(matches!(row(111.0).verdict(Some(100.0)), Verdict::Above(limit) if limit < 110.1));
        assert_eq!(row(91.0).verdict(Some(100.0)), Verdict::Held);
        assert_eq!(row(89.0).verdict(Some(100.0)), Verdict::Below(100.0));
        assert_eq!(row(1.0).verdict(None), Verdict::New);
        assert_eq!(row(0.0).verdict(Some(0.0)), Verdict::Held);
    }

    #[test]
    fn a_whole_call_may_grow_by_a_twentieth() {
        let row = |value| Row::close("x", value, 1.0);
        assert_eq!(row(106.0).verdict(Some(100.0)), Verdict::Held);
        assert!(matches!(row(106.1).verdict(Some(100.0)), Verdict::Above(_)));
        assert_eq!(row(93.9).verdict(Some(100.0)), Verdict::Below(100.0));
    }

    #[test]
    fn slack_is_on_both_sides_and_goals_need_no_acceptance() {
        let row = |value| Row::with_slack("x", value, 0.5);
        assert_eq!(row(1.6).verdict(Some(1.0)), Verdict::Held);
        assert!(matches!(row(1.7).verdict(Some(1.0)), Verdict::Above(_)));
        assert_eq!(row(0.5).verdict(Some(1.0)), Verdict::Held);
        let goal = |value| Row { name: "x".into(), value, bound: Bound::Most(16.0) };
        assert_eq!(goal(0.0).verdict(None), Verdict::Held);
        assert_eq!(goal(17.0).verdict(None), Verdict::Above(16.0));
    }

    #[test]
    fn large_counts_are_grouped() {
        assert_eq!(shown(1_234_567.0), "1,234,567");
        assert_eq!(shown(12.0), "12");
        assert_eq!(shown(1.256), "1.26");
        assert_eq!(shown(1234.5), "1,235");
    }
}
