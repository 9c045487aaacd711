//! A panel of ranges: for each contender in each situation a line from the median call to the slowest of a hundred.

use super::look::Look;
use super::scale::Scale;
use super::svg::{Anchor, Svg, shortened};
use crate::bench::report::text;

const WIDTH: f64 = 440.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 368.0;
const LINE_HEIGHT: f64 = 20.0;
/// Of the heading of a situation, and the room above it.
const HEADING_HEIGHT: f64 = 30.0;

/// What calls met, and how each contender fared.
pub(super) struct Situation {
    pub(super) name: String,
    pub(super) ranges: Vec<Range>,
    /// The most that the slowest of a hundred may take, in microseconds.
    pub(super) goal_us: Option<f64>,
}

/// Of one contender, in microseconds.
pub(super) struct Range {
    pub(super) name: String,
    pub(super) look: Look,
    /// None where only the other was measured.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// Draws a panel; as high as its lines.
pub(super) fn panel(title: &str, situations: &[Situation]) -> Svg {
    let lines: usize = situations.iter().map(|situation| situation.ranges.len()).sum();
    let top = 40.0;
    let bottom = top + situations.len() as f64 * HEADING_HEIGHT + lines as f64 * LINE_HEIGHT + 4.0;
    let mut svg = Svg::new(WIDTH, bottom + 48.0);
    svg.text("title", Anchor::Start, (10.0, 20.0), title);
    svg.text("quiet", Anchor::End, (WIDTH - 10.0, 20.0), "\u{25cb} p50   \u{25cf} p99");
    let scale = scale(situations);
    for tick in scale.ticks() {
        let at = scale.at(tick);
        svg.line("grid", (at, top), (at, bottom));
        svg.text("tick", Anchor::Middle, (at, bottom + 19.0), &text::micros(tick));
    }
    svg.line("axis", (LEFT, bottom), (RIGHT, bottom));
    svg.text("quiet", Anchor::Middle, ((LEFT + RIGHT) / 2.0, bottom + 39.0), "time of a call");
    let mut y = top;
    for situation in situations {
        y = draw(&mut svg, &scale, situation, y);
    }
    svg
}

fn scale(situations: &[Situation]) -> Scale {
    let goals = situations.iter().filter_map(|situation| situation.goal_us);
    let times =
        situations.iter().flat_map(|situation| &situation.ranges).flat_map(|range| [range.p50, range.p99]);
    let all: Vec<f64> = times.flatten().chain(goals).filter(|time| *time > 0.0).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(0.0, f64::max);
    Scale::log(low * 0.8, high * 1.25, (LEFT, RIGHT))
}

/// Gives where the next one begins.
fn draw(svg: &mut Svg, scale: &Scale, situation: &Situation, top: f64) -> f64 {
    svg.text("label ours", Anchor::Start, (10.0, top + 20.0), &shortened(&situation.name, 42));
    let first = top + HEADING_HEIGHT;
    let bottom = first + situation.ranges.len() as f64 * LINE_HEIGHT;
    if let Some(goal) = situation.goal_us {
        let at = scale.at(goal);
        svg.line("goal", (at, top + 12.0), (at, bottom));
        let label = format!("goal: p99 \u{2264} {}", text::micros(goal));
        svg.text("quiet", Anchor::End, (WIDTH - 10.0, top + 20.0), &label);
    }
    for (number, range) in situation.ranges.iter().enumerate() {
        let y = first + (number as f64 + 0.5) * LINE_HEIGHT;
        let class = range.look.class;
        svg.text(
            &format!("f-{class} label"),
            Anchor::End,
            (LEFT - 10.0, y + 4.5),
            &shortened(&range.name, 14),
        );
        let [p50, p99] = [range.p50, range.p99].map(|time| time.map(|time| (scale.at(time), y)));
        if let (Some(p50), Some(p99)) = (p50, p99) {
            svg.path(&format!("s-{class}"), &[p50, p99]);
        }
        if let Some(at) = p50 {
            svg.circle(&format!("h-{class}"), at, 4.0);
        }
        if let Some(at) = p99 {
            svg.circle(&format!("f-{class}"), at, 4.6);
        }
        let slowest = range.p99.or(range.p50).unwrap_or_default();
        let end = p99.or(p50).map_or(LEFT, |(x, _)| x);
        let label = text::micros(slowest);
        svg.text("tick halo", Anchor::Start, (end + 9.0, y + 4.0), &label);
    }
    bottom
}
