//! The table of all rows. Add new rows here.
//!
//! A row gives the calls, the contenders, the cores and the goal; the runner does the rest.

use std::time::Duration;

use super::contender::{Contender, MAX_CROWD, SMALL_MEMORY_BYTES};
use super::outcome::{Goal, Kind, Plot, Point};
use super::peers::Part;
use super::placement::Placement;
use super::protocol::{BATCH, CROWD_BATCH, Workload};

/// The time for the rounds of one row, all contenders together, unless the user sets the number of rounds.
const ROW_TIME: Duration = Duration::from_millis(2500);

/// The same for a row about batches. Its contenders are alike, so it needs fewer and shorter rounds.
const BATCH_ROW_TIME: Duration = Duration::from_millis(1500);

/// The same for a point of a plot.
const POINT_TIME: Duration = Duration::from_millis(600);

const MIB: u64 = 1 << 20;

/// The sizes of messages of the points that are no rows themselves.
const SWEPT_BYTES: [u64; 7] = [1 << 10, 16 << 10, 64 << 10, 256 << 10, 4 * MIB, 16 * MIB, 64 * MIB];

const SWEPT_IN_FLIGHT: [u64; 6] = [1, 2, 4, 16, 32, 128];

/// The calls of a round of many clients: several per client, so that the first and last few matter little.
const CROWD_MESSAGES: u64 = 6 * MAX_CROWD;

/// The memory that the server may use above its limit.
const MAX_MEMORY_ABOVE_MIB: u64 = 64;

/// One row of the report, or two for p50 and p99.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) measure: Measure,
    /// The payload of each message.
    pub(super) bytes: u64,
    pub(super) in_flight: u64,
    /// The number of client processes, each with `in_flight` calls open.
    pub(super) clients: usize,
    pub(super) entries: Vec<Entry>,
    /// The workload of peers, or `None` if they take no part.
    pub(super) peers: Option<Workload>,
    /// The peers that take part.
    pub(super) part: Part,
    pub(super) placement: Placement,
    /// The goals of the row, or of p50 and p99.
    pub(super) goals: [Option<Goal>; 2],
    /// The goal relative to the best peer, if that is a separate row beside the one relative to the ceiling.
    pub(super) goal_against_peers: Option<f64>,
    pub(super) point: Option<Point>,
    /// The time for all rounds.
    pub(super) time: Duration,
    /// The calls of a round, if the row fixes their number.
    pub(super) messages: Option<u64>,
    /// The calls of a round are a multiple of this: a peer that waits for full batches would wait for ever
    /// for the last one.
    pub(super) batch: u64,
}

/// A contender of this program in a row.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) contender: Contender,
    pub(super) kind: Kind,
    pub(super) workload: Workload,
    /// The name in the report.
    pub(super) label: &'static str,
}

/// The values of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Bytes of payload per second, in one direction.
    Throughput,
    CallsPerSecond,
    /// Two rows: the median and the 99th percentile of each round's calls.
    Latency,
    /// The peak memory of the server's process.
    Memory,
}

impl Row {
    fn new(name: impl Into<String>, measure: Measure, workload: Workload, bytes: u64) -> Row {
        Row {
            name: name.into(),
            measure,
            bytes,
            in_flight: 1,
            clients: 1,
            entries: vec![
                raw(Contender::Raw, workload),
                raw(Contender::RawSpinning, workload),
                ours(workload),
            ],
            peers: Some(workload),
            part: Part::Usual,
            placement: Placement::TwoCores,
            goals: [None; 2],
            goal_against_peers: None,
            point: None,
            time: ROW_TIME,
            messages: None,
            batch: 1,
        }
    }

    fn throughput(name: impl Into<String>, workload: Workload, bytes: u64) -> Row {
        Row::new(name, Measure::Throughput, workload, bytes)
    }

    fn calls(name: impl Into<String>, in_flight: u64) -> Row {
        Row::new(name, Measure::CallsPerSecond, Workload::Echo, 64).in_flight(in_flight)
    }

    fn latency(name: impl Into<String>, workload: Workload) -> Row {
        Row::new(name, Measure::Latency, workload, 1 << 10).at(Plot::Latency, 0)
    }

    fn in_flight(self, in_flight: u64) -> Row {
        Row { in_flight, ..self }
    }

    /// Sets the goal relative to the ceiling.
    fn goal(self, ratio: f64) -> Row {
        Row { goals: [Some(Goal::OfCeiling(ratio)), None], ..self }
    }

