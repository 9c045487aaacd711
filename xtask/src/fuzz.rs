//! Runs the fuzz targets of `fuzz/` with cargo-fuzz, without a sanitizer, so that stable Rust is enough.
//!
//! The committed corpus (`fuzz/corpus/<target>`) is read and never written. New inputs go to `<target
//! folder>/fuzz/<target>`, and the next run starts with them.

use std::fs;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::shell;

/// Fuzz the code that reads bytes from a peer, one target after the other.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The target to run; all of them by default.
    target: Option<String>,
    /// How long to run each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Install cargo-fuzz first if it is missing.
    #[arg(long)]
    install: bool,
}

/// Tests that replay the committed corpus have this in their name, so that it is checked without cargo-fuzz
/// as well.
const REPLAY: &str = "corpus";

/// An input that takes longer is a finding: a peer must not hold a thread.
const MAX_SECONDS_PER_INPUT: u32 = 10;

/// A target that takes more memory is a finding: sizes are checked before anything is allocated.
const MAX_MEMORY_MIB: u32 = 2048;

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if options.install {
        install()?;
    }
    if !is_installed() {
        println!("CARGO-FUZZ IS NOT INSTALLED: nothing is fuzzed; only the committed corpus is replayed.");
        println!("`cargo xtask fuzz --install` installs it.\n");
        return replay();
    }
    for name in selected(options.target.as_deref())? {
        fuzz(&name, options.seconds)?;
    }
    Ok(())
}

/// Installs cargo-fuzz if it is missing.
pub(crate) fn install() -> Result<(), Failure> {
    if is_installed() { Ok(()) } else { shell::run(&mut shell::cargo("install cargo-fuzz --locked")) }
}

/// Fuzzes each target for a few seconds, for CI. The detail says if nothing could be fuzzed.
pub(crate) fn short(seconds: u32) -> Result<String, Failure> {
    if !is_installed() {
        // The step `test` has replayed the corpus.
        return Ok("SKIPPED: cargo-fuzz is not installed (cargo xtask ci --install)".into());
    }
    let names = targets()?;
    for name in &names {
        fuzz(name, seconds)?;
    }
    Ok(format!("{} targets, {seconds} s each", names.len()))
}

fn is_installed() -> bool {
    shell::has_cargo_command("fuzz")
}

/// Returns the names of the files in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>, Failure> {
    let folder = shell::root().join("fuzz/fuzz_targets");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let files = shell::files(&folder, "rs")?;
    Ok(files.iter().filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect())
}

fn selected(name: Option<&str>) -> Result<Vec<String>, Failure> {
    let known = targets()?;
    match name {
        None => Ok(known),
        Some(name) if known.iter().any(|target| target == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(Failure::UnknownTarget { name: name.to_owned(), known }),
    }
}

fn fuzz(name: &str, seconds: u32) -> Result<(), Failure> {
    println!("fuzzing {name} for {seconds} s");
    let found = shell::target().join("fuzz").join(name);
    fs::create_dir_all(&found).map_err(Failure::file(&found))?;
    let mut command = shell::cargo("fuzz run -s none");
    command.arg(name).arg(found).args(corpus(name)).arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={MAX_SECONDS_PER_INPUT}"));
    command.arg(format!("-rss_limit_mb={MAX_MEMORY_MIB}"));
    command.arg("-print_final_stats=1").arg("-verbosity=0");
    shell::run(&mut command)
}

/// Returns the target's committed corpus, if it has one.
fn corpus(name: &str) -> Option<PathBuf> {
    Some(shell::root().join("fuzz/corpus").join(name)).filter(|path| path.exists())
}

/// Runs the tests that read the committed corpus.
fn replay() -> Result<(), Failure> {
    let mut ran = 0;
    shell::watched(&mut shell::cargo(&format!("test --workspace --all-features -- {REPLAY}")), |line| {
        ran += usize::from(line.starts_with("test ") && line.ends_with("... ok"));
    })?;
    if ran == 0 { Err(Failure::NoTests { filter: REPLAY.into() }) } else { Ok(()) }
}
