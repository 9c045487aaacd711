//! The plots: which rows go where.
//!
//! Flow: judged rows -> [`drawings`], each with a panel for each transport -> `chart` draws them. Sizes,
//! calls in flight and times are shown by their logarithms, which this file takes; a plot without data is
//! left out.

use super::chart::{self, Axis, Figure, Line, Panel, Point};
use super::judged::{Judged, Standing};
use super::{Report, text};
use crate::bench::outcome::{Kind, Plot, Unit};
use crate::bench::stats::quantile;

/// One plot, ready to be written to a file.
pub(super) struct Drawing {
    /// Of the file, without `.svg`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// How to read it.
    pub(super) explanation: &'static str,
    pub(super) svg: String,
}

/// All plots that have data.
pub(super) fn drawings(report: &Report<'_>) -> Vec<Drawing> {
    let draw = |name, title: &'static str, explanation, panels: Vec<Panel>| {
        let figure = Figure { title: title.to_owned(), panels, footer: footer(report) };
        (!figure.panels.is_empty()).then(|| Drawing { name, title, explanation, svg: chart::svg(&figure) })
    };
    let all = [
        draw(
            "throughput",
            "Throughput over message size",
            "One argument after the other, each answered with nothing. The line is the median of the rounds, the \
             band their range.",
            panels(report, |title, rows| sweep(title, rows, Plot::ThroughputOverSize)),
        ),
        draw(
            "calls",
            "Small calls over calls in flight",
            "Calls of 64 bytes from one client thread that keeps this many open. The band is the range of the rounds.",
            panels(report, |title, rows| sweep(title, rows, Plot::CallsOverInFlight)),
        ),
        draw(
            "latency",
            "Latency of a call",
            "One call at a time. At 99 %, the line gives the time within which 99 of 100 calls were answered.",
            report
                .groups
                .iter()
                .flat_map(|group| latencies(text::transport(group.transport), &group.rows))
                .collect(),
        ),
        draw(
            "beside",
            "Small calls beside a large transfer",
            "Calls of 1 KiB, alone and while a large message is on its way over the same connection. Each bar goes \
             from the median call to the slowest of a hundred.",
            panels(report, beside),
        ),
    ];
    all.into_iter().flatten().collect()
}

/// Facts in lines that fit below two panels.
fn footer(report: &Report<'_>) -> Vec<String> {
    const MAX_CHARACTERS: usize = 130;
    let mut lines: Vec<String> = Vec::new();
    for (_, fact) in &report.about.facts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + fact.chars().count() < MAX_CHARACTERS => {
                line.push_str(" \u{b7} ");
                line.push_str(fact);
            }
            _ => lines.push(fact.clone()),
        }
    }
    lines
}

fn panels(report: &Report<'_>, panel: impl Fn(&str, &[Judged<'_>]) -> Option<Panel>) -> Vec<Panel> {
    let groups = report.groups.iter();
    groups.filter_map(|group| panel(text::transport(group.transport), &group.rows)).collect()
}

/// The rows that have a place in `plot`, with their place.
fn placed<'r, 'a>(rows: &'r [Judged<'a>], plot: Plot) -> impl Iterator<Item = (&'r Judged<'a>, f64)> {
    rows.iter().filter_map(move |row| {
        let point = row.outcome.point.filter(|point| point.plot == plot)?;
        Some((row, point.x))
    })
}

