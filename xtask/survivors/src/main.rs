//! Finds processes that survive the end of their tree, with `teleport-proc`, `std::process`, `process-wrap`
//! and `procspawn`. Prints the table in the README of `teleport-proc`.
//!
//! `cargo run --manifest-path xtask/survivors/Cargo.toml`
//!
//! Each case has its own owner: this program, executed again with the names of a crate and a case. All
//! processes of a case have a mark in their environment, by which they are found in `/proc`. Survivors are
//! killed before the next case.

use std::error::Error;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_wrap::std::{ChildWrapper, CommandWrap, ProcessGroup};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MARK: &str = "SURVIVORS_MARK";
const CRATES: [&str; 4] = ["teleport-proc", "std", "process-wrap", "procspawn"];

/// A process that still runs after this time has survived.
const PATIENCE: Duration = Duration::from_secs(3);

/// A process that starts the next one and ends may live for less time than a look at `/proc` takes. So only
/// this many looks show that none is left.
const LOOKS: usize = 20;

/// The number of trees that are killed at once.
const MANY: usize = 200;

/// How a tree ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Its owner kills it.
    Kill,
    /// Its owner drops the handle and continues.
    Drop,
    /// Its owner kills it twice, and then waits for it.
    KillTwice,
    /// Its owner starts [`MANY`] trees and kills all.
    KillMany,
    /// Its owner is killed with SIGKILL.
    OwnerKilled,
    /// Its owner is killed while it starts one tree after the other.
    OwnerKilledStarting,
    /// The process ends by itself and leaves others.
    Itself,
}

/// The name of a case, the script that makes the tree, and how it ends.
const CASES: [(&str, &str, End); 13] = [
    ("`kill`: the child", "exec sleep 600", End::Kill),
    ("`kill`: grandchildren", "sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: processes that ignore SIGTERM", "trap '' TERM; sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: processes with a group of their own", "set -m; sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: processes with a session of their own", "setsid sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: daemons, whose parents have ended", "setsid -f sleep 600; sleep 600; true", End::Kill),
    (
        "`kill`: processes that fork forever",
        "chain() { chain & }; chain & chain & chain & sleep 600; true",
        End::Kill,
    ),
    ("`kill` twice, then `wait`: without an error", "exec sleep 600", End::KillTwice),
    ("`kill`: 200 at once", "exec sleep 600", End::KillMany),
    ("the process ends by itself and leaves others", "setsid -f sleep 600; sleep 600 & true", End::Itself),
    ("the handle is dropped", "sleep 600 & sleep 600; true", End::Drop),
    ("its owner is killed (SIGKILL)", "setsid -f sleep 600; sleep 600 & sleep 600; true", End::OwnerKilled),
    ("its owner is killed while it starts them", "exec sleep 600", End::OwnerKilledStarting),
];

fn main() -> Result<()> {
    teleport_proc::init();
    procspawn::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [library, case] => own(library, CASES[case.parse::<usize>()?]),
        _ => table(),
    }
}

fn table() -> Result<()> {
    println!("| nothing is left | {} |\n|---|{}", CRATES.join(" | "), "---|".repeat(CRATES.len()));
    for (index, (name, _, end)) in CASES.iter().enumerate() {
        let mut row = format!("| {name} |");
        for library in CRATES {
            row += if ends(library, index, *end)? { " yes |" } else { " **no** |" };
        }
        println!("{row}");
    }
    Ok(())
}

