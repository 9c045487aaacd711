//! The cost of a first build of Teleport: the seconds of a cold build, and the crates in its tree.
//!
//! Flow: an empty target folder -> `cargo build --package teleport` with all sources downloaded -> the time;
//! `cargo tree` -> the crates. The profile is `dev`, as in a user's first build.

use std::collections::HashSet;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use super::outcome::{Compared, Contended, Goal, Kind, Outcome, Unit};
use crate::failure::Failure;
use crate::shell;

const TIME: &str = "cold build of the facade";
const CRATES: &str = "crates in the facade's tree";

/// Both rows, in the order of [`measure`].
pub(super) const ROWS: [&str; 2] = [TIME, CRATES];

const MAX_SECONDS: f64 = 30.0;
const MAX_CRATES: f64 = 40.0;

pub(super) fn measure() -> Result<Vec<Outcome>, Failure> {
    shell::run(shell::cargo("fetch --quiet --locked").stdout(Stdio::null()))?;
    let folder = shell::target().join("bench/cold-build");
    remove(&folder)?;
    let start = Instant::now();
    let mut build = shell::cargo("build --quiet --offline --locked --package teleport --target-dir");
    shell::run(build.arg(&folder))?;
    let seconds = start.elapsed().as_secs_f64();
    remove(&folder)?;
    let tree = "tree --offline --locked --package teleport --edges normal,build --prefix none --format {p}";
    let tree = shell::output(&mut shell::cargo(tree))?;
    let crates = crates(&tree) as f64;
    let settings = "profile dev, default features, sources downloaded before";
    let outcome = |row: &str, unit, value, most| {
        let teleport = Contended {
            contender: "teleport".to_owned(),
            kind: Kind::Teleport,
            values: vec![value],
            latencies_us: Vec::new(),
            settings: settings.to_owned(),
        };
        let goal = Some(Goal::Most(most));
        let (row, results) = (row.to_owned(), vec![teleport]);
        Outcome { row, transport: "", unit, results, goal, point: None, compared: Compared::Pairs }
    };
    Ok(vec![
        outcome(TIME, Unit::Seconds, seconds, MAX_SECONDS),
        outcome(CRATES, Unit::Count, crates, MAX_CRATES),
    ])
}

/// Counts the different lines of `cargo tree`, which marks repeated crates with `(*)`.
fn crates(tree: &str) -> usize {
    let lines = tree.lines().map(|line| line.trim_end_matches(" (*)").trim());
    lines.filter(|line| !line.is_empty()).collect::<HashSet<_>>().len()
}

fn remove(folder: &std::path::Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::file(folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_once() {
        assert_eq!(crates("teleport v0.1.0 (/x)\nlibc v0.2.1\nnix v0.31.0\nlibc v0.2.1 (*)\n\n"), 3);
    }
}
