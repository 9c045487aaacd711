//! The plots: which rows go where, and what is said where there is nothing to draw.
//!
//! Flow: judged rows -> [`figures`], each with a panel for each transport (or row) -> the page shows the panels side by
//! side, and [`files`] lays them out in a file. Draws what there is; where a plot has no data, it says how to get them.

mod bars;
mod lines;
mod look;
mod ranges;
mod scale;
mod svg;
#[cfg(test)]
pub(super) mod well_formed;

use self::bars::Bar;
use self::lines::{Axis, BOTTOM, LEFT, RIGHT, Series, TOP, Value};
use self::ranges::{Range, Situation};
use self::scale::Scale;
use self::svg::Anchor;
pub(super) use self::{look::Look, look::name, look::rules, svg::Svg, svg::escape};
use super::judged::{Judged, Standing};
use super::{About, Report, text};
use crate::bench::outcome::{Goal, Kind, Plot, Unit};
use crate::bench::stats::quantile;

/// One plot with all its panels.
pub(super) struct Figure {
    /// Of its file and its place in the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// How to read it.
    pub(super) explanation: &'static str,
    /// How to get what it needs, for when there are no panels.
    pub(super) remedy: &'static str,
    panels: Vec<Svg>,
}

impl Figure {
    /// Each panel as an element of the page.
    pub(super) fn panels(&self) -> impl Iterator<Item = String> {
        self.panels.iter().map(|panel| panel.inline(self.title))
    }
}

/// All plots, those without data too.
pub(super) fn figures(report: &Report<'_>) -> Vec<Figure> {
    vec![
        Figure {
            id: "throughput",
            title: "Throughput over message size",
            explanation: "One argument of this size after the other, each answered with nothing. The line is the median \
                          of the rounds, the band their range. More is better.",
            remedy: "The sweep over message sizes was not measured: leave out --row.",
            panels: each_transport(report, |title, rows| {
                sweep(title, rows, Plot::ThroughputOverSize, "message size", &size_ticks)
            }),
        },
        Figure {
            id: "calls",
            title: "Small calls over calls in flight",
            explanation: "Calls of 64 bytes from one client that keeps this many open. More is better.",
            remedy: "The sweep over calls in flight was not measured: leave out --row.",
            panels: each_transport(report, |title, rows| {
                sweep(title, rows, Plot::CallsOverInFlight, "calls in flight", &count_ticks)
            }),
        },
        Figure {
            id: "latency",
            title: "Latency of a call",
            explanation: "How long the fastest part of the calls took at most: read 99 % as \u{201c}99 of 100 calls took no longer \
                          than this\u{201d}. One call at a time. Less is better, and a flat line is an even one.",
            remedy: "No latencies of single calls were measured: leave out --row, or name a row of 1 KiB calls.",
            panels: each_transport_many(report, latencies),
        },
        Figure {
            id: "beside",
            title: "Small calls beside a large transfer",
            explanation: "Calls of 1 KiB, alone and while a large message is on its way over the same connection: the \
                          median call and the slowest of a hundred. Less is better.",
            remedy: "No calls beside a large transfer were measured: leave out --row, or use --row beside.",
            panels: each_transport(report, beside),
        },
        Figure {
            id: "memory",
            title: "Memory",
            explanation: "What a server took at most while large messages came in, against the budget that it was given.",
            remedy: "Peak memory was not measured: leave out --row, or use --row memory.",
            panels: memory(report).into_iter().collect(),
        },
    ]
}

/// Name and text of a file for each plot that has data.
pub(super) fn files(report: &Report<'_>) -> Vec<(String, String)> {
    let drawn = figures(report).into_iter().filter(|figure| !figure.panels.is_empty());
    drawn.map(|figure| (format!("{}.svg", figure.id), sheet(report.about, &figure))).collect()
}

/// Panels in two columns, under the title and above where and when it was measured.
fn sheet(about: &About, figure: &Figure) -> String {
    const MARGIN: f64 = 14.0;
    let columns = figure.panels.len().min(2) as f64;
    let width = figure.panels[0].size().0 * columns + 2.0 * MARGIN;
    let mut placed = Vec::new();
    let mut y = 46.0;
    for row in figure.panels.chunks(2) {
        placed.extend(
            row.iter()
                .enumerate()
                .map(|(column, panel)| (panel, (MARGIN + column as f64 * panel.size().0, y))),
        );
        y += row.iter().map(|panel| panel.size().1).fold(0.0, f64::max) + 6.0;
    }
    let facts: Vec<&str> = about.facts.iter().map(|(_, fact)| fact.as_str()).collect();
    let lines = wrapped(&facts, ((width - 2.0 * MARGIN) / 6.2) as usize);
    let mut svg = Svg::new(width, y + 16.0 * lines.len() as f64 + 8.0);
    svg.text("heading", Anchor::Start, (MARGIN + 10.0, 32.0), figure.title);
    for (panel, at) in placed {
        svg.place(panel, at);
    }
    for (number, line) in lines.iter().enumerate() {
        svg.text("tick", Anchor::Start, (MARGIN + 10.0, y + 10.0 + 16.0 * number as f64), line);
    }
    svg.standalone(figure.title, &rules())
}

