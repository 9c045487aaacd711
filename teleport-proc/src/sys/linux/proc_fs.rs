//! Processes and threads as `/proc` shows them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::sys::process_table::{Entry, Id};

/// Lists all processes, zombies included.
pub(crate) fn processes() -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for folder in fs::read_dir("/proc")? {
        let pid = folder?.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(pid.map_or(Ok(None), process)?);
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

/// Returns the names of the threads of this process.
pub(crate) fn threads() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        // This fails if the thread has ended meanwhile.
        let name = fs::read_to_string(task?.path().join("comm"));
        names.extend(name.ok().map(|name| name.trim_end().to_owned()));
    }
    Ok(names)
}

/// Returns the path at which another process finds this program.
pub(crate) fn program_path() -> io::Result<PathBuf> {
    Ok("/proc/self/exe".into())
}

/// Returns inode and path of the file that is mapped at an address of this process.
pub(crate) fn mapped_file(address: usize) -> io::Result<Option<(u64, String)>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    // `start-end rights offset device inode path`
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        range.is_some_and(|(start, end)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            (number(start)..number(end)).contains(&address)
        })
    });
    let mut fields = line.unwrap_or_default().split_ascii_whitespace().skip(4);
    let inode = fields.next().and_then(|inode| inode.parse().ok()).unwrap_or(0);
    let path = fields.collect::<Vec<_>>().join(" ");
    Ok((inode != 0).then_some((inode, path)))
}

/// Parses `pid (name) state parent …`. The name may hold spaces and parentheses. The start time is field 22.
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
        let expected = Entry { id: Id { pid: 42, started: 777 }, parent: 12, name: "a) R 7 (b".to_owned() };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("42 (a) R"), None);
    }
}
