//! A panel of bars: peak memory, with the budget in force as a ground behind each bar and the goal as a mark.

use super::look::Look;
use super::scale::Scale;
use super::svg::{Anchor, Svg, shortened};
use crate::bench::outcome::Unit;
use crate::bench::report::text;

const WIDTH: f64 = 440.0;
const LEFT: f64 = 20.0;
const RIGHT: f64 = 390.0;
const LINE_HEIGHT: f64 = 52.0;

/// One bar; all in MiB.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) look: Look,
    pub(super) peak: f64,
    pub(super) budget: f64,
    pub(super) most: Option<f64>,
}

/// Draws a panel; as high as its bars.
pub(super) fn panel(title: &str, bars: &[Bar]) -> Svg {
    let top = 34.0;
    let bottom = top + bars.len() as f64 * LINE_HEIGHT + 6.0;
    let mut svg = Svg::new(WIDTH, bottom + 48.0);
    svg.text("title", Anchor::Start, (10.0, 20.0), &shortened(title, 52));
    let most =
        bars.iter().flat_map(|bar| [bar.peak, bar.budget, bar.most.unwrap_or_default()]).fold(0.0, f64::max);
    let scale = Scale::from_zero(most, (LEFT, RIGHT));
    for tick in scale.ticks() {
        let at = scale.at(tick);
        svg.line("grid", (at, top), (at, bottom));
        svg.text("tick", Anchor::Middle, (at, bottom + 19.0), &text::digits(tick));
    }
    svg.line("axis", (LEFT, bottom), (RIGHT, bottom));
    svg.text("quiet", Anchor::Middle, ((LEFT + RIGHT) / 2.0, bottom + 39.0), "MiB");
    for (number, bar) in bars.iter().enumerate() {
        draw(&mut svg, &scale, bar, top + number as f64 * LINE_HEIGHT);
    }
    svg
}

fn draw(svg: &mut Svg, scale: &Scale, bar: &Bar, top: f64) {
    let said = format!(
        "{}: {}, budget {}",
        bar.name,
        text::value(bar.peak, Unit::MiB),
        text::value(bar.budget, Unit::MiB)
    );
    svg.text("label", Anchor::Start, (LEFT, top + 18.0), &said);
    let y = top + 26.0;
    svg.rectangle("budget", (LEFT, y), (scale.at(bar.budget) - LEFT, 18.0));
    svg.rectangle(&format!("f-{}", bar.look.class), (LEFT, y + 4.0), (scale.at(bar.peak) - LEFT, 10.0));
    if let Some(most) = bar.most {
        let at = scale.at(most);
        svg.line("goal", (at, y - 4.0), (at, y + 22.0));
        svg.text("tick", Anchor::Start, (at + 5.0, y + 13.0), "goal");
    }
}
