//! Invented measurements of every kind of row, with and without peers, for the tests of the report.

use super::About;
use crate::bench::outcome::{Compared, Contended, Goal, Kind, Outcome, Plot, Point, Unit};

/// Few, because the interval of each ratio takes time.
const ROUNDS: usize = 5;

/// Name, GB/s of large messages, microseconds of a call, calls per second with 64 in flight.
const CONTENDERS: [(&str, f64, f64, f64); 10] = [
    ("raw", 8.1, 11.0, 3.1e6),
    ("teleport", 7.9, 13.1, 1.6e6),
    ("zmq", 3.4, 41.0, 8.2e5),
    ("nng", 2.1, 36.0, 3.1e5),
    ("tonic", 0.9, 92.0, 1.3e5),
    ("tarpc", 0.6, 58.0, 1.9e5),
    ("connectrpc", 0.8, 96.0, 1.1e5),
    ("zenoh", 1.1, 74.0, 2.2e5),
    ("portal", 1.6, 140.0, 2.4e4),
    ("flight", 1.9, 310.0, 6.0e3),
];

pub(in crate::bench::report) fn raw(values: &[f64]) -> Contended {
    contended("raw", Kind::Ceiling, values)
}

pub(in crate::bench::report) fn teleport(values: &[f64]) -> Contended {
    contended("teleport", Kind::Teleport, values)
}

pub(in crate::bench::report) fn peer(name: &str, values: &[f64]) -> Contended {
    contended(name, Kind::Peer, values)
}

/// Returns a row over TCP without goal and place.
pub(in crate::bench::report) fn outcome(row: &str, unit: Unit, results: Vec<Contended>) -> Outcome {
    let row = row.to_owned();
    Outcome { row, transport: "tcp", unit, results, goal: None, point: None, compared: Compared::Pairs }
}

pub(in crate::bench::report) fn about() -> About {
    let facts = [
        ("CPU", "Invented Processor 9000 @ 3.0 GHz, 2 cores"),
        ("memory", "8 GiB"),
        ("kernel", "Linux 6.1.0-invented"),
        ("date", "2026-11-23 08:30 UTC"),
        ("commit", "0123456789ab"),
        ("compiler", "rustc 1.88.0"),
    ];
    About {
        facts: facts.map(|(name, fact)| (name.to_owned(), fact.to_owned())).to_vec(),
        notes: vec![
            "Too noisy to tell: 1 MiB arguments, 8 in flight over unix (ceiling spread 38 %).".to_owned(),
        ],
    }
}

/// Returns one row of each kind, with peers if `with_peers`.
pub(in crate::bench::report) fn outcomes(with_peers: bool) -> Vec<Outcome> {
    let mut all = Vec::new();
    for transport in ["tcp", "unix"] {
        all.extend(rows_with_goals(transport).into_iter().map(|outcome| Outcome { transport, ..outcome }));
        all.extend(sweeps().into_iter().map(|outcome| Outcome { transport, ..outcome }));
    }
    let build = outcome("cold build of the facade", Unit::Seconds, vec![teleport(&[21.4])]);
    all.push(Outcome { transport: "", goal: Some(Goal::Most(30.0)), ..build });
    if !with_peers {
        all.iter_mut().for_each(|outcome| outcome.results.retain(|one| one.kind != Kind::Peer));
    }
    all
}

