//! The output of the example: on a terminal one line that is rewritten, plain lines elsewhere, and a summary.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use teleport::{BatchStats, ServerHandle};

use crate::latency::Latencies;

/// The counts up to a moment.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    batches: BatchStats,
    latencies: Latencies,
}

impl Sample {
    /// Takes the current counts.
    pub(crate) fn of(server: &ServerHandle, latencies: &Latencies) -> Sample {
        let batches = server.batches("act").unwrap_or_default();
        Sample { at: Instant::now(), batches, latencies: latencies.clone() }
    }

    /// Returns the counts since an earlier sample.
    pub(crate) fn since(&self, before: &Sample) -> Totals {
        Totals {
            time: self.at - before.at,
            steps: self.batches.calls - before.batches.calls,
            batches: self.batches.batches - before.batches.batches,
            latencies: self.latencies.since(&before.latencies),
        }
    }
}

/// The counts of a period.
pub(crate) struct Totals {
    time: Duration,
    steps: u64,
    batches: u64,
    latencies: Latencies,
}

impl Totals {
    fn rate(&self) -> f64 {
        self.steps as f64 / self.time.as_secs_f64().max(1e-9)
    }

    fn mean_rows(&self) -> f64 {
        self.steps as f64 / self.batches.max(1) as f64
    }

    fn latency(&self) -> String {
        let (p50, p99) = (self.latencies.percentile(50), self.latencies.percentile(99));
        format!("latency p50 {p50:.1?}, p99 {p99:.1?}")
    }

    /// Prints a summary.
    pub(crate) fn show(&self, actors: u32, processes: u32) {
        let Totals { time, steps, batches, .. } = self;
        println!(
            "{actors} actors in {processes} processes made {steps} steps in {:.1} s",
            time.as_secs_f64()
        );
        println!(
            "{:.0} steps per second, in {batches} batches of {:.1} in the mean",
            self.rate(),
            self.mean_rows()
        );
        println!("{}", self.latency());
    }
}

/// The place where lines are shown.
pub(crate) struct Screen {
    is_terminal: bool,
}

impl Screen {
    /// Standard output.
    pub(crate) fn new() -> Screen {
        Screen { is_terminal: io::stdout().is_terminal() }
    }

    /// Returns the time between two lines.
    pub(crate) fn pause(&self) -> Duration {
        if self.is_terminal { Duration::from_millis(250) } else { Duration::from_secs(1) }
    }

    /// Shows recent counts. `after` is the time since the start.
    pub(crate) fn show(&mut self, lately: &Totals, batch: usize, after: Duration) -> io::Result<()> {
        let line = format!(
            "{:5.1} s: {:6.0} steps per second, batches of {:.1} ({:.0} % full), {}",
            after.as_secs_f64(),
            lately.rate(),
            lately.mean_rows(),
            100.0 * lately.mean_rows() / batch as f64,
            lately.latency(),
        );
        let mut output = io::stdout().lock();
        if self.is_terminal {
            // Returns to the start of the line, and erases the rest of the last one.
            write!(output, "\r{line}\x1b[K")?;
            output.flush()
        } else {
            writeln!(output, "{line}")
        }
    }

    /// Ends the line that was rewritten.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.is_terminal { writeln!(io::stdout()) } else { Ok(()) }
    }
}
