//! `cargo xtask bench`: what Teleport reaches of the machine's own limit, measured side by side in one run.
//!
//! Flow: for each row, a server process a contender -> many short rounds that alternate between contenders, so that a
//! machine that slows down slows both -> ratios pair by pair -> a table, a page with plots in `target/bench`, and a JSON
//! file where asked for.
//! Most rows compare with plain sockets; others compare Teleport with itself, for what a checksum or a large message at the
//! side of small ones costs.
//! Absolute numbers change from run to run; the ratios are what to read.

mod contender;
mod fairness;
mod idle;
mod outcome;
mod protocol;
mod raw;
mod report;
mod stats;

use std::time::Instant;

use clap::{Args, Subcommand};

use self::contender::{Answer, Contender, Who};
pub(crate) use self::idle::{IdleOptions, PartyOptions, run_party};
use self::outcome::{Contended, Kind, Outcome, Plot, Point, Unit};
use self::report::{About, Report};
use crate::child;
use crate::failure::Failure;

/// Measure Teleport against the machine's own limit.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Only rows whose name contains this
    #[arg(long)]
    row: Option<String>,
    /// Pairs of rounds for each row
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// MiB of the large message beside which small calls are made
    #[arg(long, default_value_t = 256)]
    large_mib: usize,
    /// Also write the results to this file
    #[arg(long)]
    json: Option<std::path::PathBuf>,
}

/// What is measured in another way than the rows.
#[derive(Debug, Subcommand)]
enum Other {
    Idle(IdleOptions),
}

/// A server process of the benchmark; not for users.
#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    who: Who,
    address: String,
    core: usize,
}

/// What one row measures.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    measure: Measure,
    /// The second is compared with the first.
    contenders: [Who; 2],
    /// Payload of each message.
    bytes: usize,
    answer: Answer,
    /// Messages in one round.
    messages: usize,
    /// The ratio that is to be reached.
    goal: Option<f64>,
    cores: Cores,
}

/// Where client and server run. Left to itself, the scheduler puts some pairs on one core and others on two, and a wake-up
/// of an idle core takes many times as long as a call: then contenders differ by luck. So each row says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cores {
    /// Both on the first core: nothing but instructions and changes of threads.
    One,
    /// A core each, which is idle while the other works.
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Bytes a second of a whole round: more is better.
    Throughput,
    /// The median time of a call: less is better.
    Latency,
}

const ROWS: [Row; 8] = [
    Row::throughput("256 MiB argument, null result", 256 << 20, 2),
    Row::throughput("1 MiB argument, null result", 1 << 20, 200),
    Row::latency("1 KiB call, inline method, p50, one core", Answer::Same, 2.0, Cores::One),
    Row::latency("1 KiB call, inline method, p50, two cores", Answer::Same, 2.0, Cores::Two),
    Row::latency("1 KiB call, pool of workers, p50, one core", Answer::SameFromPool, 3.0, Cores::One),
    Row::latency("1 KiB call, pool of workers, p50, two cores", Answer::SameFromPool, 3.0, Cores::Two),
    Row::throughput("256 MiB argument with checksum", 256 << 20, 2).of_checksum(),
    Row::throughput("1 MiB argument with checksum", 1 << 20, 200).of_checksum(),
];

const RAW_AND_OURS: [Who; 2] = [Who::Raw, Who::Teleport];

impl Row {
    const fn throughput(name: &'static str, bytes: usize, messages: usize) -> Row {
        let (measure, answer, cores) = (Measure::Throughput, Answer::Nothing, Cores::Two);
        Row { name, measure, contenders: RAW_AND_OURS, bytes, answer, messages, goal: Some(0.8), cores }
    }

    /// The same, of what a checksum of the payload costs.
    const fn of_checksum(self) -> Row {
        Row { contenders: [Who::Teleport, Who::Checked], goal: None, ..self }
    }