fn sweep(title: &str, rows: &[Judged<'_>], plot: Plot) -> Option<Panel> {
    let unit = placed(rows, plot).next()?.0.outcome.unit;
    let mut lines = Vec::new();
    for (row, x) in placed(rows, plot) {
        for standing in &row.standings {
            let Standing { median: y, min: low, max: high, .. } = *standing;
            add(&mut lines, standing, Point { x: x.max(1.0).log2(), y, low, high });
        }
    }
    let lines = ordered(lines);
    let (low, high) = bounds(&lines, |point| [point.x; 2])?;
    let (_, most) = bounds(&lines, |point| [point.high; 2])?;
    let (name, ticks) = match plot {
        // 1 KiB, 16 KiB, 256 KiB and so on.
        Plot::ThroughputOverSize => {
            ("size of a message", powers(low, high, 4, |size| text::bytes(size.exp2())))
        }
        _ => ("calls in flight", powers(low, high, 1, |calls| text::digits(calls.exp2()))),
    };
    let x = Axis { name: name.to_owned(), range: widened(low, high), ticks };
    Some(Panel { title: title.to_owned(), x, y: amounts(most, unit), lines })
}

/// Adds a point to the line of its contender.
fn add(lines: &mut Vec<Line>, standing: &Standing<'_>, point: Point) {
    let contender = text::name(standing.contended);
    match lines.iter_mut().find(|line| line.contender == contender) {
        Some(line) => line.points.push(point),
        None => lines.push(Line { contender, points: vec![point], has_marks: true }),
    }
}

/// Points from left to right, and Teleport's line above all others.
fn ordered(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by_key(|line| line.contender == "Teleport");
    lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.x.total_cmp(&b.x)));
    lines
}

/// The least and the largest of these values of all points.
fn bounds(lines: &[Line], values: impl Fn(&Point) -> [f64; 2]) -> Option<(f64, f64)> {
    let all: Vec<f64> = lines.iter().flat_map(|line| &line.points).flat_map(values).collect();
    let low = all.iter().copied().reduce(f64::min)?;
    let high = all.iter().copied().reduce(f64::max)?;
    Some((low, high))
}

/// A range of some width, so that a single value lies in its middle.
fn widened(low: f64, high: f64) -> (f64, f64) {
    if high - low < 0.1 { (low - 0.5, high + 0.5) } else { (low, high) }
}

/// A tick at every `step`-th whole number, with the label that `label` gives it.
fn powers(low: f64, high: f64, step: usize, label: impl Fn(f64) -> String) -> Vec<(f64, String)> {
    let (first, last) = (low.ceil() as i32, high.floor() as i32);
    (first..=last).step_by(step).map(|power| (f64::from(power), label(f64::from(power)))).collect()
}

/// An axis from 0, whose ticks are 1, 2 or 5 times a power of ten.
fn amounts(most: f64, unit: Unit) -> Axis {
    let most = if most > 0.0 { most } else { 1.0 };
    let (factor, name) = match unit {
        Unit::CallsPerSecond if most >= 1e6 => (1e-6, "million calls/s"),
        Unit::CallsPerSecond if most >= 1e4 => (1e-3, "thousand calls/s"),
        other => (1.0, other.name()),
    };
    let power = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| step * 5.0 >= most);
    let step = step.unwrap_or(most);
    let ticks = (0..=5).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= most * 1.05);
    Axis {
        name: format!("{name} (more is better)"),
        range: (0.0, most * 1.05),
        ticks: ticks.map(|tick| (tick, text::plain(tick * factor))).collect(),
    }
}

/// An axis of times in microseconds, for their decimal logarithms.
fn times(low: f64, high: f64) -> Axis {
    let (low, high) = widened(low - 0.05, high + 0.05);
    let digits: &[f64] = if high - low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all = (low.floor() as i32..=high.ceil() as i32)
        .flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
    let ticks =
        all.map(|time| (time.log10(), text::micros(time))).filter(|(tick, _)| (low..=high).contains(tick));
    Axis { name: "time of a call (less is better)".to_owned(), range: (low, high), ticks: ticks.collect() }
}

