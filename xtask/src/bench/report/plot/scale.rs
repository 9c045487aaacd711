//! Axes: where a value lies, and which values have a tick.

/// From values to a range of coordinates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    kind: Kind,
    values: (f64, f64),
    /// The coordinate of the first value may be larger than that of the second, as of a vertical axis.
    coordinates: (f64, f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Linear,
    Log,
    /// Of ranks from 0 to 1: equal steps for 0, 90, 99 and 99.9 %.
    Tail,
}

impl Scale {
    /// From 0 to at least `max`, which gets a tick at or above it.
    pub(super) fn from_zero(max: f64, coordinates: (f64, f64)) -> Scale {
        let max = if max > 0.0 && max.is_finite() { max } else { 1.0 };
        let step = nice_step(max);
        Scale { kind: Kind::Linear, values: (0.0, (max / step - 1e-9).ceil() * step), coordinates }
    }

    /// Logarithmic, from `low` to `high`, both above 0; a range of no width is widened.
    pub(super) fn log(low: f64, high: f64, coordinates: (f64, f64)) -> Scale {
        let low = if low > 0.0 && low.is_finite() { low } else { 1.0 };
        let high = if high.is_finite() { high.max(low) } else { low };
        let values = if high / low < 1.01 { (low / 2.0, high * 2.0) } else { (low, high) };
        Scale { kind: Kind::Log, values, coordinates }
    }

    /// Of ranks from 0 to `max`, below 1, with as much room for the last hundredth as for the last tenth.
    pub(super) fn tail(max: f64, coordinates: (f64, f64)) -> Scale {
        Scale { kind: Kind::Tail, values: (0.0, max), coordinates }
    }

    /// The coordinate of `value`, which is moved into the range first.
    pub(super) fn at(&self, value: f64) -> f64 {
        let [low, high, value] = [self.values.0, self.values.1, value].map(|value| self.straight(value));
        let part = ((value - low) / (high - low)).clamp(0.0, 1.0);
        let (from, to) = self.coordinates;
        from + part * (to - from)
    }

    fn straight(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Linear => value,
            Kind::Log => value.max(f64::MIN_POSITIVE).log10(),
            Kind::Tail => -(1.0 - value.clamp(0.0, self.values.1)).log10(),
        }
    }

    /// Evenly spaced round values of a linear scale; 1, 2 and 5 of each decade, or fewer, of a logarithmic one.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.values;
        match self.kind {
            Kind::Linear => {
                let step = nice_step(high);
                let count = (high / step).round() as usize;
                (0..=count).map(|tick| tick as f64 * step).collect()
            }
            Kind::Log => log_ticks(low, high),
            Kind::Tail => [0.5, 0.9, 0.99, 0.999].into_iter().filter(|rank| *rank <= high).collect(),
        }
    }

    /// Powers of `base` times 1 KiB, so that sizes stand at round numbers of their units.
    pub(super) fn power_ticks(&self, base: f64, origin: f64) -> Vec<f64> {
        let (low, high) = self.values;
        let first = ((low / origin).ln() / base.ln() - 1e-9).ceil() as i32;
        let last = ((high / origin).ln() / base.ln() + 1e-9).floor() as i32;
        (first..=last).map(|power| origin * base.powi(power)).collect()
    }
}

/// More ticks than this and their labels collide.
const MAX_TICKS: f64 = 5.0;

/// 1, 2, 2.5 or 5 times a power of ten, so that at most [`MAX_TICKS`] steps reach `max`.
fn nice_step(max: f64) -> f64 {
    let rough = max / MAX_TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    power * steps.into_iter().find(|step| step * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0)
}

fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let digits: &[f64] = match decades {
        ..=2.3 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    // A step of more decades where even one tick a decade is too many.
    let every = (decades / 8.0).ceil().max(1.0) as usize;
    (first..=last)
        .step_by(every)
        .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)))
        .filter(|tick| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(tick))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(ticks: &[f64], expected: &[f64]) {
        let same = ticks.len() == expected.len()
            && ticks.iter().zip(expected).all(|(a, b)| (a - b).abs() <= b.abs() * 1e-9);
        assert!(same, "{ticks:?} is not {expected:?}");
    }

    #[test]
    fn linear_ticks_are_round_and_reach_the_end() {
        close(&Scale::from_zero(8.1, (0.0, 1.0)).ticks(), &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        close(&Scale::from_zero(10.0, (0.0, 1.0)).ticks(), &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        close(&Scale::from_zero(1.1e6, (0.0, 1.0)).ticks(), &[0.0, 2.5e5, 5e5, 7.5e5, 1e6, 1.25e6]);
        for max in [1e-9, 0.3, 1.0, 7.0, 12.0, 99.0, 1234.0, 6e12] {
            let ticks = Scale::from_zero(max, (0.0, 1.0)).ticks();
            assert!(
                (3..=7).contains(&ticks.len()) && *ticks.last().unwrap() >= max * (1.0 - 1e-6),
                "{max}: {ticks:?}"
            );
        }
    }

    #[test]
    fn log_ticks_thin_out_over_many_decades() {
        close(&Scale::log(8.0, 300.0, (0.0, 1.0)).ticks(), &[10.0, 20.0, 50.0, 100.0, 200.0]);
        close(&Scale::log(1.0, 1e4, (0.0, 1.0)).ticks(), &[1.0, 10.0, 100.0, 1e3, 1e4]);
        assert!(Scale::log(1e-9, 1e15, (0.0, 1.0)).ticks().len() <= 13);
    }

    #[test]
    fn sizes_have_ticks_at_powers_of_two() {
        let scale = Scale::log(1024.0, f64::from(1 << 28), (0.0, 1.0));
        let expected = [1 << 10, 1 << 16, 1 << 22, 1 << 28].map(f64::from);
        close(&scale.power_ticks(64.0, 1024.0), &expected);
    }

    #[test]
    fn values_lie_where_they_should_and_never_outside() {
        let linear = Scale::from_zero(10.0, (100.0, 0.0));
        assert_eq!((linear.at(0.0), linear.at(5.0), linear.at(99.0)), (100.0, 50.0, 0.0));
        let log = Scale::log(1.0, 100.0, (0.0, 10.0));
        assert!((log.at(10.0) - 5.0).abs() < 1e-9 && log.at(0.0) == 0.0);
        let tail = Scale::tail(0.999, (0.0, 3.0));
        assert!(
            (tail.at(0.9) - 1.0).abs() < 1e-9 && (tail.at(0.99) - 2.0).abs() < 1e-9 && tail.at(1.0) == 3.0
        );
    }

    #[test]
    fn empty_ranges_are_no_trouble() {
        for scale in [
            Scale::from_zero(0.0, (0.0, 1.0)),
            Scale::from_zero(f64::NAN, (0.0, 1.0)),
            Scale::log(0.0, 0.0, (0.0, 1.0)),
            Scale::log(5.0, 5.0, (0.0, 1.0)),
        ] {
            assert!(scale.at(5.0).is_finite() && !scale.ticks().is_empty(), "{scale:?}");
        }
    }
}
