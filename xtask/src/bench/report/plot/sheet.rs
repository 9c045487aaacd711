//! Plots as files of their own, for documents: the panels of a figure under its title, above where and when it was measured.

use super::svg::{Anchor, Svg};
use super::{Figure, figures, rules};
use crate::bench::report::{About, Report};

/// Name and text of a file for each plot that has data.
pub(in crate::bench::report) fn files(report: &Report<'_>) -> Vec<(String, String)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_fill_lines_and_none_is_cut() {
        assert_eq!(wrapped(&["one", "", "two", "three and more"], 12), ["one \u{b7} two", "three and more"]);
        assert!(wrapped(&[], 12).is_empty());
    }
}