/// A panel for each pair of rows that share their calls (p50 and p99 of the same).
fn latencies(transport: &str, rows: &[Judged<'_>]) -> Vec<Panel> {
    let mut seen: Vec<String> = Vec::new();
    let mut panels = Vec::new();
    for (row, _) in placed(rows, Plot::Latency) {
        let (what, _) = quantile_of(&row.outcome.row);
        if !seen.contains(&what) {
            panels.extend(distribution(&format!("{what}, {transport}"), row));
            seen.push(what);
        }
    }
    panels
}

/// Up to here ranks are drawn: of a sample of 2,000 calls the two slowest lie beyond it.
const MAX_RANK: f64 = 0.999;

/// Where a rank lies: each step of one divides the share of slower calls by ten.
fn tail(rank: f64) -> f64 {
    -(1.0 - rank.min(MAX_RANK)).log10()
}

fn distribution(title: &str, row: &Judged<'_>) -> Option<Panel> {
    let measured = row.standings.iter().filter(|standing| !standing.contended.latencies_us.is_empty());
    let lines = ordered(measured.map(quantiles).collect());
    let (low, high) = bounds(&lines, |point| [point.y; 2])?;
    let label = |rank: f64| (tail(rank), format!("{} %", text::plain(rank * 100.0)));
    let x = Axis {
        name: "share of the calls".to_owned(),
        range: (0.0, tail(MAX_RANK)),
        ticks: [0.5, 0.9, 0.99, 0.999].map(label).to_vec(),
    };
    Some(Panel { title: title.to_owned(), x, y: times(low, high), lines })
}

/// The latency at ranks that lie evenly on the axis, as far as there are calls to tell.
fn quantiles(standing: &Standing<'_>) -> Line {
    const STEPS: u32 = 90;
    let sample = &standing.contended.latencies_us;
    let last = tail(1.0 - 1.0 / sample.len() as f64);
    let points = (0..=STEPS).map(|step| {
        let x = last * f64::from(step) / f64::from(STEPS);
        let y = log_micros(quantile(sample, 1.0 - 10f64.powf(-x)));
        Point { x, y, low: y, high: y }
    });
    Line { contender: text::name(standing.contended), points: points.collect(), has_marks: false }
}

fn log_micros(micros: f64) -> f64 {
    micros.max(1e-3).log10()
}

/// Splits the name of a row into its subject and the part of the calls that it names: "a call, p99, one
/// core" gives "a call, one core" and 0.99.
fn quantile_of(row: &str) -> (String, Option<f64>) {
    for (part, rank) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some((before, behind)) = row.split_once(part) {
            let what = format!("{}{behind}", before.trim_end().trim_end_matches(','));
            return (what, Some(rank));
        }
    }
    (row.to_owned(), None)
}

