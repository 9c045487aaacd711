//! Memory and file descriptors of a process, as the kernel counts them.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident memory now (`VmRSS`).
    pub now_bytes: u64,
    /// The largest resident memory so far (`VmHWM`).
    pub peak_bytes: u64,
}

impl Memory {
    /// Reads the memory use of the process with this id, which must be alive.
    pub fn of(process: u32) -> Memory {
        let status =
            fs::read_to_string(format!("/proc/{process}/status")).expect("the process is alive, on Linux");
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field is there");
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number");
            kib << 10
        };
        Memory { now_bytes: bytes("VmRSS:"), peak_bytes: bytes("VmHWM:") }
    }
}

/// Returns the number of open descriptors of the process with this id.
///
/// # Panics
/// If it has ended.
pub fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).expect("the process is alive, on Linux").count()
}

/// Raises the descriptor limit of this process, and of those that it starts later, to `count`.
///
/// # Panics
/// If the system's hard limit is lower.
pub fn allow_many_descriptors(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has this limit");
    assert!(hard >= count, "the test needs {count} descriptors and the hard limit is {hard} (`ulimit -Hn`)");
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard)
            .expect("the soft limit may be raised to the hard limit");
    }
}