    fn goal_of_peers(self, ratio: f64) -> Row {
        Row { goals: [Some(Goal::OfBestPeer(ratio)), None], ..self }
    }

    fn placed(self, placement: Placement) -> Row {
        Row { placement, ..self }
    }

    fn at(self, plot: Plot, x: u64) -> Row {
        Row { point: Some(Point { plot, x: x as f64 }), ..self }
    }

    /// Removes the row from all plots.
    fn off_the_plot(self) -> Row {
        Row { point: None, ..self }
    }

    fn between(self, entries: Vec<Entry>) -> Row {
        Row { entries, ..self }
    }

    fn without_peers(self) -> Row {
        Row { peers: None, ..self }
    }

    /// Returns true for a point of a plot that is no row of a table. Peers take no part in these, which
    /// would double the time of a run; they are in the plots by the rows that have a goal.
    fn swept(self) -> Row {
        Row { time: POINT_TIME, ..self }.without_peers()
    }

    /// Returns true if the row can be measured between two machines. A process's memory cannot.
    pub(super) fn can_be_remote(&self) -> bool {
        self.measure != Measure::Memory
    }

    /// Returns true if the row says nothing without peers of this part.
    pub(super) fn needs(&self, part: Part) -> bool {
        self.part == part && part == Part::Spinning
    }

    /// Returns the names of the row or rows in the report.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = match self.measure {
            Measure::Latency => ["p50", "p99"].map(|part| format!("{}, {part}", self.name)).to_vec(),
            _ => vec![self.name.clone()],
        };
        names.extend(self.name_against_peers());
        names
    }

    /// Returns the name of the separate row about peers, if there is one.
    pub(super) fn name_against_peers(&self) -> Option<String> {
        self.goal_against_peers.map(|_| format!("{}, against peers that batch", self.name))
    }
}

/// Returns the entry of plain sockets. They wait in two ways; the better one of each row is its ceiling.
fn raw(contender: Contender, workload: Workload) -> Entry {
    // Plain sockets have no workers, so pools are compared with the plain round trip.
    let workload = if workload == Workload::Pool { Workload::Echo } else { workload };
    Entry { contender, kind: Kind::Ceiling, workload, label: "raw" }
}

fn ours(workload: Workload) -> Entry {
    Entry { contender: Contender::Teleport, kind: Kind::Teleport, workload, label: "teleport" }
}

/// Returns all rows over "tcp" or "unix", in the order of the report.
pub(super) fn all(transport: &str, large_mib: u64) -> Vec<Row> {
    let mut rows = large_rows();
    rows.extend(latency_rows(transport));
    rows.extend(small_rows(transport));
    if transport == "tcp" {
        rows.push(ucx_row());
    }
    rows.extend(batch_rows());
    rows.extend(beside_rows(large_mib));
    rows.push(memory_row());
    rows.extend(checksum_rows());
    rows.extend(sweeps());
    rows
}

fn large_rows() -> Vec<Row> {
    let base = Entry { label: "one array", kind: Kind::Ceiling, ..ours(Workload::Sink) };
    vec![
        Row::throughput("256 MiB argument, null result", Workload::Sink, 256 * MIB)
            .goal(0.95)
            .at(Plot::ThroughputOverSize, 256 * MIB),
        Row::throughput("null argument, 256 MiB result", Workload::Source, 256 * MIB).goal(0.95),
        Row::throughput("256 MiB echo, both ways", Workload::Echo, 256 * MIB).goal(0.9),
        Row::throughput("1 MiB arguments, 8 in flight", Workload::Sink, MIB).in_flight(8).goal(0.95),
        Row::throughput("1 MiB arguments, one at a time", Workload::Sink, MIB)
            .at(Plot::ThroughputOverSize, MIB),
        Row::throughput("64 KiB arguments, 16 in flight", Workload::Sink, 64 << 10).in_flight(16).goal(0.95),
        Row::throughput("dict of 64 arrays of 16 KiB, 8 in flight", Workload::Dict, MIB)
            .in_flight(8)
            .goal(0.9)
            .between(vec![base, ours(Workload::Dict)]),
    ]
}

/// Returns the goal of a transport. A Unix socket itself costs less, so that the same work above it is more
/// of the whole.
fn of(transport: &str, tcp: f64, unix: f64) -> f64 {
    if transport == "tcp" { tcp } else { unix }
}

