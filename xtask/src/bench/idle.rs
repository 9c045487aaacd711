//! `cargo xtask bench idle`: measures what connected but idle clients cost a server.
//!
//! Flow: a server process -> client processes with many real clients each -> the server's memory and
//! processor time from `/proc`, compared with those for one client -> a table. The rows are clients that
//! have just connected, and clients that have made one call; with pings at the usual interval, and every
//! second to have more to measure. The kernel's memory for sockets is not counted.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use teleport::{Array, Client, Method, Methods, Server, Tree};

use super::again_optimized;
use crate::child::{self, Child};
use crate::failure::Failure;
use crate::usage::{Usage, allow_descriptors};

/// The limits for all connections together, with pings at [`USUAL`] intervals.
const MAX_MEMORY_MIB: f64 = 40.0;
const MAX_CORE_PERCENT: f64 = 5.0;

/// The default ping interval of both sides.
const USUAL: Duration = Duration::from_secs(10);

/// The descriptors that a process needs beside its connections, with a margin.
const OTHER_DESCRIPTORS: u64 = 100;

/// The payload of each client's one call.
const CALL_BYTES: usize = 1 << 10;

/// Measure what idle connections cost a server
#[derive(Debug, Args)]
pub(crate) struct IdleOptions {
    /// Connections to the server
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Processes that connect
    #[arg(long, default_value_t = 4)]
    processes: u64,
    /// Seconds for which processor time is measured
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// A process of the benchmark; not for users.
#[derive(Debug, Args)]
pub(crate) struct PartyOptions {
    /// The number of clients; 0 starts the server.
    clients: u64,
    address: String,
    /// The ping interval.
    interval_ms: u64,
}

pub(super) fn run(options: &IdleOptions) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        return again_optimized();
    }
    let name = format!("ipc://@teleport-bench-idle-{}", std::process::id());
    println!(
        "{} connections of {} processes; each row is what the server has beyond what it had with one",
        options.connections, options.processes
    );
    println!(
        "{:<6}{:>8}  {:<18}{:>12}{:>18}{:>16}{:>10}",
        "over", "pings", "clients", "memory, MiB", "KiB a connection", "% of a core", "met"
    );
    for (over, address) in [("tcp", "tcp://127.0.0.1:0"), ("ipc", &name)] {
        for interval in [USUAL, Duration::from_secs(1)] {
            measure(options, over, address, interval)?;
        }
    }
    Ok(())
}

/// Measures one server with all its clients, in two rows.
fn measure(options: &IdleOptions, over: &str, address: &str, interval: Duration) -> Result<(), Failure> {
    let interval_ms = interval.as_millis().to_string();
    let party = |clients: u64, address: &str| {
        Child::start(["bench-idle", &clients.to_string(), address, &interval_ms], &[])
    };
    let mut server = party(0, address)?;
    let address = server.line()?;
    let mut first = party(1, &address)?;
    for state in ["connected", "called"] {
        expect(&mut first, state)?;
    }
    let before = Usage::of(server.id())?;
    let each = options.connections.div_ceil(options.processes.max(1));
    let crowd: Result<Vec<Child>, Failure> = (0..options.processes).map(|_| party(each, &address)).collect();
    let mut crowd = crowd?;
    let connections = each * options.processes;
    for (state, shown) in [("connected", "just connected"), ("called", "after a call each")] {
        crowd.iter_mut().try_for_each(|clients| expect(clients, state))?;
        let start = (Instant::now(), Usage::of(server.id())?);
        thread::sleep(Duration::from_secs(options.seconds));
        let (time, end) = (start.0.elapsed(), Usage::of(server.id())?);
        let busy = (end.busy - start.1.busy).as_secs_f64() / time.as_secs_f64() * 100.0;
        let bytes = end.memory_bytes.saturating_sub(before.memory_bytes) as f64;
        let (mib, kib) = (bytes / f64::from(1 << 20), bytes / 1024.0 / connections as f64);
        let met = match mib < MAX_MEMORY_MIB && busy <= MAX_CORE_PERCENT {
            _ if interval != USUAL => "",
            true => "yes",
            false => "no",
        };
        println!("{over:<6}{interval:>8.0?}  {shown:<18}{mib:>12.1}{kib:>18.2}{busy:>16.2}{met:>10}");
    }
    Ok(())
}

/// Moves a process on to `state`, and waits until it is there.
fn expect(party: &mut Child, state: &str) -> Result<(), Failure> {
    party.send_line(state)?;
    match party.line()? {
        line if line == state => Ok(()),
        line => Err(Failure::bench(line)),
    }
}

/// Runs the server, or a process with many clients.
pub(crate) fn run_party(options: &PartyOptions) -> Result<(), Failure> {
    child::follow_parent()?;
    let interval = Duration::from_millis(options.interval_ms);
    if options.clients == 0 { serve(&options.address, interval) } else { idle(options, interval) }
}

fn serve(address: &str, interval: Duration) -> Result<(), Failure> {
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_err(Failure::bench)?;
    allow_descriptors(hard)?;
    let server = Server::bind(address).map_err(Failure::bench)?.ping_interval(interval);
    let methods = Methods::new().register("echo", Method::inline(|x: Tree| x));
    let server = server.start(methods).map_err(Failure::bench)?;
    child::print_line(&server.address().to_string())?;
    server.join().map_err(Failure::bench)
}

fn idle(options: &PartyOptions, interval: Duration) -> Result<(), Failure> {
    allow_descriptors(options.clients + OTHER_DESCRIPTORS)?;
    let connect = |_| Client::builder(&options.address).ping_interval(interval).connect();
    let mut clients = Vec::new();
    for command in child::commands() {
        match command.as_str() {
            "connected" => {
                let connected: Result<Vec<Client>, _> = (0..options.clients).map(connect).collect();
                clients = connected.map_err(Failure::bench)?;
            }
            "called" => {
                let message = Array::from(vec![1u8; CALL_BYTES]);
                for client in &clients {
                    client.call("echo", message.clone()).wait().map(drop).map_err(Failure::bench)?;
                }
            }
            _ => continue,
        }
        if let Some(client) =
            clients.iter().find(|client| client.stats().connects > 1 || client.stats().server.is_none())
        {
            return Err(Failure::bench(format!("a client lost its connection: {:?}", client.stats())));
        }
        child::print_line(&command)?;
    }
    Ok(())
}