/// A group of bars for each situation, with a bar for each contender.
fn beside(transport: &str, rows: &[Judged<'_>]) -> Option<Panel> {
    let mut situations: Vec<String> = Vec::new();
    let mut lines: Vec<Line> = Vec::new();
    for (row, _) in placed(rows, Plot::Beside) {
        let (what, _) = quantile_of(&row.outcome.row);
        let what = what.trim_start_matches("1 KiB call ").trim_start_matches("beside a ").to_owned();
        let group = situations.iter().position(|other| *other == what).unwrap_or_else(|| {
            situations.push(what);
            situations.len() - 1
        });
        let bars = row.standings.iter().filter(|one| one.contended.kind != Kind::Ceiling).enumerate();
        for (number, standing) in bars {
            let x = group as f64 + 0.8 * (number as f64 + 0.5) / row.standings.len() as f64 - 0.4;
            let y = log_micros(standing.median);
            let point = Point { x, y, low: y, high: y };
            let contender = text::name(standing.contended);
            let same = |line: &&mut Line| line.contender == contender && line.points[0].x == x;
            match lines.iter_mut().find(same) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { contender, points: vec![point], has_marks: true }),
            }
        }
    }
    let (low, high) = bounds(&lines, |point| [point.y; 2])?;
    let range = (-0.5, situations.len() as f64 - 0.5);
    let ticks = situations.into_iter().enumerate().map(|(group, what)| (group as f64, what)).collect();
    let x = Axis { name: "beside what (bars from p50 to p99)".to_owned(), range, ticks };
    Some(Panel { title: transport.to_owned(), x, y: times(low, high), lines: ordered(lines) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::{Contended, Outcome, Point as Place};
    use crate::bench::report::About;
    use crate::bench::report::fixture::{self, outcome, peer, raw, teleport};

    const PLOTS: [Plot; 4] = [Plot::ThroughputOverSize, Plot::CallsOverInFlight, Plot::Latency, Plot::Beside];

    fn at(plot: Plot, x: f64, results: Vec<Contended>) -> Outcome {
        let unit = match plot {
            Plot::ThroughputOverSize => Unit::GBs,
            Plot::CallsOverInFlight => Unit::CallsPerSecond,
            Plot::Latency | Plot::Beside => Unit::Micros,
        };
        Outcome { point: Some(Place { plot, x }), ..outcome("a <row> & more, p99", unit, results) }
    }

    /// How many elements of this name the drawing has; it is well-formed.
    fn count(svg: &str, element: &str) -> usize {
        let document = roxmltree::Document::parse(svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
        document
            .descendants()
            .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", element)))
            .count()
    }

    #[test]
    fn without_data_there_is_no_plot() {
        assert!(drawings(&Report::new(&About::default(), &[])).is_empty());
        let nobody = PLOTS.map(|plot| at(plot, 1.0, Vec::new()));
        assert!(drawings(&Report::new(&About::default(), &nobody)).is_empty());
    }

    #[test]
    fn each_row_has_a_mark_for_each_contender() {
        let both = || vec![raw(&[1.0]), teleport(&[2.0])];
        let marks = |rows: &[Outcome]| {
            let drawings = drawings(&Report::new(&About::default(), rows));
            assert_eq!(drawings.len(), 1);
            count(&drawings[0].svg, "circle")
        };
        // The legend has one mark for each contender.
        let one = [at(Plot::ThroughputOverSize, 1024.0, both())];
        assert_eq!(marks(&one), 2 + 2);
        let three = [1024.0, 2048.0, 4096.0].map(|bytes| at(Plot::ThroughputOverSize, bytes, both()));
        assert_eq!(marks(&three), 2 + 3 * 2);
    }

    #[test]
    fn one_point_and_odd_values_are_drawn_well_formed() {
        for values in [[0.0], [1.0], [1e-9], [1e18]] {
            for latencies in [vec![], vec![3.0], vec![0.0, 1.0, 1e9]] {
                let one = |contended: Contended| Contended { latencies_us: latencies.clone(), ..contended };
                let results = || vec![one(raw(&values)), one(teleport(&values)), one(peer("<&>", &values))];
                let (about, rows) = (fixture::about(), PLOTS.map(|plot| at(plot, 0.0, results())));
                for drawing in drawings(&Report::new(&about, &rows)) {
                    assert!(count(&drawing.svg, "text") > 3, "{}", drawing.name);
                }
            }
        }
    }

    #[test]
    fn every_plot_of_many_points_names_everybody() {
        let drawings = drawings(&Report::new(&fixture::about(), &fixture::outcomes(true)));
        let names: Vec<&str> = drawings.iter().map(|drawing| drawing.name).collect();
        assert_eq!(names, ["throughput", "calls", "latency", "beside"]);
        for drawing in &drawings {
            for contender in [
                "Teleport",
                "ZeroMQ",
                "nng",
                "tonic",
                "tarpc",
                "connectrpc",
                "zenoh",
                "portal",
                "Arrow Flight",
            ] {
                assert!(drawing.svg.contains(&format!("\n{contender}\n")), "{} {contender}", drawing.name);
            }
            assert!(drawing.svg.contains("Invented Processor 9000"), "{}", drawing.name);
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
        let outcomes = fixture::outcomes(true);
        let about = About::default();
        let report = Report::new(&about, &outcomes);
        assert_eq!(latencies("TCP", &report.groups[0].rows).len(), 1);
        let beside = beside("TCP", &report.groups[0].rows).unwrap();
        assert_eq!((beside.x.ticks.len(), beside.lines.len()), (3, 3 * 9));
    }

    #[test]
    fn ticks_are_round_numbers() {
        let labels = |axis: &Axis| axis.ticks.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&amounts(8.1, Unit::GBs)), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(&amounts(1.1e6, Unit::CallsPerSecond)), ["0", "0.5", "1"]);
        assert_eq!(
            labels(&times(0.9, 2.4)),
            ["10 \u{b5}s", "20 \u{b5}s", "50 \u{b5}s", "100 \u{b5}s", "200 \u{b5}s"]
        );
        assert_eq!(powers(10.0, 28.0, 8, |size| text::bytes(size.exp2())).len(), 3);
    }
}
