//! The checks that a change must pass before it lands, as a list of named steps.
//!
//! Cheap steps come first, so that simple mistakes show at once. The first failure ends the run. Steps use
//! the same build profile and features where they can: clippy and doc share the output of `cargo check`;
//! tests, examples, the short soak and the packages share the dev build. Long steps are bounded, and complete
//! with `--long`. A step that lacks a tool says so where it stands and again at the end.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;

use crate::failure::Failure;
use crate::{counts, fuzz, layers, links, loom, miri, nightly, package, python, shell, soak, tsan};

/// Run all checks that a change must pass, in order; the first failure ends the run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only this step; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = step_names())]
    step: Vec<String>,
    /// Run the steps that are bounded in full: Miri, ThreadSanitizer, fuzz targets and soak.
    #[arg(long)]
    long: bool,
    /// Install what steps need first: cargo-fuzz, and a nightly toolchain with rustup.
    #[arg(long)]
    install: bool,
}

/// How much of a long step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The most valuable part, for every change.
    Bounded,
    /// Everything.
    Complete,
}

struct Step {
    name: &'static str,
    /// Completes "checks ...".
    what: &'static str,
    /// Returns the detail for the table at the end.
    run: fn(Extent) -> Result<String, Failure>,
}

const STEPS: [Step; 16] = [
    Step { name: "format", what: "rustfmt's layout", run: |_| format() },
    Step {
        name: "layers",
        what: "which crates, folders and files may use which, and how long they may be",
        run: |_| layers::check(),
    },
    Step { name: "links", what: "links of Markdown files inside the repository", run: |_| links::check() },
    Step { name: "clippy", what: "clippy, all features, warnings are errors", run: |_| clippy() },
    Step {
        name: "clippy-default",
        what: "clippy, default features, warnings are errors",
        run: |_| clippy_default(),
    },
    Step { name: "python", what: "for a Python with NumPy, which the tests use", run: |_| python::prepare() },
    Step { name: "test", what: "all tests, doc tests and examples, all features", run: |_| test() },
    Step {
        name: "loom",
        what: "models of threads, in all orders in which these may go on",
        run: |_| loom::check(),
    },
    Step { name: "miri", what: "unsafe code, interpreted", run: miri::check },
    Step { name: "tsan", what: "threads, under ThreadSanitizer", run: tsan::check },
    Step { name: "doc", what: "rustdoc, warnings are errors", run: |_| doc() },
    Step {
        name: "package",
        what: "that every published crate builds from its archive",
        run: |_| package::check(),
    },
    Step { name: "quickstart", what: "the first command of the README", run: |_| quickstart() },
    Step {
        name: "counts",
        what: "allocations, system calls, copies, instructions and locks",
        run: |_| counts::check(),
    },
    Step {
        name: "fuzz",
        what: "each fuzz target for a few seconds",
        run: |extent| fuzz::short(fuzz_seconds(extent)),
    },
    Step {
        name: "soak",
        what: "a short churn, and integration tests again under load",
        run: |extent| soak::short(soak_time(extent)),
    },
];

/// The bounded time is enough for the committed corpus and a few hundred thousand mutations of it.
fn fuzz_seconds(extent: Extent) -> u32 {
    match extent {
        Extent::Bounded => 5,
        Extent::Complete => 60,
    }
}

/// For each of the two parts; `cargo xtask soak` runs longer.
fn soak_time(extent: Extent) -> Duration {
    match extent {
        Extent::Bounded => Duration::from_secs(20),
        Extent::Complete => Duration::from_secs(300),
    }
}

