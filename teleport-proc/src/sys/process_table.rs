//! The processes of this system and their parents: on Linux from `/proc`, elsewhere from `ps`.
//!
//! Listing them takes a while, in which processes start and end. So each entry may be from another moment.

use std::io;

/// Identifies a process, also if its process id was or will be that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) pid: i32,
    /// The time at which the process started, in ticks since boot. It is 0 where the system does not say.
    pub(crate) started: u64,
}

/// A process when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    /// The process that started it, or the one that adopted it when its parent ended.
    pub(crate) parent: i32,
    /// The name that it has given itself, of at most 15 bytes.
    pub(crate) name: String,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{children, process, processes};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use elsewhere::{children, process, processes};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::fs;
    use std::io::ErrorKind;

    use super::{Entry, Id, io};

    /// Lists all processes that `/proc` shows, zombies included.
    pub(crate) fn processes() -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for folder in fs::read_dir("/proc")? {
            let pid = folder?.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(entry) = pid.map_or(Ok(None), process)? {
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// Returns the process that has this id now.
    pub(crate) fn process(pid: i32) -> io::Result<Option<Entry>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(text) => Ok(parse(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // It ended between opening and reading.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the children of a process that the kernel lists. Some kernels list none.
    pub(crate) fn children(pid: i32) -> Vec<i32> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    }

    /// Parses `pid (name) state parent …`. The name may hold spaces and parentheses. The start time is field
    /// 22.
    fn parse(stat: &str) -> Option<Entry> {
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(1);
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Entry { id: Id { pid: pid.parse().ok()?, started }, parent, name: name.to_owned() })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn names_may_look_like_fields() {
            let stat = "42 (a) R 7 (b) S 12 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 999 5";
            let expected =
                Entry { id: Id { pid: 42, started: 777 }, parent: 12, name: "a) R 7 (b".to_owned() };
            assert_eq!(parse(stat), Some(expected));
            assert_eq!(parse("42 (a) R"), None);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod elsewhere {
    use std::process::Command;

    use super::{Entry, Id, io};

    /// Lists all processes that `ps` shows.
    pub(crate) fn processes() -> io::Result<Vec<Entry>> {
        list(&["-axo", "pid=,ppid=,comm="])
    }

    /// Returns the process that has this id now.
    pub(crate) fn process(pid: i32) -> io::Result<Option<Entry>> {
        Ok(list(&["-o", "pid=,ppid=,comm=", "-p", &pid.to_string()])?.pop())
    }

    /// Returns nothing: there is no such list here.
    pub(crate) fn children(_pid: i32) -> Vec<i32> {
        Vec::new()
    }

    fn list(arguments: &[&str]) -> io::Result<Vec<Entry>> {
        let output = Command::new("ps").args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect())
    }

    fn parse(line: &str) -> Option<Entry> {
        let (pid, rest) = line.trim().split_once(' ')?;
        let (parent, name) = rest.trim_start().split_once(' ')?;
        let id = Id { pid: pid.parse().ok()?, started: 0 };
        Some(Entry { id, parent: parent.parse().ok()?, name: name.trim().to_owned() })
    }
}
