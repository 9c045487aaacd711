//! What batching is for: many simulated actors, in several processes, ask one policy what to do next. Each sends an image and a
//! few scalars; the server runs the policy once for as many of them as are there, and each gets its action and a value.
//!
//! `cargo run --release --example policy -- --processes 4 --actors 16 --batch 32`
//!
//! It shows live how many steps all actors make per second, how full the batches are, and how long a step waits for its
//! action. `--batch 1` shows what it would be without batches, `--max-wait 2` what waiting for fuller ones brings. It ends after
//! `--seconds`, or with Ctrl-C, and sums up.

mod actor;
#[path = "../common/mod.rs"]
mod common;
mod latency;
mod model;
mod show;

use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use common::Again;
use latency::Latencies;
use model::Policy;
use show::{Screen, Sight, Totals};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use teleport::{Batch, BoxError, Method, Methods, Server, ServerHandle};

/// Serve a policy to simulated actors in processes of their own, in batches.
#[derive(Parser)]
struct Options {
    /// Processes of actors
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// Actors in each process
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    actors: u32,
    /// Observations that the policy gets at once, at most
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// How long a free worker waits for a fuller batch, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    max_wait: f64,
    /// Threads that run the policy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    /// How long to go on
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// In a process of actors: where the server is
    #[arg(long, hide = true)]
    server: Option<String>,
    /// In a process of actors: which one it is
    #[arg(long, hide = true, default_value_t = 0)]
    index: u32,
}

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<(), BoxError> {
    let options = Options::parse();
    match &options.server {
        Some(server) => actor::run(server, options.index, options.actors),
        None => serve(&options),
    }
}

fn serve(options: &Options) -> Result<(), BoxError> {
    let seconds = Duration::try_from_secs_f64(options.seconds)
        .map_err(|error| format!("--seconds {}: {error}", options.seconds))?;
    let max_wait = Duration::try_from_secs_f64(options.max_wait / 1e3)
        .map_err(|error| format!("--max-wait {}: {error}", options.max_wait))?;
    let interrupted = on_interrupt()?;
    let (policy, latencies) = (Policy::new(), Arc::new(Mutex::new(Latencies::default())));
    let reported = latencies.clone();
    let methods = Methods::new()
        .register(
            "act",
            Method::batched(Batch::up_to(options.batch).max_wait(max_wait), move |x, cx| policy.act(x, &cx)),
        )
        .register(
            "report",
            Method::inline(move |counts: Vec<u64>| {
                reported.lock().expect("nobody panics with it").add(&counts);
            }),
        );
    let server = Server::bind("tcp://127.0.0.1:0")?.workers(options.workers as usize).start(methods)?;
    let (actors, address) = (options.processes * options.actors, server.address().to_string());
    println!("{actors} actors in {} processes, batches of up to {}", options.processes, options.batch);
    let processes = (0..options.processes)
        .map(|index| start_actors(&address, index, options.actors))
        .collect::<Result<Vec<_>, _>>()?;

    let end = Instant::now() + seconds;
    let look = || Sight::of(&server, &latencies.lock().expect("nobody panics with it"));
    let totals = watch(&server, options, &interrupted, end, look)?;
    // Each makes its last step while the server still answers.
    processes.into_iter().try_for_each(Again::end)?;
    server.check()?;
    totals.show(actors, options.processes);
    Ok(())
}

/// Shows what goes on until the time is over, somebody presses Ctrl-C, or a process of actors has ended.
fn watch(
    server: &ServerHandle,
    options: &Options,
    interrupted: &Receiver<()>,
    end: Instant,
    look: impl Fn() -> Sight,
) -> Result<Totals, BoxError> {
    let (mut screen, first) = (Screen::new(), look());
    let mut last = first.clone();
    while Instant::now() < end && server.clients() == options.processes as usize {
        let pause = screen.pause().min(end.saturating_duration_since(Instant::now()));
        match interrupted.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = look();
        screen.show(&now.since(&last), options.batch, now.at - first.at)?;
        last = now;
    }
    screen.end()?;
    Ok(look().since(&first))
}

/// Starts a process of actors, and waits until it has connected and begins.
fn start_actors(server: &str, index: u32, actors: u32) -> Result<Again, BoxError> {
    let (index, actors) = (index.to_string(), actors.to_string());
    let mut process = Again::start(&["--server", server, "--index", &index, "--actors", &actors])?;
    process.line()?;
    Ok(process)
}

/// Tells of the first Ctrl-C. The second ends this process at once.
fn on_interrupt() -> Result<Receiver<()>, BoxError> {
    let mut signals = Signals::new([SIGINT])?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for (before, _) in signals.forever().enumerate() {
            if before > 0 {
                std::process::exit(128 + SIGINT);
            }
            // Nobody listens once all is over.
            let _ = tell.send(());
        }
    });
    Ok(told)
}