fn step_names() -> PossibleValuesParser {
    PossibleValuesParser::new(
        STEPS.iter().map(|step| clap::builder::PossibleValue::new(step.name).help(step.what)),
    )
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.install {
        fuzz::install()?;
        nightly::install()?;
    }
    let extent = if options.long { Extent::Complete } else { Extent::Bounded };
    let chosen = |step: &&Step| options.step.is_empty() || options.step.iter().any(|name| name == step.name);
    let steps: Vec<_> = STEPS.iter().filter(chosen).collect();
    let mut report = Report::default();
    for (index, step) in steps.iter().enumerate() {
        println!("\n=== {} ({} of {}): {}", step.name, index + 1, steps.len(), step.what);
        let start = Instant::now();
        let result = (step.run)(extent);
        let time = start.elapsed();
        match result {
            Ok(detail) => report.add(step.name, time, detail),
            Err(failure) => {
                report.add(step.name, time, "FAILED".into());
                report.print();
                eprintln!("\nto run this step alone: cargo xtask ci --step {}", step.name);
                return Err(failure);
            }
        }
    }
    report.print();
    report.print_skipped();
    Ok(())
}

#[derive(Default)]
struct Report {
    rows: Vec<(&'static str, Duration, String)>,
}

impl Report {
    fn add(&mut self, name: &'static str, time: Duration, detail: String) {
        println!("--- {name}: {:.1} s", time.as_secs_f64());
        // Keeps our lines in order with the output of the programs.
        let _ = io::stdout().flush();
        self.rows.push((name, time, detail));
    }

    fn print(&self) {
        println!("\n{:<16}{:>9}", "step", "seconds");
        for (name, time, detail) in &self.rows {
            println!("{}", format!("{name:<16}{:>9.1}  {detail}", time.as_secs_f64()).trim_end());
        }
        let total: Duration = self.rows.iter().map(|(_, time, _)| *time).sum();
        println!("{:<16}{:>9.1}", "total", total.as_secs_f64());
    }

    /// Says what did not run, so that nobody takes it for passed. The details of such steps say `SKIPPED`.
    fn print_skipped(&self) {
        for (name, _, detail) in self.rows.iter().filter(|(_, _, detail)| detail.contains("SKIPPED")) {
            println!("\nNOT EVERYTHING WAS CHECKED. {name}: {detail}");
        }
    }
}

fn format() -> Result<String, Failure> {
    shell::run(&mut shell::cargo("fmt --all --check"))?;
    // Packages outside of the workspace.
    for manifest in [
        "fuzz/Cargo.toml",
        "tests/aborting/Cargo.toml",
        "xtask/peers/Cargo.toml",
        "xtask/survivors/Cargo.toml",
    ] {
        if shell::root().join(manifest).exists() {
            shell::run(shell::cargo("fmt --check --manifest-path").arg(manifest))?;
        }
    }
    Ok(String::new())
}

fn clippy() -> Result<String, Failure> {
    shell::run(&mut shell::cargo("clippy --workspace --all-targets --all-features -- -D warnings"))?;
    Ok(String::new())
}

fn clippy_default() -> Result<String, Failure> {
    shell::run(&mut shell::cargo("clippy --workspace --all-targets -- -D warnings"))?;
    Ok(String::new())
}

fn test() -> Result<String, Failure> {
    let mut count = Count::default();
    // Cargo also builds the examples, which the integration tests start, unless targets are named.
    let result =
        shell::watched(&mut shell::cargo("test --workspace --all-features"), |line| count.read(line));
    println!("\n{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped);
    result?;
    Ok(format!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped))
}

fn doc() -> Result<String, Failure> {
    let mut command = shell::cargo("doc --workspace --no-deps --all-features");
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(String::new())
}

fn quickstart() -> Result<String, Failure> {
    shell::run(&mut shell::cargo("run --release --example quickstart"))?;
    Ok(String::new())
}

/// The sum of the lines `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    failed: u64,
    skipped: u64,
}

impl Count {
    pub(crate) fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_are_added_up() {
        let mut count = Count::default();
        count.read("running 3 tests");
        count.read(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s",
        );
        count.read("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        assert_eq!(count, Count { passed: 5, failed: 1, skipped: 1 });
    }

    #[test]
    fn no_two_steps_have_one_name() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