/// Facts one after the other, in lines of about so many characters.
fn wrapped(facts: &[&str], max_characters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for fact in facts.iter().filter(|fact| !fact.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + fact.chars().count() + 3 <= max_characters => {
                line.push_str(" \u{b7} ");
                line.push_str(fact);
            }
            _ => lines.push((*fact).to_owned()),
        }
    }
    lines
}

fn each_transport(report: &Report<'_>, panel: impl Fn(&str, &[Judged<'_>]) -> Option<Svg>) -> Vec<Svg> {
    each_transport_many(report, |title, rows| panel(title, rows).into_iter().collect())
}

fn each_transport_many(report: &Report<'_>, panels: impl Fn(&str, &[Judged<'_>]) -> Vec<Svg>) -> Vec<Svg> {
    report.groups.iter().flat_map(|group| panels(text::transport(group.transport), &group.rows)).collect()
}

/// Those rows that have a place in `plot`, with their place.
fn placed<'r, 'a>(rows: &'r [Judged<'a>], plot: Plot) -> impl Iterator<Item = (&'r Judged<'a>, f64)> {
    rows.iter().filter_map(move |row| {
        let point = row.outcome.point.filter(|point| point.plot == plot)?;
        Some((row, point.x))
    })
}

fn sweep(
    title: &str,
    rows: &[Judged<'_>],
    plot: Plot,
    name: &str,
    ticks: &dyn Fn(&Scale) -> Vec<(f64, String)>,
) -> Option<Svg> {
    let mut series: Vec<Series> = Vec::new();
    for (row, x) in placed(rows, plot) {
        for standing in &row.standings {
            let Standing { median: y, min: low, max: high, .. } = *standing;
            add(&mut series, standing, Value { x, y, low, high });
        }
    }
    let unit = placed(rows, plot).next()?.0.outcome.unit;
    let series = ordered(series);
    let values = || series.iter().flat_map(|one| &one.points);
    let (low, high) = bounds(values().map(|value| value.x))?;
    let x = Scale::log(low, high, (LEFT + 6.0, RIGHT - 4.0));
    let y = Scale::from_zero(values().map(|value| value.high).fold(0.0, f64::max), (BOTTOM, TOP));
    let x = Axis { ticks: ticks(&x), scale: x, name: name.to_owned() };
    Some(lines::panel(title, &x, &value_axis(y, unit), &series))
}

/// Adds a point to the line of its contender.
fn add(series: &mut Vec<Series>, standing: &Standing<'_>, value: Value) {
    let name = name(standing.contended);
    match series.iter_mut().find(|one| one.name == name) {
        Some(one) => one.points.push(value),
        None => series.push(Series {
            name,
            look: Look::of(standing.contended),
            points: vec![value],
            marked: true,
        }),
    }
}

/// Lines from left to right; Teleport's above all others.
fn ordered(mut series: Vec<Series>) -> Vec<Series> {
    series.sort_by_key(|one| one.look.class == "teleport");
    for one in &mut series {
        one.points.sort_by(|a, b| a.x.total_cmp(&b.x));
        one.marked &= one.look.class != "ceiling";
    }
    series
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |bounds, value| {
        let (low, high) = bounds.unwrap_or((value, value));
        Some((value.min(low), value.max(high)))
    })
}

/// Numbers at the ticks, and the unit, shared by all of them, beside the title.
fn value_axis(scale: Scale, unit: Unit) -> Axis {
    let ticks = scale.ticks();
    let most = ticks.last().copied().unwrap_or_default();
    let (factor, name) = match unit {
        Unit::CallsPerSecond if most >= 1e6 => (1e-6, "million calls/s"),
        Unit::CallsPerSecond if most >= 1e4 => (1e-3, "thousand calls/s"),
        other => (1.0, other.name()),
    };
    let ticks = ticks.into_iter().map(|tick| (tick, text::plain(tick * factor))).collect();
    let direction = if unit.more_is_better() { "more" } else { "less" };
    Axis { scale, ticks, name: format!("{name}, {direction} is better") }
}

