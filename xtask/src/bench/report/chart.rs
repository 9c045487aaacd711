//! Charts of lines, drawn as SVG by plotters: panels side by side, with one legend for all of them.
//!
//! Flow: `plot` gives points in linear coordinates -> [`svg`]. The program that shows the file lays the text
//! out, so no fonts are needed here.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Sizes in pixels; a document scales the whole. Those of fonts are larger than what comes out: plotters
/// divides them by 1.24.
const PANEL: (u32, u32) = (480, 300);
const COLUMNS: usize = 2;
/// For the title and the legend.
const HEAD_HEIGHT: u32 = 72;
/// For one line that says where and when it was measured.
const LINE_HEIGHT: u32 = 18;
const LEGEND_ENTRY_WIDTH: i32 = 115;

const INK: RGBColor = RGBColor(28, 36, 48);
const QUIET: RGBColor = RGBColor(86, 96, 112);
const GRID: RGBColor = RGBColor(226, 230, 236);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A figure with all its panels.
pub(super) struct Figure {
    pub(super) title: String,
    pub(super) panels: Vec<Panel>,
    /// Lines that say where and when it was measured.
    pub(super) footer: Vec<String>,
}

/// One pair of axes with its lines.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

/// Ticks with their labels, and the values at both ends.
#[derive(Clone)]
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) range: (f64, f64),
    pub(super) ticks: Vec<(f64, String)>,
}

/// The results of one contender. Panels draw their lines in order, so the last one lies on top.
pub(super) struct Line {
    pub(super) contender: String,
    pub(super) points: Vec<Point>,
    /// Each point is a measurement of its own and gets a mark.
    pub(super) has_marks: bool,
}

/// A median with the range of its rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.range.0) / (self.range.1 - self.range.0);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.iter().map(|(value, _)| *value).collect(),
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(tick, _)| tick == value);
        tick.map_or_else(String::new, |(_, label)| label.clone())
    }
}

/// Draws the figure and returns it as SVG.
pub(super) fn svg(figure: &Figure) -> String {
    let columns = figure.panels.len().clamp(1, COLUMNS);
    let rows = figure.panels.len().div_ceil(columns) as u32;
    let foot = LINE_HEIGHT * figure.footer.len() as u32 + 8;
    let size = (PANEL.0 * columns as u32, HEAD_HEIGHT + PANEL.1 * rows + foot);
    let mut text = String::new();
    let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(&root, figure, columns, rows as usize).expect("a string takes everything");
    drop(root);
    text
}

fn draw(root: &Area<'_>, figure: &Figure, columns: usize, rows: usize) -> Drawn {
    root.fill(&WHITE)?;
    root.draw(&Text::new(figure.title.clone(), (16, 14), ("sans-serif", 24).into_font().color(&INK)))?;
    let (head, below) = root.split_vertically(HEAD_HEIGHT);
    legend(&head, figure)?;
    let (panels, foot) = below.split_vertically(PANEL.1 * rows as u32);
    for (area, panel) in panels.split_evenly((rows, columns)).iter().zip(&figure.panels) {
        draw_panel(area, panel)?;
    }
    let style = ("sans-serif", 15).into_font().color(&QUIET);
    for (number, line) in figure.footer.iter().enumerate() {
        let y = number as i32 * LINE_HEIGHT as i32;
        foot.draw(&Text::new(line.clone(), (16, y), style.clone()))?;
    }
    root.present()
}

