//! What the example shows: a line that is written anew again and again on a terminal, plain lines elsewhere, and the sum.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use teleport::{BatchStats, ServerHandle};

use crate::latency::Latencies;

/// What has happened up to a moment.
#[derive(Clone)]
pub(crate) struct Sight {
    pub(crate) at: Instant,
    batches: BatchStats,
    latencies: Latencies,
}

impl Sight {
    /// Now.
    pub(crate) fn of(server: &ServerHandle, latencies: &Latencies) -> Sight {
        let batches = server.batches("act").unwrap_or_default();
        Sight { at: Instant::now(), batches, latencies: latencies.clone() }
    }

    /// What has happened since an earlier moment.
    pub(crate) fn since(&self, before: &Sight) -> Totals {
        Totals {
            time: self.at - before.at,
            steps: self.batches.calls - before.batches.calls,
            batches: self.batches.batches - before.batches.batches,
            latencies: self.latencies.since(&before.latencies),
        }
    }
}

/// What happened within some time.
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

    /// Sums up.
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

/// Where lines are shown.
pub(crate) struct Screen {
    is_terminal: bool,
}

impl Screen {
    /// Standard output.
    pub(crate) fn new() -> Screen {
        Screen { is_terminal: io::stdout().is_terminal() }
    }

    /// How long a line stands before the next one.
    pub(crate) fn pause(&self) -> Duration {
        if self.is_terminal { Duration::from_millis(250) } else { Duration::from_secs(1) }
    }

    /// Shows what happened lately, so long after the start.
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
            // To the start of the line, what is left of the last one erased.
            write!(output, "\r{line}\x1b[K")?;
            output.flush()
        } else {
            writeln!(output, "{line}")
        }
    }

    /// What is written next starts a line of its own.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.is_terminal { writeln!(io::stdout()) } else { Ok(()) }
    }
}
