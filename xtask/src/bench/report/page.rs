//! The page: everything that was measured in one file of HTML, which needs no network, no script and no other file.
//!
//! Flow: verdicts in numbers -> under what circumstances -> a table for each transport -> the plots -> who the contenders
//! are -> every number. Light or dark as the reader prefers; on a narrow screen each row of a table becomes a card.

use std::fmt::Write;

use super::judged::{Judged, Standing, Verdict};
use super::plot::{Look, escape, figures, name, rules};
use super::{Group, Report, strip, text};
use crate::bench::outcome::Kind;
use crate::bench::stats::Interval;

/// The whole page.
pub(super) fn page(report: &Report<'_>) -> String {
    let has_peers = report.rows().any(|row| row.best_peer().is_some());
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>Teleport benchmark</title>\n\
         <style>\n{}{}</style>\n</head>\n<body>\n<main>\n",
        include_str!("page.css"),
        rules()
    );
    header(&mut out, report, has_peers);
    for group in &report.groups {
        table(&mut out, group, has_peers);
    }
    plots(&mut out, report, has_peers);
    contenders(&mut out, report);
    numbers(&mut out, report);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn header(out: &mut String, report: &Report<'_>, has_peers: bool) {
    let against = if has_peers {
        "its peers and the machine\u{2019}s own limit"
    } else {
        "the machine\u{2019}s own limit"
    };
    let _ = writeln!(out, "<header>\n<h1>Teleport beside {against}</h1>\n<ul class=\"counts\">");
    for verdict in [Verdict::Met, Verdict::Missed, Verdict::Unclear, Verdict::NotRun] {
        let count = report.rows().filter(|row| row.verdict == verdict).count();
        if count > 0 {
            let _ =
                writeln!(out, "<li class=\"{}\"><b>{count}</b> {}</li>", class(verdict), meaning(verdict));
        }
    }
    out.push_str("</ul>\n");
    if !report.about.facts.is_empty() {
        out.push_str("<dl>\n");
        for (name, fact) in &report.about.facts {
            let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(fact));
        }
        out.push_str("</dl>\n");
    }
    for note in &report.about.notes {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", escape(note));
    }
    out.push_str("</header>\n");
}

fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "goals met",
        Verdict::Missed => "missed",
        Verdict::Unclear => "unclear: the interval straddles the goal",
        Verdict::NotRun => "not judged: what they compare with was not run",
        Verdict::NoGoal => "",
    }
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "missed",
        Verdict::Unclear => "unclear",
        Verdict::NotRun | Verdict::NoGoal => "none",
    }
}

