//! A tree of processes. Each starts others, and a program that leaves its session. Killing the first one
//! ends them all.
//!
//! `cargo run --release --example tree`

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use teleport::{BoxError, Client, Method, Methods, Process, Server, proc_alive};

/// Each process starts this many processes like itself, ...
const CHILDREN: u32 = 2;

/// ... down to this depth.
const DEPTH: u32 = 3;

/// How often the tree is checked for a failure while it grows.
const CHECK_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    teleport::init(); // first line: a process starts its function here and never returns
    common::exit(run())
}

fn run() -> Result<(), BoxError> {
    let (tell, grown) = mpsc::channel();
    let grown_one = move |(): ()| tell.send(()).map_err(BoxError::from);
    let methods = Methods::new().register("grown", Method::inline(grown_one));
    let server = Server::bind("tcp://127.0.0.1:0")?.start(methods)?;
    let process = Process::new(name(0), grow, (0, server.address().to_string()));
    let process = process.grace(Duration::from_millis(200));
    process.start()?;
    let mut missing = size();
    while missing > 0 {
        match grown.recv_timeout(CHECK_EVERY) {
            Ok(()) => missing -= 1,
            Err(RecvTimeoutError::Timeout) => process.check()?,
            Err(RecvTimeoutError::Disconnected) => return Err("the server has ended".into()),
        }
    }
    let root = std::process::id();
    show(root, 0);
    let all = below(root);
    process.kill()?;
    let left = all.iter().filter(|pid| **pid != zygote(root) && proc_alive(**pid)).count();
    println!("killed the one at the top; of {} processes {left} are left", all.len() - 1);
    if left == 0 { Ok(()) } else { Err("some are left".into()) }
}

/// The function of each process: starts its children and a program that ignores SIGTERM, reports that, and
/// waits.
fn grow((depth, server): (u32, String)) -> Result<(), BoxError> {
    let script = "trap '' TERM; sleep 600 & echo grown; wait";
    let mut program = Command::new("setsid").args(["bash", "-c", script]).stdout(Stdio::piped()).spawn()?;
    let next = if depth < DEPTH { CHILDREN } else { 0 };
    let child = |_| Process::new(name(depth + 1), grow, (depth + 1, server.clone()));
    let children: Vec<_> = (0..next).map(child).collect();
    children.iter().try_for_each(Process::start)?;
    let mut output = BufReader::new(program.stdout.take().ok_or("the program's output is piped")?);
    output.read_line(&mut String::new())?;
    Client::connect(&server)?.call("grown", ()).wait()?;
    program.wait()?;
    Ok(())
}

fn name(depth: u32) -> String {
    format!("depth-{depth}")
}

/// The number of processes that run `grow`, over all depths.
fn size() -> usize {
    (0..=DEPTH).map(|depth| CHILDREN.pow(depth) as usize).sum()
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn below(pid: u32) -> Vec<u32> {
    children(pid).into_iter().flat_map(|child| [vec![child], below(child)].concat()).collect()
}

fn called(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// Returns the one process that stays for the next start.
fn zygote(root: u32) -> u32 {
    children(root).first().copied().unwrap_or_default()
}

fn show(pid: u32, depth: usize) {
    println!("{:indent$}{pid} {}", "", called(pid), indent = 2 * depth);
    children(pid).into_iter().for_each(|child| show(child, depth + 1));
}
