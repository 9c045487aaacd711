//! What the rows of the benchmark measured: values round by round, of each contender, with what is to be
//! reached.
//!
//! Flow: a row fills one [`Outcome`] -> `report` judges it and shows it.
//! Holds no opinion: ratios, intervals and whether a goal is met are `report`'s.

/// All that one row measured.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// "256 MiB argument, null result".
    pub(super) row: String,
    /// "tcp" or "unix"; empty for rows without one.
    pub(super) transport: &'static str,
    pub(super) unit: Unit,
    /// The ceiling first, where there is one; then Teleport; then the peers.
    pub(super) results: Vec<Contended>,
    pub(super) goal: Option<Goal>,
    /// Where it stands in a plot.
    pub(super) point: Option<Point>,
}

/// What one contender reached in one row.
#[derive(Clone, Debug)]
pub(super) struct Contended {
    pub(super) contender: String,
    pub(super) kind: Kind,
    /// One a round; the same number for all contenders of a row.
    pub(super) values: Vec<f64>,
    /// A sorted sample of at most 2,000 calls over all rounds, in microseconds; may be empty.
    pub(super) latencies_us: Vec<f64>,
    /// Version and settings, for the reader.
    pub(super) settings: String,
}

/// What a contender is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the machine can do at best, or what a row is compared with in its place.
    Ceiling,
    Teleport,
    Peer,
}

/// What the values of a row are.
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

/// What Teleport is to reach. More is better of throughput and calls a second, less of anything else.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(dead_code, reason = "the report shows rows of every kind, tests included")]
pub(super) enum Goal {
    /// This ratio to the ceiling.
    OfCeiling(f64),
    /// At most so much more than the ceiling, in the row's unit.
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
    /// What the plot's variant says.
    pub(super) x: f64,
}

/// The plots of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plot {
    /// `x` is the bytes of a message.
    ThroughputOverSize,
    /// `x` is the calls in flight.
    CallsOverInFlight,
    /// Of the calls in `latencies_us`; `x` means nothing.
    Latency,
    /// `x` is the bytes of the transfer at the side, 0 for calls alone.
    Beside,
}

impl Unit {
    /// As tables and JSON write it; empty for a count.
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
