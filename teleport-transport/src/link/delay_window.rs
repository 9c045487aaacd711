//! Bounds the bytes that the kernel holds for a link, in one direction, so that a small message behind them
//! waits for a short time only.
//!
//! A small message waits behind the bytes that were written and not sent, and behind those that arrived and
//! were not read. So each bound is a time: it allows the bytes that the slower side moved within
//! [`MAX_DELAY`] when it was last the slower one. Over loopback, messages of 1 MiB reach 0.53 of the speed of
//! plain sockets with 128 KiB unsent, 0.6 with 512 KiB and 0.95 with 2 MiB. Over a gigabit network, 2 MiB
//! would delay a small message by 17 ms.
//!
//! Flow: `moved` counts the bytes that were written or read -> `busy` when the socket takes no more or has
//! more, which returns a new bound from time to time, or `idle` when there is nothing more to move. Idle time
//! does not count. Never calls the kernel. Bounds: [`MIN_BYTES`] and [`MAX_BYTES`].

use std::time::{Duration, Instant};

use crate::net::socket::MIN_NOTSENT_BYTES as MIN_BYTES;

/// The delay of a small message behind the bytes of one direction.
pub(super) const MAX_DELAY: Duration = Duration::from_micros(400);

/// A larger window showed no gain, and a peer may stop reading at any time.
const MAX_BYTES: u32 = 2 << 20;

/// The bytes that make a measured rate reliable.
const MEASURED_BYTES: u64 = 1 << 20;

/// The measured speed of one direction of a link, while its socket was the limit.
#[derive(Debug)]
pub(super) struct DelayWindow {
    /// The time when the socket was last busy, if there was something to move ever since.
    busy_since: Option<Instant>,
    /// The bytes that were moved since then.
    moved_bytes: u64,
    /// The bytes of spans that began with a busy socket.
    measured_bytes: u64,
    measured_time: Duration,
    /// The bound in force.
    bytes: u32,
}

impl DelayWindow {
    pub(super) fn new() -> DelayWindow {
        DelayWindow {
            busy_since: None,
            moved_bytes: 0,
            measured_bytes: 0,
            measured_time: Duration::ZERO,
            bytes: MIN_BYTES,
        }
    }

    /// Counts bytes that were written or read.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved_bytes += bytes as u64;
    }

    /// Ends the measurement, because there is nothing more to move: from now on the speed is unknown.
    pub(super) fn idle(&mut self, now: impl FnOnce() -> Instant) {
        if self.busy_since.is_some() {
            self.measure(now(), false);
        }
    }

    /// Ends a span, in which the peer moved about as much as this side did. Begins another if the socket is
    /// busy.
    fn measure(&mut self, now: Instant, is_busy: bool) {
        let moved = std::mem::take(&mut self.moved_bytes);
        if let Some(before) = std::mem::replace(&mut self.busy_since, is_busy.then_some(now)) {
            self.measured_bytes += moved;
            self.measured_time += now - before;
        }
    }

    /// Called when the socket takes no more, or has more to read. Returns a new bound if it should change.
    pub(super) fn busy(&mut self, now: Instant) -> Option<u32> {
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
    fn settled(window: &mut DelayWindow, bytes_per_second: u64) -> u32 {
        let mut now = Instant::now();
        for _ in 0..100 {
            now += Duration::from_millis(1);
            window.moved((bytes_per_second / 1000) as usize);
            window.busy(now);
        }
        window.bytes
    }

    #[test]
    fn the_bound_is_what_the_peer_takes_within_the_delay() {
        let mut window = DelayWindow::new();
        assert_eq!(settled(&mut window, 100 << 20), MIN_BYTES, "a gigabit link");
        let bytes = settled(&mut window, 2 << 30);
        assert!((700 << 10..=900 << 10).contains(&bytes), "{bytes}");
        assert_eq!(settled(&mut window, 50 << 30), MAX_BYTES);
        assert_eq!(settled(&mut window, 1 << 30), 429_496, "it goes down again");
    }

    #[test]
    fn idle_time_does_not_count() {
        let (mut window, mut now) = (DelayWindow::new(), Instant::now());
        for _ in 0..10 {
            for _ in 0..4 {
                now += Duration::from_micros(100);
                window.moved(512 << 10);
                window.busy(now);
            }
            now += Duration::from_micros(100);
            window.moved(512 << 10);
            window.idle(|| now);
            now += Duration::from_secs(1);
        }
        assert!(window.bytes > MAX_BYTES / 2, "{}", window.bytes);
    }

    #[test]
    fn small_changes_are_left_out() {
        let (mut window, mut now) = (DelayWindow::new(), Instant::now());
        let mut changes = 0;
        for step in 0..100u64 {
            now += Duration::from_millis(1);
            window.moved(((2 << 20) + step % 7 * 50_000) as usize);
            changes += u32::from(window.busy(now).is_some());
        }
        assert_eq!(changes, 1);
    }
}
