//! A panel of lines: axes with ticks and units, a line for each contender, and its name where the line ends.
//!
//! Names that would lie over each other are moved apart, and a thin line leads back to where each belongs.

use super::look::Look;
use super::scale::Scale;
use super::svg::{Anchor, Svg, shortened};

/// Size of a panel; a phone shows it at three quarters.
pub(super) const PANEL: (f64, f64) = (440.0, 300.0);
/// The corners of the area for lines.
pub(super) const LEFT: f64 = 58.0;
pub(super) const RIGHT: f64 = 336.0;
pub(super) const TOP: f64 = 52.0;
pub(super) const BOTTOM: f64 = 252.0;

/// Between the lines of two names.
const NAME_HEIGHT: f64 = 15.5;
/// What fits beside the lines, and above them; only names that nobody expected are longer.
const MAX_NAME_CHARACTERS: usize = 12;
const MAX_TITLE_CHARACTERS: usize = 52;

/// One line.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) look: Look,
    pub(super) points: Vec<Value>,
    /// Whether each point is a measurement of its own and gets a mark.
    pub(super) marked: bool,
}

/// One point of a line, with the range of its rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// An axis with its ticks and their labels.
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) name: String,
}

/// Draws a panel. Those drawn first lie below, so Teleport should come last.
pub(super) fn panel(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> Svg {
    let mut svg = Svg::new(PANEL.0, PANEL.1);
    svg.text("title", Anchor::Start, (10.0, 20.0), &shortened(title, MAX_TITLE_CHARACTERS));
    axes(&mut svg, x, y);
    for one in series {
        draw(&mut svg, x, y, one);
    }
    names(&mut svg, x, y, series);
    svg
}

fn axes(svg: &mut Svg, x: &Axis, y: &Axis) {
    svg.text("quiet", Anchor::Start, (10.0, 39.0), &y.name);
    for (value, label) in &y.ticks {
        let at = y.scale.at(*value);
        svg.line("grid", (LEFT, at), (RIGHT, at));
        svg.text("tick", Anchor::End, (LEFT - 7.0, at + 4.0), label);
    }
    for (value, label) in &x.ticks {
        let at = x.scale.at(*value);
        svg.line("grid", (at, TOP), (at, BOTTOM));
        svg.line("axis", (at, BOTTOM), (at, BOTTOM + 5.0));
        svg.text("tick", Anchor::Middle, (at, BOTTOM + 19.0), label);
    }
    svg.line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM));
    svg.text("quiet", Anchor::Middle, ((LEFT + RIGHT) / 2.0, BOTTOM + 39.0), &x.name);
}

fn draw(svg: &mut Svg, x: &Axis, y: &Axis, series: &Series) {
    let class = series.look.class;
    let at = |value: &Value, height: f64| (x.scale.at(value.x), y.scale.at(height));
    let upper = series.points.iter().map(|value| at(value, value.high));
    let lower = series.points.iter().rev().map(|value| at(value, value.low));
    let has_range = series.points.iter().any(|value| value.high > value.low);
    if has_range && series.points.len() > 1 {
        svg.area(&format!("b-{class}"), &upper.chain(lower).collect::<Vec<_>>());
    }
    let line: Vec<(f64, f64)> = series.points.iter().map(|value| at(value, value.y)).collect();
    svg.path(&format!("s-{class}"), &line);
    // A line of one point is only seen by its mark.
    if series.marked || line.len() == 1 {
        let size = if class == "teleport" { 3.6 } else { 2.7 };
        line.iter().for_each(|point| series.look.mark(svg, *point, size));
    }
}

fn names(svg: &mut Svg, x: &Axis, y: &Axis, series: &[Series]) {
    let named: Vec<(&Series, &Value)> =
        series.iter().filter_map(|one| Some((one, one.points.last()?))).collect();
    let wanted: Vec<f64> = named.iter().map(|(_, end)| y.scale.at(end.y)).collect();
    let given = apart(&wanted, NAME_HEIGHT, (TOP - 6.0, BOTTOM - 2.0));
    for (((series, end), wanted), given) in named.into_iter().zip(&wanted).zip(given) {
        let from = (x.scale.at(end.x) + 5.0, *wanted);
        svg.path("leader", &[from, (RIGHT + 6.0, *wanted), (RIGHT + 12.0, given), (RIGHT + 15.0, given)]);
        let ours = if series.look.class == "teleport" { " ours" } else { "" };
        let class = format!("f-{} label{ours}", series.look.class);
        svg.text(
            &class,
            Anchor::Start,
            (RIGHT + 18.0, given + 4.5),
            &shortened(&series.name, MAX_NAME_CHARACTERS),
        );
    }
}

/// Places for labels that want to be at `wanted`: in the same order, at least `gap` apart, as near as that allows, within
/// `range` if there is room.
fn apart(wanted: &[f64], gap: f64, range: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    // Labels that touch form a group, which lies around the middle of what its members want.
    let mut groups: Vec<(f64, Vec<usize>)> = Vec::new();
    for index in order {
        groups.push((wanted[index], vec![index]));
        while let [.., (upper, above), (lower, below)] = &groups[..] {
            let distance = (above.len() + below.len()) as f64 / 2.0 * gap;
            if lower - upper >= distance {
                break;
            }
            let members: Vec<usize> = above.iter().chain(below).copied().collect();
            let half = members.len() as f64 * gap / 2.0;
            let middle = members.iter().map(|&member| wanted[member]).sum::<f64>() / members.len() as f64;
            let middle = middle.min(range.1 - half + gap / 2.0).max(range.0 + half - gap / 2.0);
            groups.truncate(groups.len() - 2);
            groups.push((middle, members));
        }
    }
    let mut given = wanted.to_vec();
    for (middle, members) in groups {
        let first = middle - (members.len() - 1) as f64 * gap / 2.0;
        for (place, member) in members.into_iter().enumerate() {
            given[member] = first + place as f64 * gap;
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &[f64]) -> Vec<f64> {
        let given = apart(wanted, 10.0, (0.0, 100.0));
        let mut sorted = given.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|two| two[1] - two[0] >= 10.0 - 1e-9), "{wanted:?}: {given:?}");
        given
    }

    #[test]
    fn names_that_have_room_stay() {
        assert_eq!(check(&[10.0, 50.0, 30.0]), [10.0, 50.0, 30.0]);
        assert_eq!(check(&[]), Vec::<f64>::new());
    }

    #[test]
    fn names_move_apart_around_their_middle_and_keep_their_order() {
        assert_eq!(check(&[52.0, 50.0]), [56.0, 46.0]);
        let given = check(&[99.0, 98.0, 97.0, 20.0]);
        assert!(
            given[0] <= 100.0 && given[0] > given[1] && given[1] > given[2] && given[3] == 20.0,
            "{given:?}"
        );
        let given = check(&[0.0; 8]);
        assert!(given.iter().all(|y| (0.0..=100.0).contains(y)), "{given:?}");
    }
}
