//! The page: everything that was measured in one file of HTML, which needs no network, no script and no
//! other file.

use std::fmt::Write;

use super::judged::{Judged, Standing, Verdict};
use super::plot::drawings;
use super::table::{self, HEADS};
use super::{Report, text};

const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #1c2430; background: #fff }
table { border-collapse: collapse; font-size: 14px; display: block; overflow-x: auto }
th, td { padding: 3px 10px; text-align: left; border-top: 1px solid #e2e6ec }
td { font-variant-numeric: tabular-nums }
.met { color: #0b6e3b } .missed { color: #b3261e } .unclear { color: #7a5b00 }
svg { width: 100%; height: auto }
";

/// The whole page.
pub(super) fn page(report: &Report<'_>) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Teleport benchmark</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    head(&mut out, report);
    for group in &report.groups {
        let shown: Vec<&Judged<'_>> = group.rows.iter().filter(|row| !row.is_for_plots_only()).collect();
        if !shown.is_empty() {
            let _ = writeln!(out, "<h2>{}</h2>", escape(text::transport(group.transport)));
            rows(
                &mut out,
                &HEADS,
                shown.into_iter().map(|row| (row.verdict.word(), table::cells(row).to_vec())),
            );
        }
    }
    for drawing in drawings(report) {
        let (title, explanation, svg) = (drawing.title, drawing.explanation, drawing.svg);
        let _ = writeln!(out, "<h2>{title}</h2>\n<p>{explanation}</p>\n{svg}");
    }
    settings(&mut out, report);
    out.push_str("<h2>Every contender in every row</h2>\n");
    let heads = ["row", "transport", "contender", "median", "range", "of ceiling", "of best peer"];
    let all = report.rows().flat_map(|row| row.standings.iter().map(move |one| ("", number(row, one))));
    rows(&mut out, &heads, all);
    out.push_str("</body>\n</html>\n");
    out
}

fn head(out: &mut String, report: &Report<'_>) {
    out.push_str("<h1>Teleport benchmark</h1>\n<p>Goals:");
    for verdict in [Verdict::Met, Verdict::Missed, Verdict::Unclear, Verdict::NotRun] {
        let count = report.rows().filter(|row| row.verdict == verdict).count();
        let _ = write!(out, " <b>{count}</b> {};", verdict.word());
    }
    out.push_str("</p>\n<ul>\n");
    for (name, fact) in &report.about.facts {
        let _ = writeln!(out, "<li>{}: {}</li>", escape(name), escape(fact));
    }
    out.push_str("</ul>\n");
    for note in &report.about.notes {
        let _ = writeln!(out, "<p><b>Note:</b> {}</p>", escape(note));
    }
}

/// A table: its heads, and for each line its class and its cells.
fn rows(out: &mut String, heads: &[&str], lines: impl Iterator<Item = (&'static str, Vec<String>)>) {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| -> String {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let _ = writeln!(out, "<table>\n<tr>{}</tr>", cells("th", &mut heads.iter().copied()));
    for (class, line) in lines {
        let line = cells("td", &mut line.iter().map(String::as_str));
        let _ = writeln!(out, "<tr class=\"{class}\">{line}</tr>");
    }
    out.push_str("</table>\n");
}

/// Each contender with the settings with which it ran.
fn settings(out: &mut String, report: &Report<'_>) {
    let mut all: Vec<(String, &str)> = Vec::new();
    for one in report.rows().flat_map(|row| &row.standings).map(|standing| standing.contended) {
        let entry = (text::name(one), one.settings.as_str());
        if !entry.1.is_empty() && !all.contains(&entry) {
            all.push(entry);
        }
    }
    out.push_str("<h2>Contenders and their settings</h2>\n<ul>\n");
    for (name, settings) in all {
        let _ = writeln!(out, "<li><b>{}</b>: {}</li>", escape(&name), escape(settings));
    }
    out.push_str("</ul>\n");
}

fn number(row: &Judged<'_>, standing: &Standing<'_>) -> Vec<String> {
    let value = |value| text::value(value, row.outcome.unit);
    let ratio = |ratio: Option<_>| ratio.map(text::ratio).map_or_else(String::new, text::with_interval);
    vec![
        row.outcome.row.clone(),
        row.outcome.transport.to_owned(),
        text::name(standing.contended),
        value(standing.median),
        format!("{} to {}", value(standing.min), value(standing.max)),
        ratio(standing.to_ceiling),
        ratio(standing.to_best_peer),
    ]
}

/// `text` between tags or quotes. Characters that XML cannot hold are replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::Unit;
    use crate::bench::report::About;
    use crate::bench::report::fixture::{self, outcome, peer, teleport};

    fn well_formed(page: &str) {
        let page = page.trim_start_matches("<!DOCTYPE html>\n");
        roxmltree::Document::parse(page).unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn the_page_is_well_formed_and_needs_nothing_else() {
        for outcomes in [Vec::new(), fixture::outcomes(false), fixture::outcomes(true)] {
            let page = page(&Report::new(&fixture::about(), &outcomes));
            well_formed(&page);
            let page = page.replace("http://www.w3.org/2000/svg", "");
            for foreign in ["http:", "https:", "<script", "<link", "@import", "url("] {
                assert!(!page.contains(foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn it_shows_verdicts_facts_notes_plots_and_settings() {
        let full = page(&Report::new(&fixture::about(), &fixture::outcomes(true)));
        assert!(full.contains("</b> met;") && full.contains("<td>missed</td>"), "{full}");
        assert!(full.contains("Invented Processor 9000") && full.contains("Too noisy to tell"));
        assert!(full.contains("<h2>Latency of a call</h2>"));
        assert!(full.contains("<li><b>ZeroMQ</b>: zmq 1.2.3, invented settings</li>"));
    }

    #[test]
    fn odd_names_are_escaped() {
        let odd = "a <row> & \"more\"\u{1}";
        let row = outcome(odd, Unit::GBs, vec![teleport(&[1.0]), peer(odd, &[2.0])]);
        well_formed(&page(&Report::new(&About::default(), &[row])));
    }
}
