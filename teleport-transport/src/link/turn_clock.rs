//! The clock of a handler during one turn of reading.

use std::mem;
use std::time::{Duration, Instant};

/// At most this many pieces of work are measured together.
const MAX_TOGETHER: u32 = 8;

/// Measures what a handler does in one turn, with few readings of the clock: pieces of work of one kind that
/// follow each other are measured together, and the end of one measurement is the start of the next.
///
/// ```
/// use teleport_transport::TurnClock;
///
/// let mut clock = TurnClock::default();
/// assert!(clock.begin(7).is_none()); // reads the clock
/// assert!(clock.begin(7).is_none()); // does not
/// let both = clock.end().expect("two pieces began"); // reads it again
/// assert_eq!((both.kind, both.pieces), (7, 2));
/// assert!(clock.end().is_none());
/// ```
#[derive(Debug, Default)]
pub struct TurnClock {
    /// The end of the last measurement.
    last_end: Option<Instant>,
    kind: u32,
    /// The pieces of this kind that began since then.
    pieces: u32,
}

/// Pieces of work that were measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The kind with which they began.
    pub kind: u32,
    /// How many they were; not zero.
    pub pieces: u32,
    /// The time that they took together.
    pub time: Duration,
}

impl TurnClock {
    /// Begins a piece of work. Returns the measurement of the pieces before it if it does not join them:
    /// because it is of another `kind`, or because they are many.
    #[inline]
    pub fn begin(&mut self, kind: u32) -> Option<Measured> {
        let joins = self.kind == kind && self.pieces < MAX_TOGETHER;
        let measured = if joins { None } else { self.end() };
        self.kind = kind;
        self.pieces += 1;
        self.start();
        measured
    }

    /// Returns the start of the measurement that is under way. The pieces that began since then are short if
    /// they were measured together.
    #[inline]
    pub fn start(&mut self) -> Instant {
        *self.last_end.get_or_insert_with(Instant::now)
    }

    /// Ends the measurement that is under way, if there is one.
    pub fn end(&mut self) -> Option<Measured> {
        let pieces = mem::take(&mut self.pieces);
        if pieces == 0 {
            return None;
        }
        let (start, now) = (self.start(), Instant::now());
        self.last_end = Some(now);
        Some(Measured { kind: self.kind, pieces, time: now.saturating_duration_since(start) })
    }

    /// Ends the measurement that is under way, because work follows that is not measured.
    #[inline]
    pub fn pause(&mut self) -> Option<Measured> {
        let measured = self.end();
        self.last_end = None;
        measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_measured_together_while_they_are_of_one_kind_and_few() {
        let mut clock = TurnClock::default();
        let mut counted = |kind| clock.begin(kind).map(|measured| (measured.kind, measured.pieces));
        assert!((0..MAX_TOGETHER).all(|_| counted(1).is_none()));
        assert_eq!(counted(1), Some((1, MAX_TOGETHER)));
        assert_eq!(counted(2), Some((1, 1)));
        assert_eq!(counted(2), None);
        let start = clock.start();
        let last = clock.end().unwrap();
        assert_eq!((last.kind, last.pieces, clock.end()), (2, 2, None));
        assert_eq!(clock.start(), start + last.time, "the end of one is the start of the next");
        assert_eq!((clock.pause(), clock.last_end), (None, None));
    }
}