    const fn latency(name: &'static str, answer: Answer, goal: f64, cores: Cores) -> Row {
        let (measure, goal) = (Measure::Latency, Some(goal));
        Row { name, measure, contenders: RAW_AND_OURS, bytes: 1 << 10, answer, messages: 1000, goal, cores }
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if let Some(Other::Idle(options)) = &options.other {
        return idle::run(options);
    }
    if cfg!(debug_assertions) {
        return again_optimized();
    }
    pin_to_core(0)?;
    let chosen = |name: &str| options.row.as_ref().is_none_or(|part| name.contains(part));
    let mut outcomes: Vec<Outcome> = Vec::new();
    for transport in ["tcp", "ipc"] {
        for row in ROWS.iter().filter(|row| chosen(row.name)) {
            eprintln!("measuring: {} over {transport} …", row.name);
            outcomes.push(measure(row, transport, options.rounds)?);
        }
        for direction in fairness::Direction::ALL.into_iter().filter(|d| d.rows().into_iter().any(chosen)) {
            eprintln!("measuring: {} over {transport} …", direction.rows()[0]);
            let (address, large_bytes) = (address(transport, Who::Teleport), options.large_mib << 20);
            let both = fairness::measure(direction, transport, &address, large_bytes, options.rounds)?;
            outcomes.extend(both.into_iter().filter(|outcome| chosen(&outcome.row)));
        }
    }
    let about = About::default();
    let report = Report::new(&about, &outcomes);
    print!("{}", report.table());
    let page = report.write(std::path::Path::new("target/bench"))?;
    println!("page: {}", page.display());
    match &options.json {
        Some(path) => std::fs::write(path, report.json()).map_err(Failure::file(path)),
        None => Ok(()),
    }
}

pub(crate) fn run_server(options: &ServerOptions) -> Result<(), Failure> {
    child::follow_parent()?;
    pin_to_core(options.core)?;
    contender::serve(options.who, &options.address).map_err(Failure::bench)
}

/// Keeps this thread, and all that it starts, on one core.
fn pin_to_core(core: usize) -> Result<(), Failure> {
    let mut set = nix::sched::CpuSet::new();
    set.set(core).map_err(Failure::bench)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).map_err(Failure::bench)
}

/// `cargo xtask` is built without optimisation; what is measured must be built with it.
fn again_optimized() -> Result<(), Failure> {
    let arguments = std::env::args_os().skip(1);
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--release", "--package", "xtask", "--"]).args(arguments);
    let status = command.status().map_err(Failure::bench)?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Command { command: "cargo xtask bench".into(), status })
    }
}

/// Where a contender's server listens.
fn address(transport: &str, who: Who) -> String {
    match transport {
        "tcp" => "tcp://127.0.0.1:0".to_owned(),
        // No file is left of it.
        _ => format!("ipc://@teleport-bench-{}-{who:?}", std::process::id()),
    }
}

fn measure(row: &Row, transport: &'static str, rounds: usize) -> Result<Outcome, Failure> {
    let start = |who| Contender::start(who, &address(transport, who), row.cores);
    let [base, other] = row.contenders.map(start);
    let (mut base, mut other) = (base?, other?);
    let (mut of_base, mut of_other) = (Rounds::default(), Rounds::default());
    for contender in [&mut base, &mut other] {
        round(row, contender)?; // memory gets warm
    }
    for number in 0..rounds {
        // Who goes first changes, in case that it matters.
        if number % 2 == 0 {
            of_base.add(row, round(row, &mut base)?);
            of_other.add(row, round(row, &mut other)?);
        } else {
            of_other.add(row, round(row, &mut other)?);
            of_base.add(row, round(row, &mut base)?);
        }
    }
    let [base, other] = row.contenders.map(Who::name);
    let point = (row.measure == Measure::Latency).then_some(Point { plot: Plot::Latency, x: 0.0 });
    Ok(Outcome {
        row: row.name.to_owned(),
        transport: transport_name(transport),
        unit: if row.measure == Measure::Latency { Unit::Micros } else { Unit::GBs },
        results: vec![of_base.contended(base, Kind::Ceiling), of_other.contended(other, Kind::Teleport)],
        goal: row.goal.map(outcome::Goal::OfCeiling),
        point,
    })
}

/// What tables call the transport of an address.
fn transport_name(scheme: &str) -> &'static str {
    if scheme == "tcp" { "tcp" } else { "unix" }
}

/// The rounds of one contender.
#[derive(Default)]
struct Rounds {
    values: Vec<f64>,
    latencies_us: Vec<f64>,
}

impl Rounds {
    /// Gigabytes a second, or the median in microseconds, of one round.
    fn add(&mut self, row: &Row, (elapsed, times): (f64, Vec<f64>)) {
        match row.measure {
            Measure::Throughput => self.values.push((row.messages * row.bytes) as f64 / 1e9 / elapsed),
            Measure::Latency => {
                self.values.push(stats::median(&times));
                self.latencies_us.extend(times);
            }
        }
    }

    fn contended(mut self, name: &str, kind: Kind) -> Contended {
        self.latencies_us.sort_by(f64::total_cmp);
        let step = self.latencies_us.len().div_ceil(2000).max(1);
        let latencies_us = self.latencies_us.into_iter().step_by(step).collect();
        let settings = format!("version {}", env!("CARGO_PKG_VERSION"));
        Contended { contender: name.to_owned(), kind, values: self.values, latencies_us, settings }
    }
}

/// Seconds of one round, and microseconds of each call.
fn round(row: &Row, contender: &mut Contender) -> Result<(f64, Vec<f64>), Failure> {
    let mut times = Vec::with_capacity(row.messages);
    let start = Instant::now();
    for _ in 0..row.messages {
        let call = Instant::now();
        contender.call(row.bytes, row.answer)?;
        times.push(call.elapsed().as_secs_f64() * 1e6);
    }
    Ok((start.elapsed().as_secs_f64(), times))
}
