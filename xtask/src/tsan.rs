//! ThreadSanitizer: the tests of threads, instrumented, so that each data race is reported.
//!
//! Flow: `cargo test` with the standard library built anew, which must be instrumented too. Target, flags and
//! `build-std` are given through the environment: tests that build the examples call cargo, and it must build
//! them in the same way. A race fails the test program in which it was seen.

use std::process::Command;

use crate::ci::{Count, Extent};
use crate::failure::Failure;
use crate::nightly::{self, Nightly};
use crate::{python, shell};

/// The tests that always run: those of the crates that share state between threads.
const BOUNDED: &str = "--lib -p teleport-wire -p teleport-transport -p teleport-client -p teleport-server \
    --test conformance --test client --test batches --test calls --test life --test order";

/// What runs with `--long`: all tests of all crates that run in a user's program, and those across crates.
const COMPLETE: &str = "--lib --bins --tests --all-features -p teleport-wire -p teleport-transport \
    -p teleport-client -p teleport-server -p teleport-proc -p teleport -p teleport-tests";

/// Tests that are left out without `--long`, and why.
const LONG: &[(&str, &str)] = &[
    ("protocol::", "one thread, in virtual time"),
    ("batch::plan::", "one thread, in virtual time"),
    ("large_rows_of_many_clients_arrive_in_place", "takes a minute of one core"),
];

/// Tests that never run here, and why.
const UNSUITABLE: &[(&str, &str)] = &[(
    "panics_of_processes_are_returned_and_threads_do_not_start",
    "builds a program of its own, whose panics abort, and would not see its races",
)];

/// Runs the tests. The detail for CI's table is their number, or says that they did not run.
pub(crate) fn check(extent: Extent) -> Result<String, Failure> {
    let nightly = match Nightly::find() {
        Ok(nightly) => nightly,
        Err(reason) => return Ok(nightly::not_run("THREADSANITIZER", &reason)),
    };
    if extent == Extent::Complete {
        // As the tests do it, which would take it for a hang.
        shell::run(&mut cargo(&nightly, "build --workspace --all-features --examples")?)?;
    }
    let mut command = match extent {
        Extent::Bounded => cargo(&nightly, &format!("test {BOUNDED} --"))?,
        Extent::Complete => cargo(&nightly, &format!("test {COMPLETE} --"))?,
    };
    let skipped = if extent == Extent::Bounded { LONG } else { &[] };
    for (name, _) in skipped.iter().chain(UNSUITABLE) {
        command.args(["--skip", name]);
    }
    let mut count = Count::default();
    shell::watched(&mut command, |line| count.read(line))?;
    match count.passed {
        0 => Err(Failure::NoTests { filter: "all".into() }),
        passed => Ok(format!("{passed} passed")),
    }
}

fn cargo(nightly: &Nightly, arguments: &str) -> Result<Command, Failure> {
    let mut command = nightly.cargo(arguments, "tsan")?;
    // Of a target that is named, flags do not reach build scripts and macros, which run in the compiler.
    command.env("CARGO_BUILD_TARGET", nightly.host()).env("CARGO_UNSTABLE_BUILD_STD", "std");
    command.env("RUSTFLAGS", "-Zsanitizer=thread");
    // Processes are forked from programs with threads; the children start threads of their own.
    command.env("TSAN_OPTIONS", "die_after_fork=0");
    // The tests look for it in their own target folder.
    if let Some(python) = python::interpreter() {
        command.env("TELEPORT_PYTHON", python);
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_left_out_exist() {
        let files = shell::files(shell::root(), "rs").unwrap();
        let sources: Vec<_> = files.iter().map(|path| shell::read(path).unwrap()).collect();
        for (name, _) in LONG.iter().chain(UNSUITABLE) {
            let is_there = match name.strip_suffix("::") {
                Some(module) => {
                    let folder = module.replace("::", "/");
                    files.iter().any(|path| path.to_string_lossy().contains(&format!("/src/{folder}/")))
                }
                None => sources.iter().any(|text| text.contains(&format!("fn {name}("))),
            };
            assert!(is_there, "{name}");
        }
    }
}
