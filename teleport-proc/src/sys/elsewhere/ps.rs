//! Processes and threads as `ps` shows them.

use std::io;
use std::process::Command;

use crate::sys::process_table::{Entry, Id};

/// Lists all processes.
pub(crate) fn processes() -> io::Result<Vec<Entry>> {
    list(&["-axo", "pid=,ppid=,comm="])
}

/// Returns the process that has this id now.
pub(crate) fn process(pid: i32) -> io::Result<Option<Entry>> {
    Ok(list(&["-o", "pid=,ppid=,comm=", "-p", &pid.to_string()])?.pop())
}

/// Returns nothing: there is no such list.
pub(crate) fn children(_pid: i32) -> Vec<i32> {
    Vec::new()
}

/// Returns a name for each thread of this process.
pub(crate) fn threads() -> io::Result<Vec<String>> {
    let output = Command::new("ps").args(["-M", "-p", &std::process::id().to_string()]).output()?;
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    Ok(vec!["a thread".to_owned(); lines.saturating_sub(1)])
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