fn latency_rows(transport: &str) -> Vec<Row> {
    let inline = |cores: &str| Row::latency(format!("1 KiB call, inline method, {cores}"), Workload::Echo);
    let pool = |cores: &str| Row::latency(format!("1 KiB call, pool of workers, {cores}"), Workload::Pool);
    let both = [of(transport, 1.2, 1.3), of(transport, 1.6, 1.8)].map(|most| Some(Goal::OfCeiling(most)));
    vec![
        Row { goals: both, ..inline("two cores") },
        inline("one core").placed(Placement::OneCore).off_the_plot().without_peers(),
        pool("two cores").goal(of(transport, 1.5, 1.8)),
        pool("one core").placed(Placement::OneCore).off_the_plot().without_peers(),
    ]
}

fn small_rows(transport: &str) -> Vec<Row> {
    let at = |row: Row, in_flight| row.at(Plot::CallsOverInFlight, in_flight);
    let four = Row::calls("64 B calls, 4 client processes, each 64 in flight", 64);
    vec![
        at(Row::calls("64 B calls, one client thread, 8 in flight", 8).goal_of_peers(1.2), 8),
        at(Row::calls("64 B calls, one client thread, 64 in flight", 64).goal_of_peers(1.8), 64),
        Row { clients: 4, ..four }.goal_of_peers(of(transport, 1.3, 1.6)).placed(Placement::Free),
    ]
}

/// A line to look at, without a goal: UCX, both sides of which never sleep. It has no Unix sockets.
fn ucx_row() -> Row {
    let row = Row::latency("1 KiB call, inline method, two cores, against UCX", Workload::Echo);
    Row { part: Part::Spinning, ..row.off_the_plot() }
}

/// Compares batched calls with the same function on the same worker, called for each call alone.
fn batch_rows() -> Vec<Row> {
    let rows = |name: String, measure, [alone, together]: [Workload; 2], bytes| {
        let label = if alone == Workload::KeepingPolicy { "one by one, 64 kept" } else { "one by one" };
        let base = Entry { label, kind: Kind::Ceiling, ..ours(alone) };
        let row = Row::new(name, measure, together, bytes).between(vec![base, ours(together)]);
        Row { time: BATCH_ROW_TIME, ..row }.without_peers()
    };
    let policy = [Workload::Policy, Workload::BatchedPolicy];
    // A batch has to hold its arguments. Calls of this size one by one would take turns in a memory that
    // stays in the cache, so they keep as many.
    let kept = [Workload::KeepingPolicy, Workload::BatchedPolicy];
    let source = [Workload::PoolSource, Workload::BatchedSource];
    let images = format!("batches of {BATCH}, arguments of 64x64x3 u8, 64 in flight");
    let images = rows(images, Measure::CallsPerSecond, policy, 64 * 64 * 3).in_flight(64).goal(0.7);
    let large = format!("batches of {BATCH}, arguments of 224x224x3 f32, 64 in flight");
    let results = format!("batches of {BATCH}, results of 256 KiB, 64 in flight");
    let one = rows(format!("1 KiB call, batch of up to {BATCH}"), Measure::Latency, policy, 1 << 10);
    vec![
        Row {
            peers: Some(Workload::BatchedPolicy),
            part: Part::Batches,
            goal_against_peers: Some(50.0),
            batch: BATCH as u64,
            ..images
        },
        rows(large, Measure::Throughput, kept, 224 * 224 * 3 * 4).in_flight(64).goal(0.95),
        rows(results, Measure::Throughput, source, 256 << 10).in_flight(64).goal(0.9),
        Row { goals: [Some(Goal::AboveCeiling(3.0)), None], ..one },
        crowd_row(),
    ]
}

fn crowd_row() -> Row {
    let workload = Workload::CrowdPolicy;
    let name = format!("{MAX_CROWD} clients, batches of {CROWD_BATCH}, arguments of 64x64x3 u8");
    let entries =
        vec![raw(Contender::RawCrowd, workload), raw(Contender::RawCrowdSpinning, workload), ours(workload)];
    let row = Row::new(name, Measure::CallsPerSecond, workload, 64 * 64 * 3).in_flight(MAX_CROWD).goal(0.9);
    Row { messages: Some(CROWD_MESSAGES), time: BATCH_ROW_TIME, ..row.between(entries).without_peers() }
}

