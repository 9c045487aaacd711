//! Bounds the written bytes of a link that the kernel has not sent yet.
//!
//! A small message waits behind these bytes, and a writer is woken when half of them are sent. So the bound
//! is a time: it allows the bytes that the peer took within [`MAX_DELAY`] when it was last the slower side.
//! Over loopback, messages of 1 MiB reach 0.53 of the speed of plain sockets with 128 KiB, 0.6 with 512 KiB
//! and 0.95 with 2 MiB. Over a gigabit network, 2 MiB would delay a small message by 17 ms.
//!
//! Flow: `wrote` counts the bytes that the socket took -> `full` when it takes no more, which returns a new
//! bound from time to time, or `idle` when there is nothing more to write. Idle time does not count. Never
//! calls the kernel. Bounds: [`MIN_BYTES`] and [`MAX_BYTES`].

use std::time::{Duration, Instant};

use crate::net::socket::MIN_NOTSENT_BYTES as MIN_BYTES;

/// The delay of a small message behind written bytes.
const MAX_DELAY: Duration = Duration::from_micros(400);

/// A larger window showed no gain, and a peer may stop reading at any time.
const MAX_BYTES: u32 = 2 << 20;

/// The bytes that make a measured rate reliable.
const MEASURED_BYTES: u64 = 1 << 20;

/// The measured speed of a link's peer.
#[derive(Debug)]
pub(super) struct NotsentWindow {
    /// The time when the socket was last full, if there was something to write ever since.
    full_since: Option<Instant>,
    /// The bytes that the socket has taken since then.
    taken_bytes: u64,
    /// The bytes of spans that began with a full socket.
    measured_bytes: u64,
    measured_time: Duration,
    /// The bound in force.
    bytes: u32,
}

impl NotsentWindow {
    pub(super) fn new() -> NotsentWindow {
        NotsentWindow {
            full_since: None,
            taken_bytes: 0,
            measured_bytes: 0,
            measured_time: Duration::ZERO,
            bytes: MIN_BYTES,
        }
    }

    /// Counts bytes that the socket took.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.taken_bytes += bytes as u64;
    }

    /// Ends the measurement, because everything is written: from now on the peer's speed is unknown.
    pub(super) fn idle(&mut self, now: impl FnOnce() -> Instant) {
        if self.full_since.is_some() {
            self.measure(now(), false);
        }
    }

    /// Ends a span, in which the peer took about as much as the socket did. Begins another if the socket is
    /// full.
    fn measure(&mut self, now: Instant, is_full: bool) {
        let taken = std::mem::take(&mut self.taken_bytes);
        if let Some(before) = std::mem::replace(&mut self.full_since, is_full.then_some(now)) {
            self.measured_bytes += taken;
            self.measured_time += now - before;
        }
    }

    /// Called when the socket is full. Returns a new bound if it should change.
    pub(super) fn full(&mut self, now: Instant) -> Option<u32> {
        self.measure(now, true);
        if self.measured_bytes < MEASURED_BYTES {
            return None;
        }
        let seconds = std::mem::take(&mut self.measured_time).as_secs_f64();
        let rate = std::mem::take(&mut self.measured_bytes) as f64 / seconds.max(1e-9);
        let bytes = (rate * MAX_DELAY.as_secs_f64()).clamp(f64::from(MIN_BYTES), f64::from(MAX_BYTES)) as u32;
        // A small change is not worth a system call.
        if bytes.abs_diff(self.bytes) <= self.bytes / 4 {
            return None;
        }
        self.bytes = bytes;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the bound after a peer has taken this many bytes a second for a while.
    fn settled(window: &mut NotsentWindow, bytes_per_second: u64) -> u32 {
        let mut now = Instant::now();
        for _ in 0..100 {
            now += Duration::from_millis(1);
            window.wrote((bytes_per_second / 1000) as usize);
            window.full(now);
        }
        window.bytes
    }

    #[test]
    fn the_bound_is_what_the_peer_takes_within_the_delay() {
        let mut window = NotsentWindow::new();
        assert_eq!(settled(&mut window, 100 << 20), MIN_BYTES, "a gigabit link");
        let bytes = settled(&mut window, 2 << 30);
        assert!((700 << 10..=900 << 10).contains(&bytes), "{bytes}");
        assert_eq!(settled(&mut window, 50 << 30), MAX_BYTES);
        assert_eq!(settled(&mut window, 1 << 30), 429_496, "it goes down again");
    }

    #[test]
    fn idle_time_does_not_count() {
        let (mut window, mut now) = (NotsentWindow::new(), Instant::now());
        for _ in 0..10 {
            for _ in 0..4 {
                now += Duration::from_micros(100);
                window.wrote(512 << 10);
                window.full(now);
            }
            now += Duration::from_micros(100);
            window.wrote(512 << 10);
            window.idle(|| now);
            now += Duration::from_secs(1);
        }
        assert!(window.bytes > MAX_BYTES / 2, "{}", window.bytes);
    }

    #[test]
    fn small_changes_are_left_out() {
        let (mut window, mut now) = (NotsentWindow::new(), Instant::now());
        let mut changes = 0;
        for step in 0..100u64 {
            now += Duration::from_millis(1);
            window.wrote(((2 << 20) + step % 7 * 50_000) as usize);
            changes += u32::from(window.full(now).is_some());
        }
        assert_eq!(changes, 1);
    }
}
