//! The memory that this process may use: the machine's, or the limit of its container.
//!
//! Flow: `/proc/meminfo` and `/proc/self/cgroup` -> the limits of this control group and its ancestors -> the
//! smallest. Tests replace the function that reads files. Never fails: without `/proc` the result is
//! [`UNKNOWN_BYTES`].

use std::path::{Path, PathBuf};

/// The result if the system does not report its memory. Small, since defaults are fractions of it.
const UNKNOWN_BYTES: u64 = 4 << 30;

/// Returns the bytes of memory that this process may use: the machine's memory, or the limit of its control
/// groups (version 1 and 2) if that is lower. Reads a few files of `/proc` and `/sys` each time.
pub fn machine_memory_bytes() -> u64 {
    smallest_limit(|path| std::fs::read_to_string(path).ok())
}

fn smallest_limit(read: impl Fn(&Path) -> Option<String>) -> u64 {
    let total = read(Path::new("/proc/meminfo")).and_then(|text| total_bytes(&text)).unwrap_or(UNKNOWN_BYTES);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    // "max" does not parse: it means no limit.
    let limits = limit_files(&groups).filter_map(|path| read(&path)?.trim().parse().ok());
    limits.filter(|&limit| limit > 0).fold(total, u64::min)
}

/// Parses the line `MemTotal:       24560148 kB`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Returns the limit files of each group in `/proc/self/cgroup` and of its ancestors. In a container some do
/// not exist: the visible root may be the container's own group, or the path may be the host's.
fn limit_files(groups: &str) -> impl Iterator<Item = PathBuf> {
    groups.lines().filter_map(limits_of_line).flat_map(|(root, path, file)| {
        Path::new(path).ancestors().map(move |group| {
            let group = group.strip_prefix("/").unwrap_or(group);
            Path::new(root).join(group).join(file)
        })
    })
}

/// Parses a line `ID:CONTROLLERS:PATH` into the mount point, the path of the group, and the name of the limit
/// file.
fn limits_of_line(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    if controllers.is_empty() {
        Some(("/sys/fs/cgroup", path, "memory.max"))
    } else if controllers.split(',').any(|name| name == "memory") {
        Some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) =
        ("/proc/meminfo", "MemTotal:       24560148 kB\nMemFree:         1000 kB\n");
    const TOTAL: u64 = 24_560_148 * 1024;

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: u64) {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(found.1.to_owned())
        };
        assert_eq!(smallest_limit(read), expected);
    }

    #[test]
    fn without_limits_it_is_the_machines_memory() {
        check(&[MEMINFO], TOTAL);
        check(&[MEMINFO, ("/proc/self/cgroup", "0::/\n")], TOTAL);
        check(&[], UNKNOWN_BYTES);
        check(&[("/proc/meminfo", "MemTotal: lots\n")], UNKNOWN_BYTES);
        check(&[("/proc/meminfo", "MemTotal: 99999999999999999999 kB\n")], UNKNOWN_BYTES);
        check(&[("/proc/meminfo", "MemTotal: 18446744073709551615 kB\n")], UNKNOWN_BYTES);
    }

    #[test]
    fn version_2_limits_hold_for_inner_groups() {
        let group = ("/proc/self/cgroup", "0::/outer/inner\n");
        check(&[MEMINFO, group, ("/sys/fs/cgroup/outer/inner/memory.max", "max\n")], TOTAL);
        check(&[MEMINFO, group, ("/sys/fs/cgroup/outer/inner/memory.max", "1073741824\n")], 1 << 30);
        check(
            &[
                MEMINFO,
                group,
                ("/sys/fs/cgroup/outer/inner/memory.max", "1073741824\n"),
                ("/sys/fs/cgroup/outer/memory.max", "536870912\n"),
            ],
            512 << 20,
        );
        // A container sees its own group as the root.
        let own = ("/sys/fs/cgroup/memory.max", "2147483648\n");
        check(&[MEMINFO, ("/proc/self/cgroup", "0::/\n"), own], 2 << 30);
        check(&[MEMINFO, group, own], 2 << 30);
    }

    #[test]
    fn version_1_limits_hold_too() {
        let groups = ("/proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/docker/1:2\n0::/\n");
        let unlimited = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        check(&[MEMINFO, groups, unlimited], TOTAL);
        let limited = ("/sys/fs/cgroup/memory/docker/1:2/memory.limit_in_bytes", "1048576\n");
        check(&[MEMINFO, groups, unlimited, limited], 1 << 20);
    }

    #[test]
    fn malformed_lines_are_skipped() {
        let groups = ("/proc/self/cgroup", "\n:\n0:\nnonsense\n0::/../x\n");
        check(&[MEMINFO, groups, ("/sys/fs/cgroup/memory.max", "0\n")], TOTAL);
        check(&[MEMINFO, groups, ("/sys/fs/cgroup/memory.max", "-5\n")], TOTAL);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(machine_memory_bytes() >= 64 << 20);
    }
}
