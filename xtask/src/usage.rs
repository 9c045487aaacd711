//! What a process takes of the machine, as the kernel counts it in `/proc`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

use crate::failure::Failure;

/// What a process has at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Memory of its own that lies in the machine's memory. Not its program's file, parts of which come when they are
    /// first run.
    pub(crate) memory_bytes: u64,
    /// Open descriptors.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Processor time since its start, of all threads, in user and kernel mode.
    pub(crate) busy: Duration,
}

impl Usage {
    /// Of the process with this id, which must be alive.
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

/// A number of `/proc/<id>/status`; 0 where the kernel has no such line.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// User and kernel time of `/proc/<id>/stat`, where the name, in brackets, may hold anything.
fn busy(stat: &str) -> Duration {
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    // The 14th and 15th field of the file are the 12th and 13th after the name.
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// Lets this process, and those that it starts from now on, have `count` descriptors, if the system's hard limit does.
pub(crate) fn allow_descriptors(count: u64) -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Failure::bench)?;
    if hard < count {
        return Err(Failure::bench(format!(
            "this needs {count} descriptors in one process, and the hard limit is {hard} (`ulimit -Hn`)"
        )));
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(count), hard).map_err(Failure::bench)
}

/// The same, or as many as the hard limit lets it have.
pub(crate) fn allow_descriptors_up_to(count: u64) -> Result<(), Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Failure::bench)?;
    allow_descriptors(count.min(hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory_bytes > 0 && usage.descriptors >= 3 && usage.threads >= 1, "{usage:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn times_stand_behind_the_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 10 0 0 0 150 50 0 0 20 0";
        let ticks = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
        assert_eq!(busy(stat), Duration::from_secs_f64(200.0 / ticks as f64));
    }
}