fn table(out: &mut String, group: &Group<'_>, has_peers: bool) {
    let shown: Vec<&Judged<'_>> = group.rows.iter().filter(|row| !row.is_for_plots_only()).collect();
    if shown.is_empty() {
        return;
    }
    let peers =
        if has_peers { "<th class=\"n\">best peer</th><th class=\"n\">of best peer</th>" } else { "" };
    let _ = writeln!(
        out,
        "<section>\n<h2>{}</h2>\n<table>\n<thead><tr><th>row</th><th class=\"n\">ceiling</th>\
         <th class=\"n\">Teleport</th><th class=\"n\">of ceiling</th>{peers}<th>goal</th>\
         <th>worse \u{2190} goal \u{2192} better</th><th></th></tr></thead>\n<tbody>",
        escape(text::transport(group.transport))
    );
    for row in shown {
        line(out, row, has_peers);
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
}

fn line(out: &mut String, row: &Judged<'_>, has_peers: bool) {
    let unit = row.outcome.unit;
    let ours = row.teleport();
    let _ = write!(
        out,
        "<tr class=\"{}\"><th scope=\"row\">{}</th>",
        class(row.verdict),
        escape(&row.outcome.row)
    );
    let value = |standing: Option<&Standing<'_>>| {
        standing.map_or_else(String::new, |one| text::pretty(one.median, unit))
    };
    // A row may be compared with something else than plain sockets.
    let ceiling = row.ceiling().map_or_else(String::new, |one| match one.contended.contender.as_str() {
        "raw" => value(Some(one)),
        other => format!("{} <i>{}</i>", value(Some(one)), escape(other)),
    });
    cell(out, "n", "ceiling", &ceiling);
    cell(out, "n ours", "Teleport", &value(ours));
    cell(out, "n", "of ceiling", &interval(text::to_ceiling(row)).replace(" us", " \u{b5}s"));
    if has_peers {
        let best = row.best_peer().map_or_else(String::new, |best| {
            format!("{} <i>{}</i>", value(Some(best)), escape(&name(best.contended)))
        });
        cell(out, "n", "best peer", &best);
        cell(out, "n", "of best peer", &ratio(ours.and_then(|one| one.to_best_peer)));
    }
    cell(
        out,
        "goal",
        "goal",
        &escape(&text::goal(row.outcome, ["\u{2265}", "\u{2264}"]).replace(" x ", " \u{d7} ")),
    );
    cell(out, "strip", "", &strip::strip(row).unwrap_or_default());
    let sign = match row.verdict {
        Verdict::Met => "\u{2713}",
        Verdict::Missed => "\u{2717}",
        Verdict::Unclear => "?",
        Verdict::NotRun => "\u{2013}",
        Verdict::NoGoal => "",
    };
    let verdict = format!("{sign} {}", row.verdict.word());
    cell(out, "verdict", "", verdict.trim());
    out.push_str("</tr>\n");
}

/// `html` is escaped already; an empty one takes no room on a narrow screen.
fn cell(out: &mut String, class: &str, label: &str, html: &str) {
    let empty = if html.is_empty() { " empty" } else { "" };
    let _ = write!(out, "<td class=\"{class}{empty}\" data-label=\"{label}\">{html}</td>");
}

fn ratio(ratio: Option<Interval>) -> String {
    interval(ratio.map(text::ratio))
}

/// Of a median and both ends of its interval.
fn interval(shown: Option<[String; 3]>) -> String {
    shown.map_or_else(String::new, |[median, low, high]| {
        format!("<b>{median}</b> <small>{low}\u{2013}{high}</small>")
    })
}

fn plots(out: &mut String, report: &Report<'_>, has_peers: bool) {
    for figure in figures(report) {
        let _ = writeln!(out, "<section id=\"{}\">\n<h2>{}</h2>", figure.id, figure.title);
        let mut panels = figure.panels().peekable();
        if panels.peek().is_none() {
            let _ = writeln!(out, "<p class=\"missing\">{}</p>\n</section>", figure.remedy);
            continue;
        }
        let _ = write!(out, "<p>{}", figure.explanation);
        if !has_peers && figure.id != "memory" {
            out.push_str(" <span class=\"quiet\">The peers were not run: --peers adds them.</span>");
        }
        out.push_str("</p>\n<div class=\"panels\">\n");
        panels.for_each(|panel| {
            let _ = writeln!(out, "<figure>{panel}</figure>");
        });
        out.push_str("</div>\n</section>\n");
    }
}

/// Who took part, how each looks in the plots, and with which settings it ran.
fn contenders(out: &mut String, report: &Report<'_>) {
    let mut all: Vec<(String, Look, Vec<&str>)> = Vec::new();
    for one in report.rows().flat_map(|row| &row.standings).map(|standing| standing.contended) {
        let name = name(one);
        let at = all.iter().position(|(other, ..)| *other == name).unwrap_or_else(|| {
            all.push((name, Look::of(one), Vec::new()));
            all.len() - 1
        });
        let settings = &mut all[at].2;
        if !one.settings.is_empty() && !settings.contains(&one.settings.as_str()) {
            settings.push(&one.settings);
        }
    }
    if all.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Contenders and their settings</h2>\n<ul class=\"contenders\">\n");
    for (name, look, settings) in all {
        let settings: Vec<String> =
            settings.into_iter().map(|one| format!("<p>{}</p>", escape(one))).collect();
        let _ = writeln!(
            out,
            "<li>{}<div><b>{}</b>{}</div></li>",
            look.swatch(),
            escape(&name),
            settings.join("")
        );
    }
    out.push_str("</ul>\n</section>\n");
}

