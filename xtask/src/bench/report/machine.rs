//! The facts at the head of a report: machine, date and versions. Facts that the system does not give are
//! left out.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::text;
use crate::shell;

/// Returns name and value of processor, memory, kernel, date, commit and compiler.
pub(in crate::bench) fn facts() -> Vec<(String, String)> {
    let facts = [
        ("CPU", processor()),
        ("memory", memory()),
        ("kernel", read("/proc/sys/kernel/osrelease").map(|release| format!("Linux {}", release.trim()))),
        ("date", SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| date(since.as_secs()))),
        ("commit", commit()),
        ("compiler", said("rustc", &["--version"])),
    ];
    facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))).collect()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn processor() -> Option<String> {
    let info = read("/proc/cpuinfo")?;
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    // Some architectures give no name.
    let name = field(&info, "model name").unwrap_or(std::env::consts::ARCH);
    Some(format!("{name}, {cores} core{}", if cores == 1 { "" } else { "s" }))
}

fn memory() -> Option<String> {
    let info = read("/proc/meminfo")?;
    let kib: f64 = field(&info, "MemTotal")?.trim_end_matches(" kB").parse().ok()?;
    Some(text::bytes(kib * 1024.0))
}

/// Returns the text behind the colon in the first line with this name.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// Returns the commit, with a remark if there are uncommitted changes.
fn commit() -> Option<String> {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"])?;
    let is_clean = said("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if is_clean { commit } else { format!("{commit}, with changes") })
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).current_dir(shell::root()).stderr(Stdio::null()).output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Formats seconds since 1970 as "2026-11-23 08:30 UTC".
fn date(seconds: u64) -> String {
    let (mut days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02} UTC", days + 1, minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(date(1_795_422_600), "2026-11-23 08:30 UTC");
    }

    #[test]
    fn this_machine_has_a_name() {
        let facts = facts();
        let fact = |name: &str| facts.iter().find(|(other, _)| other == name).map(|(_, fact)| fact.as_str());
        assert!(fact("CPU").is_some_and(|cpu| cpu.contains("core")), "{facts:?}");
        assert!(fact("kernel").is_some_and(|kernel| kernel.starts_with("Linux ")), "{facts:?}");
        assert!(fact("memory").is_some() && fact("date").is_some(), "{facts:?}");
    }
}
