//! A server to experiment with, also across two machines:
//!
//! `cargo run --release --example serve -- tcp://*:2222 --workers 4`
//!
//! Ctrl-C ends it at once. SIGTERM lets running calls finish first.

#[path = "../common/mod.rs"]
mod common;
mod numbers;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use teleport::{BoxError, Context, Method, Methods, Server, Tree, tree};

/// Serve a few methods: echo, add (foo + bar), sum, sleep (seconds), fail (message), panic.
#[derive(Parser)]
struct Options {
    /// Where to listen: tcp://*:2222, tcp://127.0.0.1:0 (a free port), ipc:///path, ipc://@name
    address: String,
    /// Threads that run the methods
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

fn main() -> ExitCode {
    common::exit(run())
}

fn run() -> Result<(), BoxError> {
    let options = Options::parse();
    common::show_logs();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let server = Server::bind(&options.address)?.name("serve").workers(options.workers).start(methods())?;
    println!("listening at {}", server.address());
    let closer = server.closer();
    thread::spawn(move || {
        for signal in &mut signals {
            let time = if signal == SIGINT { Duration::ZERO } else { Duration::from_secs(10) };
            let closer = closer.clone();
            // Closes on another thread, so that a second signal arrives while the first one waits for
            // running calls.
            thread::spawn(move || closer.close_within(time));
        }
    });
    Ok(server.join()?)
}

fn methods() -> Methods {
    Methods::new()
        .register("echo", |x: Tree| x)
        .register("add", |mut x: Tree| -> Result<Tree, BoxError> {
            Ok(tree!({"result": numbers::add(x.take("foo")?, x.take("bar")?)?}))
        })
        .register("sum", |x: Tree| numbers::sum(x))
        // This method has its own pool, so that calls that sleep do not delay other methods.
        .register("sleep", Method::new(sleep).workers(4))
        .register("fail", |x: Tree| -> Result<(), BoxError> { Err(x.field::<String>("message")?.into()) })
        .register("panic", |_: Tree| -> () { panic!("this method panics, and the server goes on") })
}

/// Sleeps in short steps, so that a caller that gives up frees the worker.
fn sleep(x: Tree, cx: Context) -> Result<(), BoxError> {
    let seconds: f64 = x.field("seconds")?;
    let mut left =
        Duration::try_from_secs_f64(seconds).map_err(|error| format!("seconds: {seconds}: {error}"))?;
    while !left.is_zero() && !cx.is_cancelled() {
        let step = left.min(Duration::from_millis(20));
        thread::sleep(step);
        left -= step;
    }
    if left.is_zero() { Ok(()) } else { Err(format!("cut short {left:.1?} before its end").into()) }
}
