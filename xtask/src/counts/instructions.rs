//! Counts the instructions of each shape with valgrind's tool callgrind.
//!
//! Flow: this program runs under callgrind, which collects only within `shape::measured` -> the total in its
//! output file -> a row. The files stay in the target folder, for `callgrind_annotate`.

use std::process::{Command, Stdio};

use super::Counted;
use super::row::Row;
use super::shape::Shape;
use crate::failure::Failure;
use crate::shell;

/// The repetitions of each shape, enough to make an extra allocation at the start negligible.
const TIMES: u32 = 200;

/// Returns the reason why instructions cannot be counted here, or `None` if they can.
pub(super) fn unavailable() -> Option<&'static str> {
    let quiet =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !quiet.is_ok_and(|status| status.success()) {
        return Some("valgrind is not installed (apt-get install valgrind)");
    }
    (!cfg!(target_arch = "x86_64")).then_some("the accepted counts are for x86-64")
}

/// Adds a row for each shape.
pub(super) fn count(counted: &mut Counted) -> Result<(), Failure> {
    for (shape, name) in Shape::ALL {
        counted.rows.push(Row::exact(format!("instructions, {name}"), instructions(shape)?));
    }
    Ok(())
}

/// Counts the instructions of one repetition.
fn instructions(shape: Shape) -> Result<f64, Failure> {
    let name = shape.argument();
    let folder = shell::target().join("counts");
    std::fs::create_dir_all(&folder).map_err(Failure::file(&folder))?;
    let file = folder.join(format!("{name}.callgrind"));
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--toggle-collect=*counts::shape::measured*"]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(std::env::current_exe().map_err(Failure::bench)?);
    command.args(["counts-party", "shape", &name, &TIMES.to_string()]);
    shell::run(&mut command)?;
    let total = total(&shell::read(&file)?).ok_or_else(|| Failure::Output {
        command: "valgrind --tool=callgrind".into(),
        problem: format!("nothing was counted in {}", file.display()),
    })?;
    Ok(total as f64 / f64::from(TIMES))
}

/// Reads the line `totals: 123`. Returns `None` if nothing was collected.
fn total(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    value.trim().parse().ok().filter(|total| *total > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_and_nothing_is_no_total() {
        assert_eq!(total("events: Ir\nsummary: 12\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(total("totals: 0\n"), None);
        assert_eq!(total("events: Ir\n"), None);
    }
}