fn size_ticks(scale: &Scale) -> Vec<(f64, String)> {
    // Every 64-fold: 1 KiB, 64 KiB, 4 MiB, 256 MiB.
    scale.power_ticks(64.0, 1024.0).into_iter().map(|tick| (tick, text::bytes(tick))).collect()
}

fn count_ticks(scale: &Scale) -> Vec<(f64, String)> {
    scale.power_ticks(2.0, 1.0).into_iter().map(|tick| (tick, text::digits(tick))).collect()
}

/// A panel for each pair of rows that share their calls (p50 and p99 of the same).
fn latencies(transport: &str, rows: &[Judged<'_>]) -> Vec<Svg> {
    let mut drawn: Vec<String> = Vec::new();
    let mut panels = Vec::new();
    for (row, _) in placed(rows, Plot::Latency) {
        let (what, _) = quantile_of(&row.outcome.row);
        if !drawn.contains(&what)
            && let Some(panel) = distribution(&what, transport, row)
        {
            drawn.push(what);
            panels.push(panel);
        }
    }
    panels
}

/// Up to here ranks are drawn: of a sample of 2,000 calls the two slowest lie beyond it.
const MAX_RANK: f64 = 0.999;

fn distribution(title: &str, transport: &str, row: &Judged<'_>) -> Option<Svg> {
    let measured = |standing: &&Standing<'_>| !standing.contended.latencies_us.is_empty();
    let series: Vec<Series> = row.standings.iter().filter(measured).map(quantiles).collect();
    let series = ordered(series);
    let (low, high) = bounds(series.iter().flat_map(|one| &one.points).map(|value| value.y))?;
    let x = Scale::tail(MAX_RANK, (LEFT + 2.0, RIGHT - 4.0));
    let y = Scale::log(low * 0.9, high * 1.1, (BOTTOM, TOP));
    let percent = |rank: f64| (rank, format!("{} %", text::plain(rank * 100.0)));
    let x = Axis {
        ticks: x.ticks().into_iter().map(percent).collect(),
        scale: x,
        name: "share of the calls".to_owned(),
    };
    let ticks = y.ticks().into_iter().map(|tick| (tick, text::micros(tick))).collect();
    let y = Axis { ticks, scale: y, name: format!("{transport}, less is better") };
    Some(lines::panel(title, &x, &y, &series))
}

/// The latency at ranks that lie evenly on a tail scale, as far as there are calls to tell.
fn quantiles(standing: &Standing<'_>) -> Series {
    const STEPS: u32 = 90;
    let sample = &standing.contended.latencies_us;
    let last = MAX_RANK.min(1.0 - 1.0 / sample.len() as f64).max(0.0);
    let rank = |step: u32| 1.0 - (1.0 - last).powf(f64::from(step) / f64::from(STEPS));
    let point = |step: u32| {
        let y = quantile(sample, rank(step));
        Value { x: rank(step), y, low: y, high: y }
    };
    let points = (0..=STEPS).map(point).collect();
    Series { name: name(standing.contended), look: Look::of(standing.contended), points, marked: false }
}

/// What a row is about, and the part of the calls that it names: "a call, p99, one core" gives "a call, one core" and 0.99.
fn quantile_of(row: &str) -> (String, Option<f64>) {
    for (part, rank) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some((before, behind)) = row.split_once(part) {
            let what = format!("{}{behind}", before.trim_end().trim_end_matches(','));
            return (what, Some(rank));
        }
    }
    (row.to_owned(), None)
}

