//! The results as tables, for a terminal and as Markdown.
//!
//! There is one table per transport, with one line per row. Points of sweeps are in the plots only.

use std::fmt::Write;

use super::judged::{Judged, Standing};
use super::{Group, Report, text};

pub(super) const HEADS: [&str; 8] =
    ["row", "ceiling", "Teleport", "of ceiling (95 % interval)", "best peer", "of best peer", "goal", ""];

/// Returns the tables for a terminal, with facts and notes.
pub(super) fn table(report: &Report<'_>) -> String {
    let mut out = String::new();
    for group in &report.groups {
        let lines: Vec<[String; 8]> = shown(group).map(cells).collect();
        if !lines.is_empty() {
            let _ = writeln!(out, "{}", text::transport(group.transport));
            out.push_str(&aligned(&lines));
            out.push('\n');
        }
    }
    for line in closing(report) {
        let _ = writeln!(out, "{line}");
    }
    out
}

/// Returns the tables as Markdown.
pub(super) fn markdown(report: &Report<'_>) -> String {
    let mut out = String::new();
    for group in &report.groups {
        let lines: Vec<[String; 8]> = shown(group).map(cells).collect();
        if lines.is_empty() {
            continue;
        }
        let used = used_columns(&lines);
        let line = |cells: [&str; 8]| {
            let cells: Vec<String> = used.iter().map(|&column| cells[column].replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let _ = writeln!(out, "**{}**\n", text::transport(group.transport));
        out.push_str(&line(HEADS));
        let rule: Vec<&str> =
            used.iter().map(|&column| if (1..6).contains(&column) { "---:" } else { "---" }).collect();
        let _ = writeln!(out, "| {} |", rule.join(" | "));
        lines.iter().for_each(|cells| out.push_str(&line(cells.each_ref().map(String::as_str))));
        out.push('\n');
    }
    let facts: Vec<String> =
        report.about.facts.iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
    if !facts.is_empty() {
        let _ = writeln!(out, "{}.", facts.join("; "));
    }
    out
}

fn shown<'r, 'a>(group: &'r Group<'a>) -> impl Iterator<Item = &'r Judged<'a>> {
    group.rows.iter().filter(|row| !row.is_for_plots_only())
}

pub(super) fn cells(row: &Judged<'_>) -> [String; 8] {
    let value = |standing: Option<&Standing<'_>>| {
        standing.map_or_else(String::new, |standing| text::value(standing.median, row.outcome.unit))
    };
    let shown = |interval: Option<_>| interval.map_or_else(String::new, text::with_interval);
    let best = row.best_peer().map_or_else(String::new, |best| {
        format!("{} {}", text::name(best.contended), text::value(best.median, row.outcome.unit))
    });
    [
        row.outcome.row.clone(),
        value(row.ceiling()),
        value(row.teleport()),
        shown(text::to_ceiling(row)),
        best,
        shown(row.teleport().and_then(|ours| ours.to_best_peer).map(text::ratio)),
        text::goal(row.outcome, [">=", "<="]),
        row.said(),
    ]
}

/// Returns the columns that are not empty in all lines.
fn used_columns(lines: &[[String; 8]]) -> Vec<usize> {
    (0..HEADS.len()).filter(|&column| lines.iter().any(|cells| !cells[column].is_empty())).collect()
}

fn aligned(lines: &[[String; 8]]) -> String {
    let used = used_columns(lines);
    let heads = HEADS.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(lines);
    let widths = HEADS.each_ref().map(|_| 0);
    let widths = all().fold(widths, |widths: [usize; 8], cells| {
        std::array::from_fn(|column| widths[column].max(cells[column].chars().count()))
    });
    let mut out = String::new();
    for cells in all() {
        let cells: Vec<String> = used
            .iter()
            .map(|&column| match column {
                1 | 2 => format!("{:>1$}", cells[column], widths[column]),
                _ => format!("{:<1$}", cells[column], widths[column]),
            })
            .collect();
        let _ = writeln!(out, "  {}", cells.join("   ").trim_end());
    }
    out
}

/// Returns the lines below the tables.
fn closing(report: &Report<'_>) -> Vec<String> {
    let mut lines: Vec<String> =
        report.about.facts.iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
    lines.extend(report.about.notes.iter().map(|note| format!("note: {note}")));
    let points = report.rows().filter(|row| row.is_for_plots_only()).count();
    if points > 0 {
        lines.push(format!("{points} points of the plots are in the page and in the JSON file."));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::fixture;

    #[test]
    fn a_table_has_a_line_for_each_row_and_stays_aligned() {
        let outcomes = fixture::outcomes(true);
        let shown = Report::new(&fixture::about(), &outcomes).table();
        assert!(shown.starts_with("TCP\n"), "{shown}");
        let line = shown.lines().find(|line| line.contains("256 MiB argument")).unwrap();
        assert!(line.contains(">= 0.95 x ceiling") && line.contains("met"), "{line}");
        let starts: Vec<usize> = shown
            .lines()
            .skip_while(|line| !line.contains("row"))
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.find(">=").or_else(|| line.find("goal")))
            .collect();
        assert!(starts.len() > 2 && starts.iter().all(|start| *start == starts[0]), "{starts:?}\n{shown}");
        assert!(shown.contains("points of the plots"), "{shown}");
    }

    #[test]
    fn empty_columns_are_left_out() {
        let shown = Report::new(&fixture::about(), &fixture::outcomes(false)).table();
        let heads: Vec<&str> = shown.lines().filter(|line| line.starts_with("  row")).collect();
        assert!(heads.len() == 3 && !heads.iter().any(|line| line.contains("best peer")), "{shown}");
        assert!(heads[0].contains("ceiling") && !heads[2].contains("ceiling"), "{shown}");
    }

    #[test]
    fn markdown_has_as_many_cells_in_each_line() {
        let shown = markdown(&Report::new(&fixture::about(), &fixture::outcomes(true)));
        for block in shown.split("\n\n").filter(|block| block.starts_with('|')) {
            let bars = |line: &str| line.matches('|').count();
            let first = bars(block.lines().next().unwrap());
            assert!(block.lines().all(|line| bars(line) == first), "{block}");
        }
        assert!(shown.contains("CPU: "), "{shown}");
    }
}
