//! One direction of one connection: the bytes that were received and not yet forwarded, with their due times.
//!
//! Flow: `take` adds bytes that were read, `next` returns the bytes to write now or the time to ask again,
//! `advance` removes the bytes that were written. Uses no socket and no clock. Bound: the reader checks
//! `has_room` first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A pipe that holds this many bytes reads no more, so that a stalled receiver blocks the sender, as in a
/// network.
pub(super) const MAX_HELD_BYTES: usize = 1 << 20;

/// The most writes a second into a direction with limited rate.
const MAX_LIMITED_WRITES_PER_SECOND: u64 = 50;

/// The faults that the proxy applies. By default it applies none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// Indexed by direction.
    pub(super) stalled: [bool; 2],
    /// Indexed by direction.
    pub(super) swallows: [bool; 2],
    pub(super) delay: Duration,
    pub(super) max_piece_bytes: Option<usize>,
    pub(super) bytes_per_second: Option<u64>,
}

/// The bytes of one direction that are not forwarded yet.
#[derive(Debug)]
pub(super) struct Pipe {
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The earliest time of the next write, if the rate is limited.
    not_before: Option<Instant>,
    pub(super) end: End,
}

/// How far the end of a stream has been forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The sender has not ended the stream.
    Open,
    /// The sender has ended the stream.
    Ended,
    /// The sender has reset the stream.
    Reset,
    /// The end was forwarded to the receiver, or the receiver is gone.
    Forwarded,
}

/// Bytes of one read.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    /// The number of bytes already written.
    written: usize,
    due: Instant,
}

/// The next step for a pipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    Nothing,
    Wait(Instant),
    Write(&'a [u8]),
}

impl Pipe {
    pub(super) fn new() -> Pipe {
        Pipe { held: VecDeque::new(), held_bytes: 0, not_before: None, end: End::Open }
    }

    pub(super) fn has_room(&self) -> bool {
        self.end == End::Open && self.held_bytes < MAX_HELD_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn take(&mut self, bytes: Vec<u8>, now: Instant, rules: &Rules) {
        self.held_bytes += bytes.len();
        self.held.push_back(Held { bytes, written: 0, due: now + rules.delay });
    }

    pub(super) fn next(&self, now: Instant, rules: &Rules) -> Next<'_> {
        let Some(first) = self.held.front() else { return Next::Nothing };
        let due =
            self.not_before.filter(|_| rules.bytes_per_second.is_some()).unwrap_or(first.due).max(first.due);
        if due > now {
            return Next::Wait(due);
        }
        let rest = &first.bytes[first.written..];
        let limited =
            rules.bytes_per_second.map(|rate| (rate / MAX_LIMITED_WRITES_PER_SECOND).max(1) as usize);
        let most = rules.max_piece_bytes.unwrap_or(usize::MAX).min(limited.unwrap_or(usize::MAX));
        Next::Write(&rest[..rest.len().min(most)])
    }

    pub(super) fn advance(&mut self, written: usize, now: Instant, rules: &Rules) {
        self.held_bytes -= written;
        let first = self.held.front_mut().expect("`next` returned these bytes");
        first.written += written;
        if first.written == first.bytes.len() {
            self.held.pop_front();
        }
        self.not_before =
            rules.bytes_per_second.map(|rate| now + Duration::from_secs_f64(written as f64 / rate as f64));
    }

    pub(super) fn discard(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{MAX_HELD_BYTES, Next, Pipe, Rules};

    #[test]
    fn bytes_pass_at_once_and_in_order() {
        let (mut pipe, now, rules) = (Pipe::new(), Instant::now(), Rules::default());
        assert_eq!(pipe.next(now, &rules), Next::Nothing);
        pipe.take(b"first".to_vec(), now, &rules);
        pipe.take(b"second".to_vec(), now, &rules);
        assert_eq!(pipe.next(now, &rules), Next::Write(b"first"));
        pipe.advance(2, now, &rules);
        assert_eq!(pipe.next(now, &rules), Next::Write(b"rst"));
        pipe.advance(3, now, &rules);
        assert_eq!(pipe.next(now, &rules), Next::Write(b"second"));
        pipe.advance(6, now, &rules);
        assert!(pipe.is_empty());
    }

    #[test]
    fn a_changed_delay_does_not_affect_bytes_received_before() {
        let (mut pipe, now) = (Pipe::new(), Instant::now());
        let late = Rules { delay: Duration::from_secs(2), ..Rules::default() };
        pipe.take(b"late".to_vec(), now, &late);
        pipe.take(b"later".to_vec(), now + Duration::from_secs(1), &late);
        assert_eq!(pipe.next(now, &late), Next::Wait(now + late.delay));
        assert_eq!(pipe.next(now + late.delay, &late), Next::Write(b"late"));
        pipe.advance(4, now + late.delay, &late);
        assert_eq!(pipe.next(now + late.delay, &late), Next::Wait(now + Duration::from_secs(3)));
    }

    #[test]
    fn a_pipe_with_limited_rate_writes_few_bytes_and_waits() {
        let (mut pipe, now) = (Pipe::new(), Instant::now());
        let slow = Rules { bytes_per_second: Some(2), ..Rules::default() };
        pipe.take(b"ab".to_vec(), now, &slow);
        assert_eq!(pipe.next(now, &slow), Next::Write(b"a"));
        pipe.advance(1, now, &slow);
        assert_eq!(pipe.next(now, &slow), Next::Wait(now + Duration::from_millis(500)));
        assert_eq!(pipe.next(now, &Rules::default()), Next::Write(b"b"), "the rules have no limit any more");
    }

    #[test]
    fn writes_are_at_most_one_piece_long() {
        let (mut pipe, now) = (Pipe::new(), Instant::now());
        let rules = Rules { max_piece_bytes: Some(2), ..Rules::default() };
        pipe.take(b"abc".to_vec(), now, &rules);
        assert_eq!(pipe.next(now, &rules), Next::Write(b"ab"));
    }

    #[test]
    fn a_full_pipe_has_no_room() {
        let (mut pipe, now, rules) = (Pipe::new(), Instant::now(), Rules::default());
        pipe.take(vec![0; MAX_HELD_BYTES], now, &rules);
        assert!(!pipe.has_room());
        pipe.discard();
        assert!(pipe.has_room() && pipe.is_empty());
    }
}
