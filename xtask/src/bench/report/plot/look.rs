//! How contenders look, the same in every plot: name, colour and marker; and the rules of all classes.
//!
//! Teleport is the one thick line, the ceiling grey and dashed. Each peer has a colour of its own that keeps a contrast of at
//! least 3 to the ground in light and dark, and a marker, so that nobody needs the colour to tell them apart.

use std::fmt::Write;

use super::svg::Svg;
use crate::bench::outcome::{Contended, Kind};

/// How one contender looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench::report) struct Look {
    /// Ends the names of its classes: `s-` for strokes, `f-` for fills, `b-` for bands.
    pub(in crate::bench::report) class: &'static str,
    marker: Marker,
    light: &'static str,
    dark: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Circle,
    Square,
    Diamond,
    Up,
    Down,
}

const fn look(class: &'static str, marker: Marker, light: &'static str, dark: &'static str) -> Look {
    Look { class, marker, light, dark }
}

const CEILING: Look = look("ceiling", Marker::Circle, "#6b7280", "#9aa4b2");
const TELEPORT: Look = look("teleport", Marker::Circle, "#d9480f", "#ff8a4c");

/// Peers by their names in the protocol.
const PEERS: [(&str, Look); 6] = [
    ("zmq", look("zmq", Marker::Square, "#0072b2", "#5fb0f0")),
    ("nng", look("nng", Marker::Diamond, "#117733", "#4fc26b")),
    ("tonic", look("tonic", Marker::Up, "#aa4499", "#e08ad0")),
    ("tarpc", look("tarpc", Marker::Down, "#0f8a96", "#4fd0dc")),
    ("portal", look("portal", Marker::Square, "#85700a", "#d6c24a")),
    ("flight", look("flight", Marker::Diamond, "#332288", "#a79bff")),
];

/// Contenders that nobody has given a look yet, and Teleport's own variants, share these.
const OTHERS: [Look; 3] = [
    look("other0", Marker::Up, "#882255", "#f08aa8"),
    look("other1", Marker::Down, "#5b6f00", "#b6cf5a"),
    look("other2", Marker::Square, "#8b4a2b", "#d9a78a"),
];

impl Look {
    pub(in crate::bench::report) fn of(contended: &Contended) -> Look {
        match contended.kind {
            Kind::Ceiling => CEILING,
            Kind::Teleport => TELEPORT,
            Kind::Peer => Look::of_peer(&contended.contender),
        }
    }

    fn of_peer(name: &str) -> Look {
        let name = name.to_lowercase();
        let known = match name.as_str() {
            "zeromq" => "zmq",
            "arrow flight" | "arrow-flight" => "flight",
            other => other,
        };
        let other = OTHERS[name.bytes().map(usize::from).sum::<usize>() % OTHERS.len()];
        PEERS.iter().find(|(peer, _)| *peer == known).map_or(other, |(_, look)| *look)
    }

