//! Under what circumstances it was measured: what a reader needs to judge figures, or to find the same machine again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::shell;

/// Name and value, in the order to show. What cannot be found out is left out.
pub(super) fn facts() -> Vec<(String, String)> {
    let facts = [
        ("CPU", cpu()),
        ("memory", memory()),
        ("kernel", file("/proc/sys/kernel/osrelease").map(|release| format!("Linux {}", release.trim()))),
        ("date", printed(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))),
        ("commit", commit()),
        ("compiler", printed(Command::new("rustc").arg("--version"))),
    ];
    facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect()
}

fn cpu() -> Option<String> {
    let info = file("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plural = if cores == 1 { "" } else { "s" };
    Some(format!("{}, {cores} core{plural}", model.map_or("unknown model", |(_, name)| name.trim())))
}

fn memory() -> Option<String> {
    let info = file("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(format!("{:.1} GiB", kib / f64::from(1 << 20)))
}

/// With a plus sign if files differ from it.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| printed(Command::new("git").current_dir(shell::root()).args(arguments));
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    Some(if changed.is_some() { format!("{commit} with changes") } else { commit })
}

fn file(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What a program printed; none if it failed or printed nothing.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Has the kernel count the peak of a process's memory anew, from what it has now.
pub(super) fn forget_peak_memory(process: u32) -> Result<(), Failure> {
    let path = PathBuf::from(format!("/proc/{process}/clear_refs"));
    fs::write(&path, "5").map_err(Failure::file(&path))
}

/// The most memory that a process had since then, its program's file included.
pub(super) fn peak_memory_bytes(process: u32) -> Result<u64, Failure> {
    let path = PathBuf::from(format!("/proc/{process}/status"));
    let status = fs::read_to_string(&path).map_err(Failure::file(&path))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(Failure::bench)?;
    Ok(kib << 10)
}
