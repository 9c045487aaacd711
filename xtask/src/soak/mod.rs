//! `cargo xtask soak`: searches for failures that are rare or need a long time.
//!
//! [`churn`] runs a server for a long time while its clients are stopped and killed. [`repeat`] runs the
//! integration tests again and again on a busy machine.

mod churn;
mod repeat;

use std::time::Duration;

pub(crate) use churn::{ClientOptions, ServerOptions, run_client, run_server};

use crate::failure::Failure;

/// Disturb a server for a long time, then repeat the integration tests under load.
///
/// Half of the time goes to a churn: client processes call one server process, over TCP and a Unix socket.
/// They are stopped, killed in the middle of large messages, and replaced. Both sides check every payload.
/// Clients that are not disturbed must not fail. At the end, the server's memory, descriptors and threads
/// must be what they were after the warm-up.
///
/// In the other half, the test programs of one package run one after the other while threads keep every core
/// busy. Each run has its own seed (TELEPORT_TEST_SEED, PROPTEST_RNG_SEED). If a run fails, its seed is
/// printed with the command that repeats it. Such a failure is a race, a timeout that is too short, or a bug
/// that only some seeds show.
///
/// After both, the tests of processes run 50 times on an equally busy machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long to run; fractions are allowed. A test or round that has started may finish.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,
    /// Run only this part, for the whole time.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// The package whose tests are repeated.
    #[arg(long, value_name = "NAME", default_value = repeat::PACKAGE)]
    package: String,
}

/// The parts of a soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// A server whose clients are stopped and killed.
    Churn,
    /// The integration tests on a busy machine.
    Tests,
    /// The tests of processes on a busy machine, 50 times, however long that takes.
    Processes,
}

/// The test programs that end processes, threads and their owners in many orders.
const PROCESSES: &[&str] = &["processes", "kill_proc", "kill_subprocs", "threads", "forked"];

/// How often they run in a long soak, and in a short one.
const PROCESS_RUNS: u64 = 50;
const SHORT_PROCESS_RUNS: u64 = 3;

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let time = Duration::from_secs_f64(options.minutes.clamp(0.0, 1e6) * 60.0);
    let time = if options.only.is_some() { time } else { time / 2 };
    let wants = |part| options.only.is_none_or(|only| only == part);
    if wants(Part::Churn) {
        println!("{}", churn::run(time)?);
    }
    if wants(Part::Tests) {
        println!("{}", repeat::soak(&options.package, time)?);
    }
    if wants(Part::Processes) {
        println!("{}", repeat::times(PROCESSES, PROCESS_RUNS)?);
    }
    Ok(())
}

/// Runs a short soak for CI; `time` is for each part.
pub(crate) fn short(time: Duration) -> Result<String, Failure> {
    let churn = churn::run(time)?;
    println!("{churn}");
    println!("{}", repeat::times(PROCESSES, SHORT_PROCESS_RUNS)?);
    repeat::soak(repeat::PACKAGE, time)
}
