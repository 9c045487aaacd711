//! Batching: many simulated actors, in several processes, ask one policy for their next action. Each actor
//! sends an image and a few scalars. The server runs the policy once for all observations that have arrived,
//! and each actor gets an action and a value.
//!
//! `cargo run --release --example policy -- --processes 4 --actors 16 --batch 32`
//!
//! It shows the steps of all actors per second, how full the batches are, and how long a step waits for its
//! action. Try `--batch 1` to run without batches, and `--max-wait 2` to wait for fuller ones. It ends after
//! `--seconds`, or with Ctrl-C, and prints a summary.

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
use latency::Latencies;
use model::Policy;
use show::{Sample, Screen, Totals};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use teleport::{Batch, BoxError, Method, Methods, Process, Server, ServerHandle};

/// Serve a policy to simulated actors in processes of their own, in batches.
#[derive(Parser)]
struct Options {
    /// Processes of actors
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// Actors in each process
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    actors: u32,
    /// Largest number of observations in a batch
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// How long a free worker waits for a fuller batch, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    max_wait: f64,
    /// Threads that run the policy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: u32,
    /// How long to run
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// The time that a process of actors has for its last steps.
const MAX_LAST_STEPS: Duration = Duration::from_secs(10);

/// The time that a process of actors has to connect.
const MAX_START: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    teleport::init(); // first line: a process of actors starts its function here and never returns
    common::exit(serve(&Options::parse()))
}

fn serve(options: &Options) -> Result<(), BoxError> {
    let seconds = Duration::try_from_secs_f64(options.seconds)
        .map_err(|error| format!("--seconds {}: {error}", options.seconds))?;
    let max_wait = Duration::try_from_secs_f64(options.max_wait / 1e3)
        .map_err(|error| format!("--max-wait {}: {error}", options.max_wait))?;
    let interrupted = on_interrupt()?;
    let (policy, latencies) = (Policy::new(), Arc::new(Mutex::new(Latencies::default())));
    let (reported, (tell_ready, ready)) = (latencies.clone(), mpsc::channel());
    let methods = Methods::new()
        .register(
            "act",
            Method::batched(Batch::up_to(options.batch).max_wait(max_wait), move |x, cx| policy.act(x, &cx)),
        )
        .register(
            "ready",
            Method::inline(move |(): ()| {
                // Fails if the start has failed.
                let _ = tell_ready.send(());
            }),
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
    let mut processes = Vec::new();
    for index in 0..options.processes {
        let process = Process::stoppable(
            format!("actors-{index}"),
            actor::run,
            (address.clone(), index, options.actors),
        );
        process.start()?;
        processes.push(process);
    }
    for process in &processes {
        if ready.recv_timeout(MAX_START).is_err() {
            process.check()?;
            return Err(format!("some processes of actors have not connected within {MAX_START:?}").into());
        }
    }

    let end = Instant::now() + seconds;
    let sample = || Sample::of(&server, &latencies.lock().expect("nobody panics with it"));
    let totals = watch(&server, options, &interrupted, end, sample)?;
    // Each actor makes its last step while the server still answers.
    for process in &processes {
        process.stop(MAX_LAST_STEPS)?;
        process.join()?;
    }
    server.check()?;
    totals.show(actors, options.processes);
    Ok(())
}

/// Shows progress until the time is over, somebody presses Ctrl-C, or a process of actors has ended.
fn watch(
    server: &ServerHandle,
    options: &Options,
    interrupted: &Receiver<()>,
    end: Instant,
    sample: impl Fn() -> Sample,
) -> Result<Totals, BoxError> {
    let (mut screen, first) = (Screen::new(), sample());
    let mut last = first.clone();
    while Instant::now() < end && server.clients() == options.processes as usize {
        let pause = screen.pause().min(end.saturating_duration_since(Instant::now()));
        match interrupted.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = sample();
        screen.show(&now.since(&last), options.batch, now.at - first.at)?;
        last = now;
    }
    screen.end()?;
    Ok(sample().since(&first))
}

/// Sends a message at the first Ctrl-C. The second one ends this process at once.
fn on_interrupt() -> Result<Receiver<()>, BoxError> {
    let mut signals = Signals::new([SIGINT])?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for (before, _) in signals.forever().enumerate() {
            if before > 0 {
                std::process::exit(128 + SIGINT);
            }
            // Fails if the example ends already.
            let _ = tell.send(());
        }
    });
    Ok(told)
}
