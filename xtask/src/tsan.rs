//! ThreadSanitizer: the tests of threads, instrumented, so that each data race is reported.
//!
//! Flow: `cargo test` with the standard library built anew, which must be instrumented too. A race fails the
//! test program in which it was seen.

use std::process::Command;

use crate::ci::{Count, Extent};
use crate::failure::Failure;
use crate::nightly::{self, Nightly};
use crate::shell;

/// The tests that always run: those of the crates that share state between threads.
const BOUNDED: &str = "--lib -p teleport-wire -p teleport-transport -p teleport-client -p teleport-server \
    --test conformance --test client --test batches --test calls --test life --test order";

/// What also runs with `--long`: threads that are killed, and the tests across crates.
///
/// Test programs are named, since those that start processes (`examples`, `processes`, `liveness` and others)
/// fail here: `teleport-proc` starts no process ("the system gives no reason"), and the example `serve` was
/// not seen to end on a signal. Why is not known.
const COMPLETE: &str = "--all-features -p teleport-proc -p teleport-tests --test arrays --test bad_input \
    --test bounds --test calling --test coalescing --test connecting --test faults --test memory --test resume \
    --test surface --test threads";

/// Tests that are left out without `--long`, and why.
const LONG: &[(&str, &str)] = &[
    ("protocol::", "one thread, in virtual time"),
    ("batch::plan::", "one thread, in virtual time"),
    ("large_rows_of_many_clients_arrive_in_place", "takes a minute of one core"),
];

/// Tests that never run here, and why.
const UNSUITABLE: &[(&str, &str)] = &[
    ("a_client_finds_a_server_process_again_at_the_same_port", "starts programs, see `COMPLETE`"),
    ("exhausted::", "starts programs, see `COMPLETE`"),
    ("silence::", "starts programs, see `COMPLETE`"),
];

/// Runs the tests. The detail for CI's table is their number, or says that they did not run.
pub(crate) fn check(extent: Extent) -> Result<String, Failure> {
    let nightly = match Nightly::find() {
        Ok(nightly) => nightly,
        Err(reason) => return Ok(nightly::not_run("THREADSANITIZER", &reason)),
    };
    let more = if extent == Extent::Complete { COMPLETE } else { "" };
    let mut command = cargo(&nightly, &format!("test {BOUNDED} {more} --"))?;
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
                    let (folder, file) = (format!("/{folder}/"), format!("/{folder}.rs"));
                    let holds = |path: &str| path.contains(&folder) || path.ends_with(&file);
                    files.iter().any(|path| holds(&path.to_string_lossy()))
                }
                None => sources.iter().any(|text| text.contains(&format!("fn {name}("))),
            };
            assert!(is_there, "{name}");
        }
    }
}