/// Runs a case. Returns true if nothing of the tree is left.
fn ends(library: &str, case: usize, end: End) -> Result<bool> {
    let mark = format!("{}-{library}-{case}", std::process::id());
    let mut owner = Command::new(std::env::current_exe()?)
        .args([library, &case.to_string()])
        .env(MARK, &mark)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // By now bash has started its sleeps, or ended.
    thread::sleep(Duration::from_millis(700));
    if matches!(end, End::OwnerKilled | End::OwnerKilledStarting) {
        owner.kill()?;
    }
    // Many trees take longer to start and kill.
    let patience = if end == End::KillMany { 5 * PATIENCE } else { PATIENCE };
    let start = Instant::now();
    while end == End::KillMany && scripts(&mark)?.len() < MANY && start.elapsed() < patience {
        thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    let mut left = scripts(&mark)?;
    while !left.is_empty() && start.elapsed() < patience {
        thread::sleep(Duration::from_millis(20));
        left = scripts(&mark)?;
    }
    // If the owner has ended by itself, it got an error.
    let nothing_left = left.is_empty() && (end != End::KillTwice || owner.try_wait()?.is_none());
    loop {
        let survivors = find(&mark, |_| true)?;
        if survivors.is_empty() {
            break;
        }
        for pid in survivors {
            // The process may have ended in the meantime.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    owner.wait()?;
    Ok(nothing_left)
}

/// Returns the processes of a script, by its mark.
fn scripts(mark: &str) -> Result<Vec<Pid>> {
    find(mark, |name| name == "bash" || name == "sleep")
}

/// Returns the processes with a mark and a wanted name. Looks [`LOOKS`] times before it finds none.
fn find(mark: &str, is_wanted: fn(&str) -> bool) -> Result<Vec<Pid>> {
    for _ in 0..LOOKS {
        let found = look(mark, is_wanted)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn look(mark: &str, is_wanted: fn(&str) -> bool) -> Result<Vec<Pid>> {
    let marked = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for folder in fs::read_dir("/proc")? {
        let folder = folder?;
        let Some(pid) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let environment = fs::read(folder.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|entry| entry == marked.as_bytes()) {
            let name = fs::read_to_string(folder.path().join("comm")).unwrap_or_default();
            if is_wanted(name.trim_end()) {
                found.push(Pid::from_raw(pid));
            }
        }
    }
    Ok(found)
}

fn bash(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]);
    command
}

/// Runs a script; the function that other processes run.
fn run(script: String) {
    let _ = bash(&script).status();
}

/// The owner's handle of a tree.
enum Tree {
    Teleport(teleport_proc::Process),
    Std(Child),
    Wrap(Box<dyn ChildWrapper>),
    Procspawn(procspawn::JoinHandle<()>),
}

impl Tree {
    fn kill(&mut self) -> Result<()> {
        match self {
            Tree::Teleport(process) => process.kill()?,
            Tree::Std(child) => child.kill()?,
            Tree::Wrap(child) => child.kill()?,
            Tree::Procspawn(handle) => handle.kill()?,
        }
        Ok(())
    }

    /// Waits for the process. Its exit status does not matter here.
    fn wait(self) -> Result<()> {
        match self {
            Tree::Teleport(process) => drop(process.join()),
            Tree::Std(mut child) => drop(child.wait()?),
            Tree::Wrap(mut child) => drop(child.wait()?),
            Tree::Procspawn(handle) => drop(handle.join()),
        }
        Ok(())
    }
}

fn start(library: &str, script: &str) -> Result<Tree> {
    Ok(match library {
        "teleport-proc" => {
            let process = teleport_proc::Process::new("tree", run, script.to_owned());
            let process = process.grace(Duration::from_millis(200));
            process.start()?;
            Tree::Teleport(process)
        }
        "std" => Tree::Std(bash(script).spawn()?),
        "process-wrap" => Tree::Wrap(CommandWrap::from(bash(script)).wrap(ProcessGroup::leader()).spawn()?),
        _ => Tree::Procspawn(procspawn::spawn(script.to_owned(), run)),
    })
}

/// Starts a tree and ends it half a second later. Then it sleeps.
fn own(library: &str, (_, script, end): (&str, &str, End)) -> Result<()> {
    if end == End::OwnerKilledStarting {
        loop {
            std::mem::forget(start(library, script)?);
        }
    }
    let count = if end == End::KillMany { MANY } else { 1 };
    let mut trees = (0..count).map(|_| start(library, script)).collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_millis(500));
    match end {
        End::Kill | End::KillMany => trees.iter_mut().try_for_each(Tree::kill)?,
        End::KillTwice => {
            for _ in 0..2 {
                trees.iter_mut().try_for_each(Tree::kill)?;
            }
            trees.drain(..).try_for_each(Tree::wait)?;
        }
        End::Drop => trees.clear(),
        End::Itself | End::OwnerKilled | End::OwnerKilledStarting => {}
    }
    std::mem::forget(trees);
    loop {
        thread::park();
    }
}
