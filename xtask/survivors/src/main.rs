//! What is left of a tree of processes when it should have ended: with `teleport-proc`, `std::process`,
//! `process-wrap` and `procspawn`, in the same cases, as a table for the README of `teleport-proc`.
//!
//! `cargo run --manifest-path xtask/survivors/Cargo.toml`
//!
//! Each case runs in an owner of its own: this program, executed again with the names of a crate and a case.
//! All its processes carry a mark in their environment, and are looked for in `/proc`. What is left is
//! killed before the next.

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

/// What still runs after this has survived.
const PATIENCE: Duration = Duration::from_secs(3);

/// So many are killed at once.
const MANY: usize = 200;

/// What is done to a tree.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Its owner kills it.
    Kill,
    /// Its owner lets go of the handle, and goes on.
    Drop,
    /// Its owner kills it twice, and then waits for it.
    KillTwice,
    /// Its owner starts [`MANY`] of them, and kills all.
    KillMany,
    /// Its owner is killed with SIGKILL.
    OwnerKilled,
    /// The same, while it starts one after the other.
    OwnerKilledStarting,
    /// It ends by itself, and leaves others.
    Itself,
}

/// A name, a script that is the tree, and what is done.
const CASES: [(&str, &str, End); 13] = [
    ("`kill`: the child", "exec sleep 600", End::Kill),
    ("`kill`: grandchildren", "sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: who ignores SIGTERM", "trap '' TERM; sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: who has a group of its own", "set -m; sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: who has a session of its own", "setsid sleep 600 & sleep 600; true", End::Kill),
    ("`kill`: daemons, whose parents have ended", "setsid -f sleep 600; sleep 600; true", End::Kill),
    (
        "`kill`: who forks without end",
        "chain() { chain & }; chain & chain & chain & sleep 600; true",
        End::Kill,
    ),
    ("`kill` twice, then `wait`: without an error", "exec sleep 600", End::KillTwice),
    ("`kill`: 200 at once", "exec sleep 600", End::KillMany),
    ("what it leaves when it ends itself", "setsid -f sleep 600; sleep 600 & true", End::Itself),
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
    println!("| ends | {} |\n|---|{}", CRATES.join(" | "), "---|".repeat(CRATES.len()));
    for (index, (name, _, end)) in CASES.iter().enumerate() {
        let mut row = format!("| {name} |");
        for library in CRATES {
            row += if ends(library, index, *end)? { " yes |" } else { " **no** |" };
        }
        println!("{row}");
    }
    Ok(())
}

/// Runs a case, and says whether nothing of the tree is left.
fn ends(library: &str, case: usize, end: End) -> Result<bool> {
    let mark = format!("{}-{library}-{case}", std::process::id());
    let mut owner = Command::new(std::env::current_exe()?)
        .args([library, &case.to_string()])
        .env(MARK, &mark)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // The scripts are grown: bash has started its sleeps, or ended.
    thread::sleep(Duration::from_millis(700));
    if matches!(end, End::OwnerKilled | End::OwnerKilledStarting) {
        owner.kill()?;
    }
    // Starting and killing them one after the other takes a while.
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
    // An owner that has ended by itself has failed.
    let nothing_left = left.is_empty() && (end != End::KillTwice || owner.try_wait()?.is_none());
    while !marked(&mark)?.is_empty() {
        for (pid, _) in marked(&mark)? {
            // It may have ended meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    owner.wait()?;
    Ok(nothing_left)
}

/// Processes with the mark that belong to a script.
fn scripts(mark: &str) -> Result<Vec<(Pid, String)>> {
    Ok(marked(mark)?.into_iter().filter(|(_, name)| name == "bash" || name == "sleep").collect())
}

fn marked(mark: &str) -> Result<Vec<(Pid, String)>> {
    let wanted = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for folder in fs::read_dir("/proc")? {
        let folder = folder?;
        let Some(pid) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let environment = fs::read(folder.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()) {
            let name = fs::read_to_string(folder.path().join("comm")).unwrap_or_default();
            found.push((Pid::from_raw(pid), name.trim_end().to_owned()));
        }
    }
    Ok(found)
}

fn bash(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]);
    command
}

/// What a function of another process does.
fn run(script: String) {
    let _ = bash(&script).status();
}

/// The tree, as its owner has it.
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

    /// What it ended with is none of this test's business.
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

/// Starts a tree, does what is to be done half a second later, and then nothing.
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
