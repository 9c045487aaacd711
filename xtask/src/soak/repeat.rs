//! Repeats the integration tests on a busy machine, to find flaky tests and thereby races.
//!
//! The tests are built once. Their programs run one at a time, in another order each round, while one busy
//! thread runs on every core. Each run gets its own seed in [`SEED`], from which tests draw their random
//! numbers. The output of a failing run is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::failure::Failure;
use crate::shell;

/// The package whose tests are repeated by default.
pub(super) const PACKAGE: &str = "teleport-tests";

/// The variable with the seed. `CONTRIBUTING.md` asks authors of tests to use it.
const SEED: &str = "TELEPORT_TEST_SEED";

/// The variable in which proptest looks for its seed.
const PROPTEST_SEED: &str = "PROPTEST_RNG_SEED";

/// A test program that takes longer hangs, even on a busy machine.
const MAX_PROGRAM_TIME: Duration = Duration::from_secs(600);

/// The time between two checks of a running program.
const POLL: Duration = Duration::from_millis(20);

/// Repeats the tests of `package` for `time`. A program that has started may finish.
pub(super) fn soak(package: &str, time: Duration) -> Result<String, Failure> {
    under_load(programs(package)?, package, |programs, logs, tally| rounds(programs, time, logs, tally))
}

/// Runs the named test programs of [`PACKAGE`] `count` times.
pub(super) fn times(names: &[&str], count: u64) -> Result<String, Failure> {
    let mut programs = programs(PACKAGE)?;
    programs.retain(|found| names.contains(&found.name.as_str()));
    under_load(programs, &names.join(", "), |programs, logs, tally| {
        for round in 0..count {
            programs.iter().try_for_each(|program| program.run(first_seed() + round, logs, tally))?;
        }
        Ok(())
    })
}

/// Calls `run` while every core is busy, and summarizes the outcome.
fn under_load(
    programs: Vec<Program>,
    what: &str,
    run: impl FnOnce(&[Program], &Path, &mut Tally) -> Result<(), Failure>,
) -> Result<String, Failure> {
    if programs.is_empty() {
        return Err(Failure::NoTests { filter: what.to_owned() });
    }
    let logs = shell::target().join("soak");
    fs::create_dir_all(&logs).map_err(Failure::file(&logs))?;
    let mut tally = Tally::default();
    let load = Load::start();
    run(&programs, &logs, &mut tally)?;
    drop(load);
    tally.report();
    let failed = tally.tests.values().filter(|test| test.failed > 0).count();
    if failed > 0 {
        return Err(Failure::Flaky { failed, logs });
    }
    Ok(format!(
        "{} runs of {} programs, {} tests, none failed",
        tally.runs,
        programs.len(),
        tally.tests.len()
    ))
}

/// Returns a seed that differs each second.
fn first_seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// One busy thread per core, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..cores).map(|_| thread::spawn(burner(Arc::clone(&stop)))).collect();
        Load { stop, threads }
    }
}

fn burner(stop: Arc<AtomicBool>) -> impl FnOnce() + Send {
    // Relaxed: nothing else is passed along with the flag.
    move || {
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // The loop above cannot panic.
            let _ = thread.join();
        }
    }
}