/// Plain sockets have one stream of bytes, so there is no ceiling; the first row measures the call alone.
fn beside_rows(large_mib: u64) -> Vec<Row> {
    let bytes = large_mib * MIB;
    let alone = |name: String, workload| Row::latency(name, workload).between(vec![ours(workload)]);
    let beside = |kind: &str, workload, most_us: [f64; 2]| {
        let row = alone(format!("1 KiB call beside a {} {kind}", size(bytes)), workload);
        Row { bytes, goals: most_us.map(|most| Some(Goal::Most(most))), ..row }.at(Plot::Beside, bytes)
    };
    vec![
        alone("1 KiB call alone".to_owned(), Workload::Echo).at(Plot::Beside, 0),
        beside("argument", Workload::BesideArgument, [100.0, 700.0]),
        beside("result", Workload::BesideResult, [400.0, 1500.0]),
    ]
}

fn memory_row() -> Row {
    let budget_mib = SMALL_MEMORY_BYTES / MIB;
    let name = format!("16 x 256 MiB pipelined, server's peak memory (max_memory {budget_mib} MiB)");
    let entry = Entry { contender: Contender::TeleportSmall, ..ours(Workload::Sink) };
    let row = Row::new(name, Measure::Memory, Workload::Sink, 256 * MIB).in_flight(16).without_peers();
    let goal = Goal::Most((budget_mib + MAX_MEMORY_ABOVE_MIB) as f64);
    let row = Row { goals: [Some(goal), None], messages: Some(16), ..row };
    row.between(vec![entry])
}

/// Compares calls with a checksum of the payload with calls without one.
fn checksum_rows() -> Vec<Row> {
    let base = Entry { label: "without checksum", kind: Kind::Ceiling, ..ours(Workload::Sink) };
    let checked = Entry { contender: Contender::TeleportChecked, ..ours(Workload::Sink) };
    let row = |name: &str, bytes| {
        Row::throughput(name, Workload::Sink, bytes)
            .without_peers()
            .between(vec![base.clone(), checked.clone()])
    };
    vec![row("256 MiB argument with checksum", 256 * MIB), row("1 MiB argument with checksum", MIB)]
}

fn sweeps() -> Vec<Row> {
    let over_size = SWEPT_BYTES.map(|bytes| {
        Row::throughput(format!("{} argument", size(bytes)), Workload::Sink, bytes)
            .at(Plot::ThroughputOverSize, bytes)
            .swept()
    });
    let over_in_flight = SWEPT_IN_FLIGHT.map(|in_flight| {
        Row::calls(format!("64 B calls, {in_flight} in flight"), in_flight)
            .at(Plot::CallsOverInFlight, in_flight)
            .swept()
    });
    over_size.into_iter().chain(over_in_flight).collect()
}

/// Formats a size: "64 KiB", "1 GiB".
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_share_a_name() {
        let mut names: Vec<String> = all("tcp", 1024).iter().flat_map(Row::names).collect();
        assert!(names.contains(&"1 KiB call beside a 1 GiB argument, p99".to_owned()), "{names:?}");
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn transports_differ_in_their_goals() {
        let names = |transport| {
            let mut rows = all(transport, 256);
            rows.retain(|row| !row.needs(Part::Spinning));
            rows.iter().flat_map(Row::names).collect::<Vec<String>>()
        };
        assert_eq!(names("tcp"), names("unix"));
        let goals = |transport, part: &str| {
            let rows = all(transport, 256);
            rows.iter().find(|row| row.name.contains(part)).map(|row| row.goals).unwrap()
        };
        let inline = "inline method, two cores";
        assert_eq!(goals("tcp", inline), [1.2, 1.6].map(|most| Some(Goal::OfCeiling(most))));
        assert_eq!(goals("unix", inline), [1.3, 1.8].map(|most| Some(Goal::OfCeiling(most))));
        assert_eq!(goals("tcp", "4 client processes")[0], Some(Goal::OfBestPeer(1.3)));
        assert_eq!(goals("unix", "4 client processes")[0], Some(Goal::OfBestPeer(1.6)));
        assert_eq!(goals("tcp", "argument"), goals("unix", "argument"));
    }

    #[test]
    fn ceilings_stand_first() {
        for row in all("tcp", 256) {
            let kinds: Vec<Kind> = row.entries.iter().map(|entry| entry.kind).collect();
            assert!(kinds.is_sorted_by_key(|kind| *kind != Kind::Ceiling), "{}", row.name);
            assert_eq!(kinds.last(), Some(&Kind::Teleport), "{}", row.name);
        }
    }
}