/// Each contender once: Teleport, which lies on top of the others, then these in their order.
fn legend(area: &Area<'_>, figure: &Figure) -> Drawn {
    let mut names: Vec<&str> = Vec::new();
    for line in figure.panels.iter().flat_map(|panel| panel.lines.iter().rev().take(1).chain(&panel.lines)) {
        if !names.contains(&line.contender.as_str()) {
            names.push(&line.contender);
        }
    }
    for (number, name) in names.into_iter().enumerate() {
        let x = 16 + number as i32 * LEGEND_ENTRY_WIDTH;
        let look = Look::of(name);
        area.draw(&PathElement::new([(x, 56), (x + 22, 56)], look.stroke()))?;
        mark(area, look, (x + 11, 56))?;
        let style = ("sans-serif", 16).into_font().color(&look.colour);
        area.draw(&Text::new(name.to_owned(), (x + 28, 48), style))?;
    }
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Drawn {
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, text(19))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(panel.x.clone(), panel.y.clone())?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(QUIET)
        .label_style(("sans-serif", 15).into_font().color(&QUIET))
        .x_desc(&panel.x.name)
        .y_desc(&panel.y.name)
        .draw()?;
    for line in &panel.lines {
        let look = Look::of(&line.contender);
        let upper = line.points.iter().map(|point| (point.x, point.high));
        let lower = line.points.iter().rev().map(|point| (point.x, point.low));
        let band: Vec<(f64, f64)> = upper.chain(lower).collect();
        chart.draw_series([Polygon::new(band, look.colour.mix(0.14))])?;
        chart.draw_series(LineSeries::new(
            line.points.iter().map(|point| (point.x, point.y)),
            look.stroke(),
        ))?;
        if line.has_marks {
            for point in &line.points {
                mark(chart.plotting_area(), look, (point.x, point.y))?;
            }
        }
    }
    Ok(())
}

/// How one contender looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    colour: RGBColor,
    mark: Mark,
    width: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Circle,
    Triangle,
    Cross,
}

const TELEPORT: Look = Look { colour: RGBColor(217, 72, 15), mark: Mark::Circle, width: 3 };
const CEILING: Look = Look { colour: RGBColor(107, 114, 128), mark: Mark::Circle, width: 2 };

/// Colors that differ for color-blind readers, too.
const PEERS: [(&str, Look); 8] = [
    ("ZeroMQ", Look { colour: RGBColor(31, 51, 163), mark: Mark::Triangle, width: 1 }),
    ("nng", Look { colour: RGBColor(42, 140, 89), mark: Mark::Cross, width: 1 }),
    ("tonic", Look { colour: RGBColor(111, 35, 82), mark: Mark::Circle, width: 1 }),
    ("tarpc", Look { colour: RGBColor(1, 104, 131), mark: Mark::Triangle, width: 1 }),
    ("connectrpc", Look { colour: RGBColor(178, 94, 28), mark: Mark::Circle, width: 1 }),
    ("zenoh", Look { colour: RGBColor(201, 58, 114), mark: Mark::Triangle, width: 1 }),
    ("portal", Look { colour: RGBColor(64, 75, 3), mark: Mark::Cross, width: 1 }),
    ("Arrow Flight", Look { colour: RGBColor(110, 97, 219), mark: Mark::Circle, width: 1 }),
];

/// For contenders that have no look of their own yet.
const OTHER: Look = Look { colour: RGBColor(136, 34, 85), mark: Mark::Triangle, width: 1 };

impl Look {
    fn of(name: &str) -> Look {
        match name {
            "Teleport" => TELEPORT,
            "raw sockets" => CEILING,
            name => PEERS.iter().find(|(peer, _)| *peer == name).map_or(OTHER, |(_, look)| *look),
        }
    }

    fn stroke(self) -> ShapeStyle {
        self.colour.stroke_width(self.width)
    }
}

fn mark<C: plotters::coord::CoordTranslate>(
    area: &DrawingArea<SVGBackend<'_>, C>,
    look: Look,
    at: C::From,
) -> Drawn
where
    C::From: Clone + 'static,
{
    let (filled, size) = (look.colour.filled(), 3 + look.width.min(2) as i32 / 2);
    match look.mark {
        Mark::Circle => area.draw(&Circle::new(at, size, filled)),
        Mark::Triangle => area.draw(&TriangleMarker::new(at, size + 1, filled)),
        Mark::Cross => area.draw(&Cross::new(at, size, look.colour.stroke_width(2))),
    }
}
