//! Shows the progress of a run on standard error: a bar on a terminal, otherwise a line per row.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

const WIDTH: usize = 24;

/// The number of rows that are done, and of all rows.
pub(super) struct Progress {
    done: usize,
    all: usize,
    start: Instant,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn of(all: usize) -> Progress {
        Progress { done: 0, all, start: Instant::now(), is_terminal: stderr().is_terminal() }
    }

    /// Shows that the next row begins.
    pub(super) fn next(&mut self, row: &str) {
        if self.is_terminal {
            // A bar that cannot be drawn is no error.
            let _ = write!(stderr(), "\r\x1b[2K{}", line(self.done, self.all, self.start, row));
        } else {
            eprintln!("measuring {}/{}: {row}", self.done + 1, self.all);
        }
        self.done += 1;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[2K");
        }
    }
}

fn line(done: usize, all: usize, start: Instant, row: &str) -> String {
    let full = WIDTH * done / all.max(1);
    let seconds = start.elapsed().as_secs();
    let row: String = row.chars().take(60).collect();
    format!("[{}{}] {done}/{all} {seconds} s  {row}", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills() {
        let shown = |done| line(done, 4, Instant::now(), "a row");
        assert!(shown(0).starts_with("[........................] 0/4 0 s"), "{}", shown(0));
        assert!(shown(4).starts_with("[########################] 4/4"), "{}", shown(4));
    }
}