    /// A filled mark at this place.
    pub(super) fn mark(&self, svg: &mut Svg, (x, y): (f64, f64), size: f64) {
        let class = format!("f-{}", self.class);
        let corners: &[(f64, f64)] = match self.marker {
            Marker::Circle => return svg.circle(&class, (x, y), size),
            Marker::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Marker::Diamond => &[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
            Marker::Up => &[(0.0, -1.2), (1.2, 0.9), (-1.2, 0.9)],
            Marker::Down => &[(0.0, 1.2), (1.2, -0.9), (-1.2, -0.9)],
        };
        let corners: Vec<(f64, f64)> =
            corners.iter().map(|(dx, dy)| (x + dx * size, y + dy * size)).collect();
        svg.area(&class, &corners);
    }

    /// A sample of line and mark, for a legend.
    pub(in crate::bench::report) fn swatch(&self) -> String {
        let mut svg = Svg::new(28.0, 14.0);
        svg.path(&format!("s-{}", self.class), &[(2.0, 7.0), (26.0, 7.0)]);
        if *self != CEILING {
            self.mark(&mut svg, (14.0, 7.0), 3.2);
        }
        svg.inline("").replacen("class=\"plot\"", "class=\"plot swatch\"", 1)
    }
}

/// What a contender is called for readers.
pub(in crate::bench::report) fn name(contended: &Contended) -> String {
    let name = match contended.contender.as_str() {
        "raw" => "raw sockets",
        "teleport" => "Teleport",
        "zmq" => "ZeroMQ",
        "flight" => "Arrow Flight",
        other => other,
    };
    name.to_owned()
}

/// The rules of every class, dark ones where the reader prefers dark. Colours stand in them as they are, since not every
/// program that shows SVG knows variables.
pub(in crate::bench::report) fn rules() -> String {
    let looks = [CEILING, TELEPORT].into_iter().chain(PEERS.map(|(_, look)| look)).chain(OTHERS);
    let (mut light, mut dark) = (String::from(FIXED_RULES), String::new());
    for Look { class, light: day, dark: night, .. } in looks {
        colour(&mut light, class, day);
        colour(&mut dark, class, night);
    }
    light.push_str(LIGHT_RULES);
    dark.push_str(DARK_RULES);
    format!("{light}@media (prefers-color-scheme:dark){{\n{dark}}}\n")
}

fn colour(rules: &mut String, class: &str, colour: &str) {
    let _ = writeln!(
        rules,
        ".s-{class},.h-{class}{{stroke:{colour}}} .plot .f-{class},.b-{class}{{fill:{colour}}}"
    );
}

const FIXED_RULES: &str = "\
.plot text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:13px}
.plot .title{font-size:15px;font-weight:650}
.plot .heading{font-size:18px;font-weight:700}
.plot .tick{font-size:12.5px;font-variant-numeric:tabular-nums}
.plot .label{font-size:13px}
.plot .halo{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}
.plot .ours{font-weight:700}
[class^='s-']{fill:none;stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}
[class^='b-']{opacity:.14}
[class^='h-']{stroke-width:1.7}
.s-teleport,.h-teleport{stroke-width:3}
.s-ceiling{stroke-width:2;stroke-dasharray:5 4}
.axis{stroke-width:1}
.grid{stroke-width:1}
.leader{fill:none;stroke-width:.8}
.goal{stroke-width:1.3;stroke-dasharray:2 3}
.mark{stroke-width:1.6}
";

const LIGHT_RULES: &str = "\
.plot .halo{stroke:#fff} .ground,[class^='h-']{fill:#fff} .ground{stroke:#d8dce3}
.plot text{fill:#1c2430} .plot .tick,.plot .quiet{fill:#566070}
.axis{stroke:#8a93a1} .grid{stroke:#e6e9ee} .leader{stroke:#a9b0bb} .goal,.mark{stroke:#1c2430}
.budget{fill:#e6e9ee}
";

const DARK_RULES: &str = "\
.plot .halo{stroke:#14181f} .ground,[class^='h-']{fill:#14181f} .ground{stroke:#2f3642}
.plot text{fill:#e8ecf2} .plot .tick,.plot .quiet{fill:#a3adba}
.axis{stroke:#6b7583} .grid{stroke:#262d37} .leader{stroke:#5a6472} .goal,.mark{stroke:#e8ecf2}
.budget{fill:#2a313c}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::fixture::{peer, raw, teleport};

    /// Relative luminance of `#rrggbb`, as WCAG defines it.
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn every_colour_can_be_seen_on_its_ground() {
        for look in [CEILING, TELEPORT].into_iter().chain(PEERS.map(|(_, look)| look)).chain(OTHERS) {
            assert!(contrast(look.light, "#ffffff") >= 4.0, "{look:?}");
            assert!(contrast(look.dark, "#14181f") >= 4.5, "{look:?}");
        }
    }

    #[test]
    fn contenders_keep_their_look() {
        assert_eq!(Look::of(&raw(&[])), CEILING);
        assert_eq!(Look::of(&teleport(&[])), TELEPORT);
        assert_eq!(Look::of(&peer("ZeroMQ", &[])), Look::of(&peer("zmq", &[])));
        assert_eq!(Look::of(&peer("somebody new", &[])), Look::of(&peer("somebody new", &[])));
        assert!(OTHERS.contains(&Look::of(&peer("somebody new", &[]))));
    }
}
