//! `cargo xtask bench`: measures Teleport against the limit of the machine and against other libraries.
//!
//! Flow: `rows` says what is measured -> for each row, `runner` starts a server and a client process per
//! contender (`pair`, which speaks `protocol`), and they do many short rounds in turn, more of them if
//! `again` asks for it -> `outcome` -> `report` judges the rounds pair by pair and writes a table, a page
//! with plots in `target/bench`, and a JSON file on request.
//!
//! Absolute numbers change from run to run, so read the ratios. `BENCHMARKING.md` says how.

mod again;
mod build;
mod contender;
mod idle;
mod outcome;
mod pair;
mod peak;
mod peers;
mod placement;
mod progress;
mod protocol;
mod remote;
mod report;
mod rows;
mod runner;
mod stats;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::again::Remarks;
pub(crate) use self::contender::{ContenderOptions, run_client, run_server};
pub(crate) use self::idle::{IdleOptions, PartyOptions, run_party};
use self::outcome::Outcome;
use self::pair::{Place, Program};
use self::peers::Part;
use self::progress::Progress;
use self::report::{About, Report};
use self::rows::Row;
use self::runner::Runner;
use crate::failure::Failure;
use crate::shell;

/// Measure Teleport against the limit of the machine and against other libraries.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Only the rows whose name contains this
    #[arg(long)]
    row: Option<String>,
    /// Rounds of each contender in each row, instead of as many as fit into the row's time. A row whose
    /// verdict is unclear gets as many again, up to three times this number
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    rounds: Option<u64>,
    /// MiB of the large message beside which small calls are made
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    large_mib: u64,
    /// Also build and measure the peers
    #[arg(long)]
    peers: bool,
    /// Start the servers for a run with --connect on another machine of a trusted network; HOST:PORT
    #[arg(long, value_name = "ADDRESS", conflicts_with = "connect")]
    serve: Option<String>,
    /// Measure over TCP to the machine where --serve runs; HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<String>,
    /// Also write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Measurements that are not rows.
#[derive(Debug, Subcommand)]
enum Other {
    Idle(IdleOptions),
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if let Some(Other::Idle(options)) = &options.other {
        return idle::run(options);
    }
    if cfg!(debug_assertions) {
        return again_optimized();
    }
    if let Some(address) = &options.serve {
        let peers = if options.peers { peers::available()?.ready } else { Vec::new() };
        return remote::serve(address, peers.iter().map(Program::peer).collect());
    }
    let mut about = About { facts: report::facts(), notes: Vec::new() };
    let outcomes = measure(options, &mut about)?;
    show(options, &about, &outcomes)
}

/// Measures all chosen rows over each transport.
fn measure(options: &Options, about: &mut About) -> Result<Vec<Outcome>, Failure> {
    let mut peers = peers::Peers::default();
    if options.peers {
        peers = peers::available()?;
        about.notes.append(&mut peers.missing);
    }
    let place = match &options.connect {
        Some(address) => Place::There(remote::plain(address).to_owned()),
        None => Place::Here,
    };
    let is_remote = place != Place::Here;
    let link =
        if is_remote { "between two machines; the facts are the client's" } else { "within this machine" };
    about.facts.push(("link".to_owned(), link.to_owned()));
    let mut runner = Runner {
        place,
        rounds: options.rounds.map(|rounds| rounds as usize),
        peers: peers.ready.iter().map(Program::peer).collect(),
        notes: Vec::new(),
        remarks: Remarks::default(),
    };
    let transports = if is_remote { &["tcp"][..] } else { &["tcp", "unix"] };
    let chosen = |name: &String| options.row.as_ref().is_none_or(|part| name.contains(part));
    let has_ucx = peers.ready.iter().any(|peer| peer.part == Part::Spinning);
    let mut rows = Vec::new();
    for &transport in transports {
        let of_transport = rows::all(transport, options.large_mib).into_iter();
        let asked = |row: &Row| {
            row.names().iter().any(chosen)
                && (!is_remote || row.can_be_remote())
                && (has_ucx || !row.needs(Part::Spinning))
        };
        rows.extend(of_transport.filter(asked).map(|row| (row, transport)));
    }
    let builds = !is_remote && build::ROWS.iter().any(|name| chosen(&(*name).to_owned()));
    let mut progress = Progress::of(rows.len() + usize::from(builds));
    let mut outcomes = Vec::new();
    for (row, transport) in &rows {
        progress.next(&format!("{} over {transport}", row.name));
        outcomes.extend(runner.measure(row, transport)?.into_iter().filter(|one| chosen(&one.row)));
    }
    if builds {
        progress.next(build::ROWS[0]);
        outcomes.extend(build::measure()?.into_iter().filter(|one| chosen(&one.row)));
    }
    about.notes.append(&mut runner.notes);
    about.notes.append(&mut runner.remarks.notes());
    Ok(outcomes)
}

fn show(options: &Options, about: &About, outcomes: &[Outcome]) -> Result<(), Failure> {
    let report = Report::new(about, outcomes);
    // The files come first: a pipe that reads the table may be closed early.
    let page = report.write(&shell::target().join("bench"))?;
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).map_err(Failure::file(path))?;
    }
    print!("{}", report.table());
    println!("page: {}", page.display());
    Ok(())
}

/// Runs this command in a build with optimization, which `cargo xtask` has not.
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
