//! The peak of a process's memory, as the kernel counts it.

use std::fs;
use std::path::PathBuf;

use crate::failure::Failure;

/// Resets the peak of a process's memory to what it has now.
pub(super) fn forget_peak_memory(process: u32) -> Result<(), Failure> {
    let path = PathBuf::from(format!("/proc/{process}/clear_refs"));
    fs::write(&path, "5").map_err(Failure::file(&path))
}

/// Returns the peak of a process's memory since the reset, including its program's file.
pub(super) fn peak_memory_bytes(process: u32) -> Result<u64, Failure> {
    let path = PathBuf::from(format!("/proc/{process}/status"));
    let status = fs::read_to_string(&path).map_err(Failure::file(&path))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(Failure::bench)?;
    Ok(kib << 10)
}
