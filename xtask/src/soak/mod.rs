//! `cargo xtask soak`: a search for what goes wrong only now and then, or only after a long time.
//!
//! [`churn`], a server that lives long while its clients are stopped and killed; and [`repeat`], the integration tests again
//! and again on a busy machine, those of processes a fixed number of times.

mod churn;
mod repeat;

use std::time::Duration;

pub(crate) use churn::{ClientOptions, ServerOptions, run_client, run_server};

use crate::failure::Failure;

/// Disturb a server for a long time, then repeat the integration tests under load.
///
/// Half of the time goes to a churn: one server process, over TCP and a Unix socket, and client processes that call it,
/// are stopped, are killed in the middle of large messages, and come back. Every payload is checked by content on both
/// sides, clients that nobody disturbs must not notice anything, and at the end the memory, descriptors and
/// threads of the server must be what they were after the warm-up.
///
/// In the other half the test programs of one package run one after another while threads keep every core
/// busy. Each run has a seed of its own (TELEPORT_TEST_SEED, PROPTEST_RNG_SEED), printed when it
/// fails, with the command that runs it again. A failure there means a race, a time-out that is too tight, or a bug that
/// some seed shows.
///
/// After both, the tests of processes run 50 times on a machine as busy.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long to go on; parts of a minute are fine. What has started may finish.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,
    /// This part only, for the whole time.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// Whose tests to repeat.
    #[arg(long, value_name = "NAME", default_value = repeat::PACKAGE)]
    package: String,
}

/// What a soak is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// A server whose clients are stopped and killed.
    Churn,
    /// The integration tests on a busy machine.
    Tests,
    /// The tests of processes on a busy machine, 50 times, however long that takes.
    Processes,
}

/// The test programs that end processes and threads, and take owners, descriptors and processes away, in many orders.
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

/// The short form for CI; `time` is for each part.
pub(crate) fn short(time: Duration) -> Result<String, Failure> {
    let churn = churn::run(time)?;
    println!("{churn}");
    println!("{}", repeat::times(PROCESSES, SHORT_PROCESS_RUNS)?);
    repeat::soak(repeat::PACKAGE, time)
}
