//! What a process takes of the machine, memory and descriptors, as the kernel counts it.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// What it has now (`VmRSS`).
    pub now_bytes: u64,
    /// The most that it ever had (`VmHWM`).
    pub peak_bytes: u64,
}

impl Memory {
    /// Of the process with this id, which must be alive.
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

/// How many descriptors the process with this id has open.
///
/// # Panics
/// If it has ended.
pub fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).expect("the process is alive, on Linux").count()
}

/// Lets this process, and those it starts from now on, have `count` descriptors.
///
/// # Panics
/// If the system's hard limit is lower.
pub fn allow_many_descriptors(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("every process has this limit");
    assert!(hard >= count, "this needs {count} descriptors and the hard limit is {hard} (`ulimit -Hn`)");
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard).expect("a limit may be raised up to the hard one");
    }
}
