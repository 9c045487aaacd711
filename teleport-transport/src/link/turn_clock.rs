//! The clock of a handler during one turn of reading.

use std::time::Instant;

/// Measures what a handler does in one turn with one reading of the clock for each piece of work: the end of
/// one is the start of the next.
///
/// ```
/// use teleport_transport::TurnClock;
///
/// let mut clock = TurnClock::default();
/// let start = clock.start(); // reads the clock
/// let end = clock.end(); // reads it again
/// assert!(start <= end && clock.start() == end);
/// ```
#[derive(Debug, Default)]
pub struct TurnClock {
    last_end: Option<Instant>,
}

impl TurnClock {
    /// Returns the start of a piece of work that is measured: the end of the one before, or the current time
    /// if this is the first of its kind.
    pub fn start(&mut self) -> Instant {
        *self.last_end.get_or_insert_with(Instant::now)
    }

    /// Reads the clock at the end of a piece of work.
    pub fn end(&mut self) -> Instant {
        *self.last_end.insert(Instant::now())
    }

    /// Forgets the last end, because work follows that is not measured.
    pub fn forget(&mut self) {
        self.last_end = None;
    }
}
