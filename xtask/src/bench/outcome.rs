//! The measurements of a row: the values of each contender, round by round, and the goal.
//!
//! Flow: a row fills one [`Outcome`] -> `report` computes ratios and intervals, judges the goal, and shows
//! them.

/// The measurements of one row.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// "256 MiB argument, null result".
    pub(super) row: String,
    /// "tcp" or "unix"; empty for rows without a transport.
    pub(super) transport: &'static str,
    pub(super) unit: Unit,
    /// The ceiling first, if there is one; then Teleport; then the peers.
    pub(super) results: Vec<Contended>,
    pub(super) goal: Option<Goal>,
    /// The row's place in a plot.
    pub(super) point: Option<Point>,
    pub(super) compared: Compared,
}

/// The rounds that a row's values and ratios are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// All rounds, and each with the one of the other contender that ran next to it.
    Pairs,
    /// The best rounds of each contender, because all of them were too noisy.
    Best,
}

/// The measurements of one contender in one row.
#[derive(Clone, Debug)]
pub(super) struct Contended {
    pub(super) contender: String,
    pub(super) kind: Kind,
    /// One value per round. The contenders of a row have the same number, but a peer has fewer if it took no
    /// part when the row was run again.
    pub(super) values: Vec<f64>,
    /// A sorted sample of at most 2,000 calls of all rounds, in microseconds; may be empty.
    pub(super) latencies_us: Vec<f64>,
    /// Version and settings, for the reader.
    pub(super) settings: String,
}

/// The role of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The best that the machine can do, or what a row is compared with instead.
    Ceiling,
    Teleport,
    Peer,
}

/// The unit of a row's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the report shows rows of every kind, tests included")]
pub(super) enum Unit {
    /// Billions of bytes a second.
    GBs,
    /// Microseconds.
    Micros,
    CallsPerSecond,
    MiB,
    Seconds,
    Count,
    Bytes,
}

/// The goal for Teleport. For throughput and calls per second more is better, otherwise less.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(dead_code, reason = "the report shows rows of every kind, tests included")]
pub(super) enum Goal {
    /// This ratio to the ceiling.
    OfCeiling(f64),
    /// At most this much more than the ceiling, in the row's unit.
    AboveCeiling(f64),
    /// This ratio to the best peer.
    OfBestPeer(f64),
    /// At most this value, in the row's unit.
    Most(f64),
}

/// A place in a plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) plot: Plot,
    /// Its meaning depends on the plot.
    pub(super) x: f64,
}

/// The plots of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plot {
    /// `x` is the bytes of a message.
    ThroughputOverSize,
    /// `x` is the calls in flight.
    CallsOverInFlight,
    /// Of the calls in `latencies_us`; `x` is not used.
    Latency,
    /// `x` is the bytes of the large message, 0 for calls alone.
    Beside,
}

impl Unit {
    /// Returns the unit as tables and JSON write it; empty for a count.
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::GBs => "GB/s",
            Unit::Micros => "us",
            Unit::CallsPerSecond => "calls/s",
            Unit::MiB => "MiB",
            Unit::Seconds => "s",
            Unit::Count => "",
            Unit::Bytes => "B",
        }
    }

    pub(super) fn more_is_better(self) -> bool {
        matches!(self, Unit::GBs | Unit::CallsPerSecond)
    }
}
