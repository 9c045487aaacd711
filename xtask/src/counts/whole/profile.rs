//! Shows where the counts of a call come from: functions with the most instructions, and lines of source with
//! the most locked instructions and allocations.
//!
//! Flow: addresses -> `addr2line`, which knows inlined functions -> the innermost function and line of this
//! workspace, else the symbol -> sums by side -> tables.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::SIDES;
use super::executed::{Executed, Place};
use super::locked::Locked;
use super::work::Work;
use crate::failure::Failure;
use crate::shell;

/// Counts by name: instructions and locked instructions of the client, then of the server.
type Sums = BTreeMap<String, [f64; 4]>;

/// A function and a line of source.
#[derive(Clone, Debug)]
struct Source {
    function: String,
    line: String,
}

impl Source {
    /// Takes a name, and a file with a line, as `addr2line` prints them.
    fn new(name: &str, line: &str) -> Source {
        let line = line.split(" (").next().unwrap_or(line);
        let line = shell::relative(Path::new(line)).to_string();
        let file = line.rsplit_once(':').map_or(line.as_str(), |(file, _)| file);
        let name = short(name);
        Source { function: format!("{file} {name}"), line: format!("{line} {name}") }
    }
}

/// Returns the last part of a name, without generics.
fn short(name: &str) -> String {
    let mut depth = 0;
    let outer = |letter: &char| {
        depth += i32::from(*letter == '<');
        let outer = depth == 0;
        depth -= i32::from(*letter == '>');
        outer
    };
    let plain: String = name.chars().filter(outer).collect();
    let mut parts: Vec<&str> = plain.split("::").collect();
    // A closure is named with its function.
    let last = parts.iter().rposition(|part| !part.is_empty() && !part.starts_with('{')).unwrap_or(0);
    parts.drain(..last);
    parts.join("::")
}

/// Prints the `top` entries of each table.
pub(super) fn print(
    work: &Work,
    sides: &[Executed; 2],
    locked: &mut Locked,
    top: usize,
) -> Result<(), Failure> {
    let [mut functions, mut lines, mut outside, mut allocations] = [const { Sums::new() }; 4];
    let program = std::env::current_exe().map_err(Failure::bench)?;
    for (side, executed) in sides.iter().enumerate() {
        let places = executed.instructions.keys().chain(executed.outside.iter().map(|(place, _)| place));
        let sources = sources(&program, places)?;
        let source = |place: &Place, symbol: &str| {
            let unknown = || Source { function: symbol.to_owned(), line: symbol.to_owned() };
            sources.get(place).cloned().unwrap_or_else(unknown)
        };
        let each = |count: u64| count as f64 / work.calls as f64;
        for (place, times) in &executed.instructions {
            let (source, each) = (source(place, &times.symbol), each(times.times));
            let sums = functions.entry(source.function).or_default();
            sums[side * 2] += each;
            if locked.contains(place)? {
                sums[side * 2 + 1] += each;
                lines.entry(source.line).or_default()[side * 2 + 1] += each;
            }
        }
        // The C library calls this program too, at the start of each thread.
        for (place, call) in executed.outside.iter().filter(|(place, _)| place.is_of(&program)) {
            let line = source(place, &call.symbol).line;
            if call.allocates() {
                allocations.entry(line.clone()).or_default()[side * 2] += each(call.calls);
            }
            let sums = outside.entry(format!("{} <- {line}", call.callee)).or_default();
            sums[side * 2] += each(call.instructions);
        }
    }
    println!("\n{}: instructions by function, inlined ones apart, with (locked ones)", work.name);
    table(functions, top, |sums| sums[0] + sums[2]);
    println!("\n{}: instructions of the C library by line of source, with all that it does", work.name);
    table(outside, top, |sums| sums[0] + sums[2]);
    println!("\n{}: locked instructions by line of source", work.name);
    table(lines, top, |sums| sums[1] + sums[3]);
    println!("\n{}: allocations by line of source", work.name);
    table(allocations, top, |sums| sums[0] + sums[2]);
    Ok(())
}

/// Prints the entries with the greatest weight.
fn table(sums: Sums, top: usize, weight: impl Fn(&[f64; 4]) -> f64) {
    let mut sorted: Vec<_> = sums.into_iter().collect();
    sorted.sort_by(|a, b| weight(&b.1).total_cmp(&weight(&a.1)));
    println!("{:>18}{:>18}", SIDES[0], SIDES[1]);
    for (name, sums) in sorted.into_iter().take(top).filter(|(_, sums)| weight(sums) >= 0.01) {
        let side = |side: usize| format!("{:.2} ({:.2})", sums[side * 2], sums[side * 2 + 1]);
        println!("{:>18}{:>18}  {name}", side(0), side(1));
    }
}

/// Returns the sources of instructions, where they are of this workspace.
fn sources<'a>(
    program: &Path,
    places: impl Iterator<Item = &'a Place>,
) -> Result<HashMap<Place, Source>, Failure> {
    let places: Vec<&Place> = places.filter(|place| place.is_of(program)).collect();
    let questions: String = places.iter().map(|place| format!("{:#x}\n", place.address)).collect();
    let mut command = Command::new("addr2line");
    command.args(["-f", "-i", "-C", "-a", "-e"]).arg(program);
    let answers = converse(&mut command, questions)?;
    let mut sources = HashMap::new();
    for (place, frames) in places.into_iter().zip(answers.split("\n0x")) {
        let lines: Vec<&str> = frames.lines().skip(1).collect();
        let mut frames = lines.chunks_exact(2);
        if let Some(&[name, line]) = frames.find(|frame| is_ours(frame[1])) {
            sources.insert(place.clone(), Source::new(name, line));
        }
    }
    Ok(sources)
}

/// Returns true for files of this workspace.
fn is_ours(file: &str) -> bool {
    Path::new(file).starts_with(shell::root())
}

/// Runs a program with this input. Returns its output.
fn converse(command: &mut Command, input: String) -> Result<String, Failure> {
    let line = shell::line(command);
    let failed = |source| Failure::Start { command: line.clone(), source };
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut pipe = process.stdin.take().expect("it is piped");
    // Another thread, because the program answers while it reads.
    let writer = std::thread::spawn(move || pipe.write_all(input.as_bytes()));
    let output = process.wait_with_output().map_err(failed)?;
    let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    written.map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        assert_eq!(short("lock"), "lock");
        assert_eq!(short("teleport_wire::format::header::Header::encode"), "encode");
        assert_eq!(short("a::b::insert<x::Y<core::option::Option<u8>>>"), "insert");
        assert_eq!(short("<a::B as c::D>::called"), "called");
        assert_eq!(short("a::B::write::{closure#0}"), "write::{closure#0}");
        assert_eq!(short("{closure#1}<x::Y>"), "{closure#1}");
    }

    #[test]
    fn a_source_is_named_from_the_workspace() {
        let file = shell::root().join("teleport-wire/src/a.rs");
        let source = Source::new("a::f", &format!("{}:12 (discriminator 3)", file.display()));
        assert_eq!(
            (&*source.function, &*source.line),
            ("teleport-wire/src/a.rs f", "teleport-wire/src/a.rs:12 f")
        );
        assert!(is_ours(&file.display().to_string()) && !is_ours("/rustc/library/core/src/a.rs"));
    }
}
