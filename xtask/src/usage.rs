//! The resources that a process uses, as the kernel counts them in `/proc`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

use crate::failure::Failure;

/// The resources that a process uses at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Its anonymous memory (`RssAnon`), without its program's file, whose parts are loaded when they first
    /// run.
    pub(crate) memory_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Processor time of all threads since the start, in user and kernel mode.
    pub(crate) busy: Duration,
}

impl Usage {
    /// Reads the usage of the process with this id.
    ///
    /// # Errors
    /// If there is no such process.
    pub(crate) fn of(process: u32) -> Result<Usage, Failure> {
        let folder = PathBuf::from(format!("/proc/{process}"));
        let path = folder.join("status");
        let status = fs::read_to_string(&path).map_err(Failure::file(&path))?;
        let path = folder.join("stat");
        let stat = fs::read_to_string(&path).map_err(Failure::file(&path))?;
        let path = folder.join("fd");
        let descriptors = fs::read_dir(&path).map_err(Failure::file(&path))?.count() as u64;
        Ok(Usage {
            memory_bytes: field(&status, "RssAnon:") << 10,
            descriptors,
            threads: field(&status, "Threads:"),
            busy: busy(&stat),
        })
    }
}

/// Returns a number of `/proc/<id>/status`, or 0 if the kernel has no such line.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// Returns user and kernel time from `/proc/<id>/stat`. The name, in brackets, may hold any characters.
fn busy(stat: &str) -> Duration {
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    // Fields 14 and 15 of the file are fields 12 and 13 after the name.
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// Raises the limit of descriptors to `count`, for this process and those that it starts later.
///
/// # Errors
/// If the system's hard limit is lower.
pub(crate) fn allow_descriptors(count: u64) -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Failure::bench)?;
    if hard < count {
        return Err(Failure::bench(format!(
            "this needs {count} descriptors in one process, but the hard limit is {hard} (`ulimit -Hn`)"
        )));
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(count), hard).map_err(Failure::bench)
}

/// As [`allow_descriptors`], but no higher than the hard limit.
pub(crate) fn allow_descriptors_up_to(count: u64) -> Result<(), Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Failure::bench)?;
    allow_descriptors(count.min(hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_its_own_usage() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory_bytes > 0 && usage.descriptors >= 3 && usage.threads >= 1, "{usage:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn times_are_read_after_the_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 10 0 0 0 150 50 0 0 20 0";
        let ticks = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
        assert_eq!(busy(stat), Duration::from_secs_f64(200.0 / ticks as f64));
    }
}