/// Runs programs in rounds until the time is over. Each round starts one program later than the last.
fn rounds(programs: &[Program], time: Duration, logs: &Path, tally: &mut Tally) -> Result<(), Failure> {
    let start = Instant::now();
    let first_seed = first_seed();
    for round in 0.. {
        for index in 0..programs.len() {
            let program = &programs[(index + round) % programs.len()];
            let seed = first_seed.wrapping_add(tally.runs);
            program.run(seed, logs, tally)?;
            if start.elapsed() >= time {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// One test program, with the folder in which cargo would run it.
#[derive(Debug)]
struct Program {
    name: String,
    path: PathBuf,
    folder: PathBuf,
}

/// Builds all tests with the flags of CI's step `test`, so that nothing is built twice, and returns the
/// package's.
fn programs(package: &str) -> Result<Vec<Program>, Failure> {
    let mut command =
        shell::cargo("test --workspace --all-features --no-run --message-format json-render-diagnostics");
    let text = shell::output(&mut command)?;
    let manifest = format!("{package}@");
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| program(&message, package, &manifest)).collect())
}

fn program(message: &Value, package: &str, versioned: &str) -> Option<Program> {
    // Cargo writes `path+file:///folder#name@version`, and omits the name if it is the folder's.
    let (folder, name) = message["package_id"].as_str()?.rsplit_once('#')?;
    let belongs =
        name.starts_with(versioned) || (!name.contains('@') && folder.ends_with(&format!("/{package}")));
    let is_test = message["profile"]["test"].as_bool()?;
    let path = PathBuf::from(message["executable"].as_str()?);
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let name = message["target"]["name"].as_str()?.to_owned();
    (belongs && is_test).then(|| Program {
        name,
        path,
        folder: manifest.parent().map(Path::to_path_buf).unwrap_or_default(),
    })
}

impl Program {
    /// Runs the program once and counts each test's outcome. Keeps the output of a failing run in `logs`.
    fn run(&self, seed: u64, logs: &Path, tally: &mut Tally) -> Result<(), Failure> {
        let log = logs.join(format!("{}-{seed}.log", self.name));
        let ended = self.run_into(&log, seed)?;
        let text = String::from_utf8_lossy(&fs::read(&log).map_err(Failure::file(&log))?).into_owned();
        let failed_before = tally.failures();
        tally.read(&self.name, &text);
        if !matches!(ended, Ended::Well) && tally.failures() == failed_before {
            // The program hung or was killed, and reported no failing test.
            tally.count(format!("{} (the program itself)", self.name), false);
        }
        tally.runs += 1;
        if tally.failures() == failed_before {
            return fs::remove_file(&log).map_err(Failure::file(&log));
        }
        println!("{} {ended:?} with seed {seed}; its output: {}", self.name, log.display());
        println!(
            "  again: {SEED}={seed} {PROPTEST_SEED}={seed} cargo test --workspace --all-features --test {}",
            self.name
        );
        Ok(())
    }

    fn run_into(&self, log: &Path, seed: u64) -> Result<Ended, Failure> {
        let out = fs::File::create(log).map_err(Failure::file(log))?;
        let both = out.try_clone().map_err(Failure::file(log))?;
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command.env(SEED, seed.to_string()).env(PROPTEST_SEED, seed.to_string());
        command.stdin(Stdio::null()).stdout(out).stderr(both);
        let mut child = command.spawn().map_err(Failure::file(&self.path))?;
        wait(&mut child).map_err(Failure::file(&self.path))
    }
}

/// How a test program ended.
#[derive(Debug)]
enum Ended {
    Well,
    Failed,
    Hung,
}

fn wait(child: &mut Child) -> std::io::Result<Ended> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { Ended::Well } else { Ended::Failed });
        }
        if start.elapsed() > MAX_PROGRAM_TIME {
            child.kill()?;
            child.wait()?;
            return Ok(Ended::Hung);
        }
        thread::sleep(POLL);
    }
}

/// The outcomes so far.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    tests: BTreeMap<String, Outcomes>,
}

#[derive(Debug, Default, PartialEq)]
struct Outcomes {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Counts the lines `test name ... ok` and `test name ... FAILED`.
    fn read(&mut self, program: &str, output: &str) {
        for line in output.lines() {
            let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
            else {
                continue;
            };
            match outcome.trim_end() {
                "ok" => self.count(format!("{program}::{name}"), true),
                "FAILED" => self.count(format!("{program}::{name}"), false),
                _ => {}
            }
        }
    }

    fn count(&mut self, test: String, passed: bool) {
        let outcomes = self.tests.entry(test).or_default();
        if passed { outcomes.passed += 1 } else { outcomes.failed += 1 }
    }

    fn failures(&self) -> u64 {
        self.tests.values().map(|outcomes| outcomes.failed).sum()
    }

    fn report(&self) {
        for (name, Outcomes { passed, failed }) in self.tests.iter().filter(|(_, test)| test.failed > 0) {
            let kind = if *passed == 0 { "always fails" } else { "flaky" };
            println!("{kind}: {name} failed {failed} of {} times", passed + failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_per_test() {
        let mut tally = Tally::default();
        tally.read("calls", "running 2 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored\n");
        tally.read("calls", "test a::b ... ok\ntest c ... ok\ntest result: FAILED. 1 passed\n");
        assert_eq!(tally.tests["calls::a::b"], Outcomes { passed: 2, failed: 0 });
        assert_eq!(tally.tests["calls::c"], Outcomes { passed: 1, failed: 1 });
        assert_eq!((tally.tests.len(), tally.failures()), (2, 1));
    }

    #[test]
    fn programs_are_selected_by_package() {
        let message = |id: &str| {
            let text = format!(
                r#"{{"package_id":"{id}","profile":{{"test":true}},"executable":"/t/calls-1",
                "manifest_path":"/w/tests/Cargo.toml","target":{{"name":"calls"}}}}"#
            );
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let mine = message("path+file:///w/tests#teleport-tests@0.1.0");
        let found = program(&mine, "teleport-tests", "teleport-tests@").unwrap();
        assert_eq!((found.name.as_str(), found.folder.as_path()), ("calls", Path::new("/w/tests")));
        let same_folder = message("path+file:///w/teleport-wire#0.1.0");
        assert!(program(&same_folder, "teleport-wire", "teleport-wire@").is_some());
        assert!(program(&same_folder, "teleport-tests", "teleport-tests@").is_none());
    }
}