fn rows_with_goals(transport: &str) -> Vec<Outcome> {
    let throughput = |row: &str, part: f64, goal| {
        let results = all(|(_, speed, ..), is_ceiling| speed * if is_ceiling { 1.0 } else { part });
        Outcome { goal: Some(Goal::OfCeiling(goal)), ..outcome(row, Unit::GBs, results) }
    };
    let latency = |row: &str, factor: f64, goal| {
        let results = all(|(_, _, time, _), _| time * factor);
        let point = Some(Point { plot: Plot::Latency, x: 0.0 });
        Outcome { goal: Some(Goal::OfCeiling(goal)), point, ..outcome(row, Unit::Micros, results) }
    };
    let small = |row: &str, in_flight: f64, goal| {
        let results = all(|(_, _, _, calls), _| calls * in_flight / 64.0);
        Outcome { goal: Some(Goal::OfBestPeer(goal)), ..outcome(row, Unit::CallsPerSecond, results) }
    };
    let mut rows = vec![
        throughput("256 MiB argument, null result", 1.0, 0.95),
        throughput("null argument, 256 MiB result", 0.97, 0.95),
        throughput("256 MiB echo, both ways", 0.8, 0.9),
        throughput("1 MiB arguments, 8 in flight", 0.975, 0.95),
        latency("1 KiB call, inline method, p50", 1.0, 1.25),
        latency("1 KiB call, inline method, p99", 2.7, 1.5),
        small("64 B calls, one client thread, 8 in flight", 20.0, 1.2),
        small("64 B calls, one client thread, 64 in flight", 64.0, 1.5),
    ];
    for (beside, x, factor) in
        [("alone", 0.0, 1.0), ("beside a 1 GiB argument", 1e9, 31.0), ("beside a 1 GiB result", 1e9, 17.0)]
    {
        for (part, factor) in [("p50", factor), ("p99", factor * 3.1)] {
            let results = all(|(_, _, time, _), _| time * factor)
                .into_iter()
                .filter(|one| one.kind != Kind::Ceiling)
                .collect();
            let goal = (part == "p99" && x > 0.0).then_some(Goal::Most(3000.0));
            let point = Some(Point { plot: Plot::Beside, x });
            let row = format!("1 KiB call {beside}, {part}");
            rows.push(Outcome { goal, point, ..outcome(&row, Unit::Micros, results) });
        }
    }
    let memory = outcome("16 x 256 MiB pipelined, peak memory", Unit::MiB, vec![teleport(&[1041.0])]);
    rows.push(Outcome { goal: Some(Goal::Most(1088.0)), ..memory });
    if transport == "unix" {
        rows.retain(|row| !row.row.contains("echo"));
    }
    rows
}

fn sweeps() -> Vec<Outcome> {
    let sizes =
        [1 << 10, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28].map(f64::from);
    let over_size = sizes.map(|bytes| {
        let results = all(|(_, speed, time, _), _| bytes / 1e9 / (time / 1e6 + bytes / 1e9 / speed));
        let point = Some(Point { plot: Plot::ThroughputOverSize, x: bytes });
        Outcome { point, ..outcome(&format!("{bytes} B argument"), Unit::GBs, results) }
    });
    let over_in_flight = [1, 2, 4, 8, 16, 32, 64, 128].map(f64::from).map(|in_flight| {
        let results = all(|(_, _, time, calls), _| calls * in_flight / (in_flight + calls * time / 1e6));
        let point = Some(Point { plot: Plot::CallsOverInFlight, x: in_flight });
        Outcome {
            point,
            ..outcome(&format!("64 B calls, {in_flight} in flight"), Unit::CallsPerSecond, results)
        }
    });
    over_size.into_iter().chain(over_in_flight).collect()
}

/// Returns all contenders with rounds around the value that `value` returns for each.
fn all(value: impl Fn((&str, f64, f64, f64), bool) -> f64) -> Vec<Contended> {
    let kind_of = |index| match index {
        0 => Kind::Ceiling,
        1 => Kind::Teleport,
        _ => Kind::Peer,
    };
    let rounds = CONTENDERS.iter().enumerate().map(|(index, contender)| {
        let kind = kind_of(index);
        let middle = value(*contender, kind == Kind::Ceiling);
        let around =
            |round: usize| middle * (1.0 + 0.02 * ((round * 7 + index * 3) % 11) as f64 / 10.0 - 0.01);
        let values: Vec<f64> = (0..ROUNDS).map(around).collect();
        Contended { latencies_us: latencies(middle), ..contended(contender.0, kind, &values) }
    });
    rounds.collect()
}

/// Returns a sorted sample with a long tail.
fn latencies(middle: f64) -> Vec<f64> {
    let rank = |call: i32| (f64::from(call) + 0.5) / 2000.0;
    (0..2000).map(|call| middle * (0.8 + 0.2 * rank(call) / (1.0 - rank(call)).powf(0.45))).collect()
}

fn contended(name: &str, kind: Kind, values: &[f64]) -> Contended {
    let settings = format!("{name} 1.2.3, invented settings");
    Contended {
        contender: name.to_owned(),
        kind,
        values: values.to_vec(),
        latencies_us: Vec::new(),
        settings,
    }
}