/// Every number, for who wants them all, folded away.
fn numbers(out: &mut String, report: &Report<'_>) {
    let _ = writeln!(
        out,
        "<section>\n<details>\n<summary>Every contender in every row</summary>\n<p>Median over the rounds, their range, and \
         ratios round by round with the interval that holds them in 95 of 100 resampled runs.</p>\n<table>\n<thead><tr>\
         <th>row</th><th>contender</th><th class=\"n\">median</th><th class=\"n\">range</th><th class=\"n\">of ceiling</th>\
         <th class=\"n\">of best peer</th></tr></thead>\n<tbody>"
    );
    for row in report.rows() {
        row.standings.iter().for_each(|standing| number(out, row, standing));
    }
    out.push_str("</tbody>\n</table>\n</details>\n</section>\n");
}

fn number(out: &mut String, row: &Judged<'_>, standing: &Standing<'_>) {
    let (unit, transport) = (row.outcome.unit, row.outcome.transport);
    let over = if transport.is_empty() { String::new() } else { format!(" <i>{}</i>", escape(transport)) };
    let _ = write!(out, "<tr><th scope=\"row\">{}{over}</th>", escape(&row.outcome.row));
    let class = if standing.contended.kind == Kind::Teleport { "ours" } else { "" };
    cell(out, class, "contender", &escape(&name(standing.contended)));
    cell(out, "n", "median", &text::pretty(standing.median, unit));
    let range = format!("{} \u{2013} {}", text::pretty(standing.min, unit), text::pretty(standing.max, unit));
    cell(out, "n", "range", &range);
    cell(out, "n", "of ceiling", &ratio(standing.to_ceiling));
    cell(out, "n", "of best peer", &ratio(standing.to_best_peer));
    out.push_str("</tr>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::Unit;
    use crate::bench::report::About;
    use crate::bench::report::fixture::{self, outcome, peer, teleport};
    use crate::bench::report::plot::well_formed;

    #[test]
    fn the_page_is_well_formed_and_needs_nothing_else() {
        for outcomes in [Vec::new(), fixture::outcomes(false), fixture::outcomes(true)] {
            let page = page(&Report::new(&fixture::about(), &outcomes));
            well_formed::check(&page).unwrap();
            for foreign in ["http:", "https:", "<script", "<link", "@import", "url("] {
                assert!(!page.contains(foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn it_says_what_is_met_what_is_missing_and_what_would_add_it() {
        let full = page(&Report::new(&fixture::about(), &fixture::outcomes(true)));
        assert!(full.contains("goals met") && full.contains("\u{2717} missed"), "{full}");
        assert!(full.contains("Invented Processor 9000") && full.contains("Too noisy to tell"));
        assert!(!full.contains("--peers adds them") && !full.contains("class=\"missing\""));
        let alone = page(&Report::new(&fixture::about(), &fixture::outcomes(false)));
        assert!(
            alone.contains("--peers adds them")
                && !alone.contains("best peer</th><th class=\"n\">of best peer</th><th>goal")
        );
        assert!(
            page(&Report::new(&About::default(), &[]))
                .contains("The sweep over message sizes was not measured")
        );
    }

    #[test]
    fn names_and_settings_are_escaped() {
        let bad = peer("<b>&\"", &[1.0]);
        let rows = [outcome("<row> & \"more\"", Unit::GBs, vec![teleport(&[1.0]), bad])];
        let page = page(&Report::new(&About::default(), &rows));
        well_formed::check(&page).unwrap();
        assert!(
            page.contains("&lt;row&gt; &amp; &quot;more&quot;")
                && page.contains("&lt;b&gt;&amp;&quot; 1.2.3")
        );
    }
}