fn beside(transport: &str, rows: &[Judged<'_>]) -> Option<Svg> {
    let mut situations: Vec<Situation> = Vec::new();
    for (row, _) in placed(rows, Plot::Beside) {
        let (what, rank) = quantile_of(&row.outcome.row);
        let at = situations.iter().position(|situation| situation.name == what).unwrap_or_else(|| {
            situations.push(Situation { name: what, ranges: Vec::new(), goal_us: None });
            situations.len() - 1
        });
        let situation = &mut situations[at];
        if let (Some(Goal::Most(most)), Some(0.99)) = (row.outcome.goal, rank) {
            situation.goal_us = Some(most);
        }
        row.standings.iter().for_each(|standing| add_range(&mut situation.ranges, standing, rank));
    }
    situations.retain(|situation| !situation.ranges.is_empty());
    (!situations.is_empty()).then(|| ranges::panel(transport, &situations))
}

/// The medians of the rounds where rows name them, as the table has them; else from the sample of calls.
fn add_range(ranges: &mut Vec<Range>, standing: &Standing<'_>, rank: Option<f64>) {
    let name = name(standing.contended);
    let at = ranges.iter().position(|range| range.name == name).unwrap_or_else(|| {
        let sample = &standing.contended.latencies_us;
        let of_sample = |rank| (!sample.is_empty()).then(|| quantile(sample, rank));
        let look = Look::of(standing.contended);
        ranges.push(Range { name, look, p50: of_sample(0.5), p99: of_sample(0.99) });
        ranges.len() - 1
    });
    match rank {
        Some(rank) if rank < 0.9 => ranges[at].p50 = Some(standing.median),
        Some(_) => ranges[at].p99 = Some(standing.median),
        None => {}
    }
}

/// One panel for all transports: a bar each.
fn memory(report: &Report<'_>) -> Option<Svg> {
    let mut bars = Vec::new();
    let mut title = "";
    for (row, budget) in report.groups.iter().flat_map(|group| placed(&group.rows, Plot::Memory)) {
        title = &row.outcome.row;
        let most =
            row.outcome.goal.map(Goal::value).filter(|_| matches!(row.outcome.goal, Some(Goal::Most(_))));
        bars.extend(row.standings.iter().filter(|one| one.contended.kind != Kind::Ceiling).map(|standing| {
            Bar {
                name: format!("{}, {}", name(standing.contended), text::transport(row.outcome.transport)),
                look: Look::of(standing.contended),
                peak: standing.median,
                budget,
                most,
            }
        }));
    }
    (!bars.is_empty()).then(|| bars::panel(title, &bars))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::{Contended, Outcome, Point};
    use crate::bench::report::fixture::{self, outcome, peer, raw, teleport};

    fn at(plot: Plot, x: f64, results: Vec<Contended>) -> Outcome {
        let unit = match plot {
            Plot::ThroughputOverSize => Unit::GBs,
            Plot::CallsOverInFlight => Unit::CallsPerSecond,
            Plot::Latency | Plot::Beside => Unit::Micros,
            Plot::Memory => Unit::MiB,
        };
        Outcome { point: Some(Point { plot, x }), ..outcome("a <row> & more, p99", unit, results) }
    }

    const PLOTS: [Plot; 5] =
        [Plot::ThroughputOverSize, Plot::CallsOverInFlight, Plot::Latency, Plot::Beside, Plot::Memory];

    #[test]
    fn without_data_there_is_no_panel_but_a_remedy() {
        for figure in figures(&Report::new(&About::default(), &[])) {
            assert!(
                figure.panels.is_empty() && figure.remedy.contains("--row"),
                "{}: {}",
                figure.id,
                figure.panels.len()
            );
        }
        let nobody = PLOTS.map(|plot| at(plot, 1.0, Vec::new()));
        assert!(files(&Report::new(&About::default(), &nobody)).is_empty());
    }

    #[test]
    fn one_point_and_odd_values_are_drawn_well_formed() {
        for values in [[0.0], [1.0], [1e-9], [1e18]] {
            for latencies in [vec![], vec![3.0], vec![0.0, 1.0, 1e9]] {
                let one = |contended: Contended| Contended { latencies_us: latencies.clone(), ..contended };
                let results = || vec![one(raw(&values)), one(teleport(&values)), one(peer("<&>", &values))];
                let (about, rows) = (fixture::about(), PLOTS.map(|plot| at(plot, 0.0, results())));
                for (name, svg) in files(&Report::new(&about, &rows)) {
                    well_formed::check(&svg).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
                }
            }
        }
    }

    #[test]
    fn every_plot_of_many_points_is_well_formed_and_names_everybody() {
        let files = files(&Report::new(&fixture::about(), &fixture::outcomes(true)));
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["throughput.svg", "calls.svg", "latency.svg", "beside.svg", "memory.svg"]);
        for (name, svg) in &files {
            well_formed::check(svg).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            assert!(svg.contains(">Teleport"), "{name}");
        }
        for contender in ["raw sockets", "ZeroMQ", "nng", "tonic", "tarpc", "portal", "Arrow Flight"] {
            assert!(files[0].1.contains(&format!(">{contender}<")), "{contender}");
        }
    }

    #[test]
    fn rows_of_the_same_calls_share_a_panel() {
        assert_eq!(
            quantile_of("1 KiB call, p99, two cores"),
            ("1 KiB call, two cores".to_owned(), Some(0.99))
        );
        assert_eq!(quantile_of("1 KiB call p50"), ("1 KiB call".to_owned(), Some(0.5)));
        assert_eq!(quantile_of("1 KiB call"), ("1 KiB call".to_owned(), None));
        let figures = figures(&Report::new(&About::default(), &fixture::outcomes(true)));
        let count = |id| figures.iter().find(|figure| figure.id == id).map(|figure| figure.panels.len());
        assert_eq!((count("latency"), count("beside"), count("memory")), (Some(2), Some(2), Some(1)));
    }
}
