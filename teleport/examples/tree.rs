//! A tree of processes, each of which starts others and a program that leaves its session, and the end of all of them.
//!
//! `cargo run --release --example tree`

mod common;

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use teleport::{BoxError, Process, proc_alive};

/// Each process starts so many like itself, ...
const CHILDREN: u32 = 2;

/// ... down to this depth.
const DEPTH: u32 = 3;

fn main() -> ExitCode {
    teleport::init(); // first line: a process starts its function here and never returns
    common::exit(run())
}

fn run() -> Result<(), BoxError> {
    let process = Process::new(name(0), grow, 0).grace(Duration::from_millis(200));
    process.start()?;
    let root = std::process::id();
    while grown(root).len() < size() {
        std::thread::sleep(Duration::from_millis(10)); // nobody tells
        process.check()?;
    }
    show(root, 0);
    let all = below(root);
    process.kill()?;
    let left = all.iter().filter(|pid| **pid != guardian(root) && proc_alive(**pid)).count();
    println!("killed the one at the top; of {} processes {left} are left", all.len() - 1);
    if left == 0 { Ok(()) } else { Err("some are left".into()) }
}

/// What each process does: starts its children and a program that does not want to end, and waits.
fn grow(depth: u32) -> Result<(), BoxError> {
    let script = "trap '' TERM; while true; do sleep 600; done";
    let mut program = Command::new("setsid").args(["bash", "-c", script]).spawn()?;
    let next = if depth < DEPTH { CHILDREN } else { 0 };
    let children: Vec<_> = (0..next).map(|_| Process::new(name(depth + 1), grow, depth + 1)).collect();
    children.iter().try_for_each(Process::start)?;
    program.wait()?;
    Ok(())
}

fn name(depth: u32) -> String {
    format!("depth-{depth}")
}

/// How many processes `grow` makes of itself, over all depths.
fn size() -> usize {
    (0..=DEPTH).map(|depth| CHILDREN.pow(depth) as usize).sum()
}

/// The processes that have a program of their own below them, as Linux lists them.
fn grown(pid: u32) -> Vec<u32> {
    below(pid).into_iter().filter(|pid| called(*pid) == "sleep").collect()
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

/// The one process that stays for the next start.
fn guardian(root: u32) -> u32 {
    children(root).first().copied().unwrap_or_default()
}

fn show(pid: u32, depth: usize) {
    println!("{:indent$}{pid} {}", "", called(pid), indent = 2 * depth);
    children(pid).into_iter().for_each(|child| show(child, depth + 1));
}
