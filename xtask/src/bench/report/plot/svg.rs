//! Drawing as SVG text: elements, and what must be escaped in them.
//!
//! Coordinates are written with one decimal. Colours come from classes, whose rules are in `look`.

use std::fmt::{Display, Write};

/// A drawing of one size; elements lie over those drawn before.
#[derive(Debug)]
pub(in crate::bench::report) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Where a text's point lies in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench::report) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(in crate::bench::report) fn new(width: f64, height: f64) -> Svg {
        Svg { width, height, body: String::new() }
    }

    pub(in crate::bench::report) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [(x1, y1), (x2, y2)] = [from, to];
        self.push(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// Nothing for fewer than two points.
    pub(in crate::bench::report) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.len() > 1 {
            let steps: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            self.push(format_args!(r#"<path class="{class}" d="M{}"/>"#, steps.join("L")));
        }
    }

    /// A filled outline.
    pub(in crate::bench::report) fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.len() > 2 {
            let steps: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            self.push(format_args!(r#"<path class="{class}" d="M{}Z"/>"#, steps.join("L")));
        }
    }

    pub(in crate::bench::report) fn circle(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        self.push(format_args!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}"/>"#));
    }

    pub(in crate::bench::report) fn rectangle(
        &mut self,
        class: &str,
        (x, y): (f64, f64),
        (width, height): (f64, f64),
    ) {
        self.push(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="2"/>"#,
            width.max(0.0),
            height.max(0.0)
        ));
    }

    pub(in crate::bench::report) fn text(
        &mut self,
        class: &str,
        anchor: Anchor,
        (x, y): (f64, f64),
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.push(format_args!(
            r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#
        ));
    }

    pub(in crate::bench::report) fn size(&self) -> (f64, f64) {
        (self.width, self.height)
    }

    /// Another drawing with its upper left corner here.
    pub(in crate::bench::report) fn place(&mut self, other: &Svg, (x, y): (f64, f64)) {
        self.push(format_args!("<g transform=\"translate({x:.1} {y:.1})\">\n{}</g>", other.body));
    }

    /// For a page that has the rules of the classes. `label` is for those who cannot see it.
    pub(in crate::bench::report) fn inline(&self, label: &str) -> String {
        let (width, height, body, label) = (self.width, self.height, &self.body, escape(label));
        format!(
            "<svg class=\"plot\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>\n"
        )
    }

    /// For a file of its own: with the rules, and with a ground, since nobody knows what it will be shown on.
    pub(in crate::bench::report) fn standalone(&self, label: &str, rules: &str) -> String {
        let (width, height, body, label) = (self.width, self.height, &self.body, escape(label));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{label}\">\n<style>\n{rules}</style>\n\
             <rect class=\"ground\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n{body}</svg>\n",
            width - 1.0,
            height - 1.0
        )
    }

    fn push(&mut self, element: impl Display) {
        let _ = writeln!(self.body, "{element}");
    }
}

/// As many characters of `text` as there is room for; what is cut is marked.
pub(super) fn shortened(text: &str, max_characters: usize) -> String {
    if text.chars().count() <= max_characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max_characters.saturating_sub(1)).collect();
    format!("{}\u{2026}", kept.trim_end())
}

/// `text` between tags or quotes of SVG and HTML. What XML cannot hold at all is replaced.
pub(in crate::bench::report) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(character),
            control if control.is_control() || matches!(control, '\u{fffe}' | '\u{ffff}') => {
                out.push('\u{fffd}');
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::plot::well_formed;

    #[test]
    fn texts_are_escaped() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text("t", Anchor::Start, (1.0, 2.0), "a<b> & \"c\" 'd' \u{1}");
        let drawn = svg.standalone("<&\">", ".t{}\n");
        well_formed::check(&drawn).unwrap();
        assert!(drawn.contains("a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39; \u{fffd}"), "{drawn}");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shortened("as it is", 8), "as it is");
        assert_eq!(shortened("a bit longer", 7), "a bit\u{2026}");
    }

    #[test]
    fn a_path_needs_two_points_and_an_area_three() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.path("p", &[(1.0, 1.0)]);
        svg.area("a", &[(1.0, 1.0), (2.0, 2.0)]);
        assert!(svg.body.is_empty());
        svg.path("p", &[(1.0, 1.0), (2.25, 3.0)]);
        assert!(svg.body.contains("M1.0 1.0L2.2 3.0"), "{}", svg.body);
    }
}
