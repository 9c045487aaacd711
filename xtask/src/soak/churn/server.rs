//! The server process of a churn, with one server on TCP and one on a Unix socket.
//!
//! Its method checks its argument and returns an array of the size that the caller asks for. The allowed
//! silence is short and memory is small, so that stopped clients are given up within seconds and large calls
//! wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use teleport::server::Failure as CallFailure;
use teleport::{Array, BoxError, Method, Methods, Pool, Server, ServerHandle, Tree, tree};

use super::{MAX_SILENCE, PING_INTERVAL, POLL, SETTLE_TIME, content};
use crate::child;
use crate::failure::Failure;

/// Four times the largest message.
const MAX_MEMORY: u64 = 64 << 20;

/// The code of the error for wrong content.
const WRONG: &str = "wrong_content";

/// Long enough for clients that are stopped beyond the allowed silence, and short enough that the server
/// soon comes to rest after clients were killed.
const RESUME_TIME: Duration = MAX_SILENCE;

/// The server process of a churn; not for users.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerOptions {
    tcp: String,
    ipc: String,
}

#[derive(Debug, Default)]
struct Checked {
    calls: AtomicU64,
    bytes: AtomicU64,
    wrong: AtomicU64,
}

/// Prints both addresses, then answers `settle N` until its parent ends.
pub(crate) fn run_server(options: &ServerOptions) -> Result<(), Failure> {
    child::follow_parent()?;
    let checked = Arc::new(Checked::default());
    let servers = [&options.tcp, &options.ipc].map(|address| start(address, &checked));
    let [tcp, ipc] = servers;
    let servers = [tcp.map_err(Failure::bench)?, ipc.map_err(Failure::bench)?];
    for server in &servers {
        child::print_line(&server.address().to_string())?;
    }
    for command in child::commands() {
        let clients = command.strip_prefix("settle ").and_then(|number| number.parse().ok()).unwrap_or(0);
        child::print_line(&settle(&servers, clients, &checked).to_string())?;
    }
    Ok(())
}

fn start(address: &str, checked: &Arc<Checked>) -> Result<ServerHandle, BoxError> {
    let (by_worker, by_poller) = (checked.clone(), checked.clone());
    let methods = Methods::new()
        .register("exchange", move |call: Tree| exchange(call, &by_worker))
        .register("exchange_inline", Method::inline(move |call: Tree| exchange(call, &by_poller)));
    let server = Server::bind(address)?.workers(2).max_memory(MAX_MEMORY);
    let server = server
        .resume_timeout(RESUME_TIME)
        .ping_interval(PING_INTERVAL)
        .max_silence(MAX_SILENCE)
        .checksum(address.contains('@'));
    Ok(server.start(methods)?)
}

/// Checks the argument and makes the answer.
fn exchange(mut call: Tree, checked: &Checked) -> Result<Tree, BoxError> {
    let (seed, words) = (call.field::<u64>("seed")?, call.field::<u64>("words")? as usize);
    let answer_words = call.field::<u64>("answer_words")? as usize;
    let content: Array = call.take("content")?;
    checked.calls.fetch_add(1, Ordering::Relaxed);
    checked.bytes.fetch_add(content.bytes() as u64, Ordering::Relaxed);
    if let Err(problem) = content::check(&content, seed, words) {
        checked.wrong.fetch_add(1, Ordering::Relaxed);
        return Err(CallFailure::with_code(WRONG, problem).into());
    }
    Ok(tree!(content::make(!seed, answer_words)?))
}

/// Waits until only `clients` are left and no call is open, gives idle memory back, and returns a report.
fn settle(servers: &[ServerHandle], clients: usize, checked: &Checked) -> serde_json::Value {
    let start = Instant::now();
    let mut settled = false;
    while !settled && start.elapsed() < SETTLE_TIME {
        let stats = || servers.iter().map(ServerHandle::stats);
        let work = |s: teleport::server::Stats| {
            s.running + s.queued + s.awaiting_memory + (s.held_bytes + s.unsent_bytes) as usize
        };
        settled = servers.iter().map(ServerHandle::clients).sum::<usize>() == clients
            && stats().map(work).sum::<usize>() == 0
            && Pool::global().stats().in_use_bytes == 0;
        if !settled {
            thread::sleep(POLL);
        }
    }
    Pool::global().trim();
    let left: Vec<String> = servers.iter().map(|server| format!("{:?}", server.stats())).collect();
    let in_use_bytes = Pool::global().stats().in_use_bytes;
    json!({
        "settled": settled,
        "left": left,
        "in_use_bytes": in_use_bytes,
        "calls": checked.calls.load(Ordering::Relaxed),
        "bytes": checked.bytes.load(Ordering::Relaxed),
        "wrong": checked.wrong.load(Ordering::Relaxed),
    })
}
