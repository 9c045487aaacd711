//! `cargo xtask bench`: what Teleport reaches of the machine's own limit, measured side by side in one run.
//!
//! Flow: for each row, a server process a contender -> many short rounds that alternate between contenders, so that a
//! machine that slows down slows both -> ratios pair by pair -> a table, and a JSON file where asked for.
//! Absolute numbers change from run to run; the ratios are what to read.

mod contender;
mod idle;
mod raw;
mod report;
mod stats;

use std::time::Instant;

use clap::{Args, Subcommand};

use self::contender::{Answer, Contender, Who};
pub(crate) use self::idle::{IdleOptions, PartyOptions, run_party};
use self::report::Outcome;
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
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) measure: Measure,
    /// Payload of each message.
    bytes: usize,
    answer: Answer,
    /// Messages in one round.
    messages: usize,
    /// The ratio to the raw socket that is to be reached.
    pub(super) goal: f64,
    pub(super) cores: Cores,
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

const ROWS: [Row; 6] = [
    Row::throughput("256 MiB argument, null result", 256 << 20, 2),
    Row::throughput("1 MiB argument, null result", 1 << 20, 200),
    Row::latency("1 KiB call, inline method, p50, one core", Answer::Same, 2.0, Cores::One),
    Row::latency("1 KiB call, inline method, p50, two cores", Answer::Same, 2.0, Cores::Two),
    Row::latency("1 KiB call, pool of workers, p50, one core", Answer::SameFromPool, 3.0, Cores::One),
    Row::latency("1 KiB call, pool of workers, p50, two cores", Answer::SameFromPool, 3.0, Cores::Two),
];

impl Row {
    const fn throughput(name: &'static str, bytes: usize, messages: usize) -> Row {
        let (measure, answer, cores) = (Measure::Throughput, Answer::Nothing, Cores::Two);
        Row { name, measure, bytes, answer, messages, goal: 0.8, cores }
    }

    const fn latency(name: &'static str, answer: Answer, goal: f64, cores: Cores) -> Row {
        Row { name, measure: Measure::Latency, bytes: 1 << 10, answer, messages: 1000, goal, cores }
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
    let folder = std::env::temp_dir();
    let mut outcomes = Vec::new();
    for transport in ["tcp", "ipc"] {
        for row in ROWS.iter().filter(|row| options.row.as_ref().is_none_or(|name| row.name.contains(name))) {
            eprintln!("measuring: {} over {transport} …", row.name);
            let address = |who: Who| match transport {
                "tcp" => "tcp://127.0.0.1:0".to_owned(),
                _ => format!("ipc://{}/teleport-bench-{}-{who:?}", folder.display(), std::process::id()),
            };
            outcomes.push(measure(row, transport, &address, options.rounds)?);
        }
    }
    report::print(&outcomes);
    match &options.json {
        Some(path) => std::fs::write(path, report::json(&outcomes)).map_err(Failure::file(path)),
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

fn measure(
    row: &Row,
    transport: &'static str,
    address: &dyn Fn(Who) -> String,
    rounds: usize,
) -> Result<Outcome, Failure> {
    let mut raw = Contender::start(Who::Raw, &address(Who::Raw), row.cores)?;
    let mut teleport = Contender::start(Who::Teleport, &address(Who::Teleport), row.cores)?;
    let (mut raw_values, mut teleport_values) = (Vec::new(), Vec::new());
    for contender in [&mut raw, &mut teleport] {
        round(row, contender)?; // memory gets warm
    }
    for number in 0..rounds {
        // Who goes first changes, in case that it matters.
        if number % 2 == 0 {
            raw_values.push(round(row, &mut raw)?);
            teleport_values.push(round(row, &mut teleport)?);
        } else {
            teleport_values.push(round(row, &mut teleport)?);
            raw_values.push(round(row, &mut raw)?);
        }
    }
    for who in [Who::Raw, Who::Teleport] {
        if let Some(path) = address(who).strip_prefix("ipc://") {
            // A Teleport server that was killed leaves its socket file, and so does a raw one.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(Outcome { row: *row, transport, raw: raw_values, teleport: teleport_values })
}

/// Gigabytes a second, or the median in microseconds, of one round.
fn round(row: &Row, contender: &mut Contender) -> Result<f64, Failure> {
    let mut times = Vec::with_capacity(row.messages);
    let start = Instant::now();
    for _ in 0..row.messages {
        let call = Instant::now();
        contender.call(row.bytes, row.answer)?;
        times.push(call.elapsed().as_secs_f64() * 1e6);
    }
    Ok(match row.measure {
        Measure::Throughput => (row.messages * row.bytes) as f64 / 1e9 / start.elapsed().as_secs_f64(),
        Measure::Latency => stats::median(&times),
    })
}
