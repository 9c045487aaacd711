//! Spinning before a thread sleeps.
//!
//! Putting a processor to sleep and waking it takes several times as long as a small call. So a thread that
//! is about to wait first polls for a moment, and yields to other threads in between. If spinning does not
//! pay twice in a row, because the other side computes for long or the processors are busy, the thread sleeps
//! at once and tries again now and then. Bound: for each wait, the spin time, and the time until something
//! else is due.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::reactor::adaptive::Adaptive;

/// Polling a socket takes half as long as a yield. Measured with one core each: a call of 1 KiB over a Unix
/// socket takes 6.5 us with one poll per yield, 5.7 with two, 5.2 with four. With both sides on one core, a
/// call over TCP takes 15.0, 15.1 and 16.4.
const LOOKS_PER_YIELD: u32 = 4;

/// The longest spin. A longer one gains nothing and occupies a processor that others may need.
const MAX_SPIN: Duration = Duration::from_millis(1);

thread_local! {
    /// This thread has handed work over since it last spun.
    static HAS_HANDED_OVER: Cell<bool> = const { Cell::new(false) };
}

/// Notes that this thread has given work to a thread that spins, and that may share its processor. Before
/// this thread spins on its part, it yields once.
pub fn hand_over() {
    HAS_HANDED_OVER.set(true);
}

/// Spins before a sleep, for a thread that waits for other threads or for a peer.
///
/// ```
/// use std::time::{Duration, Instant};
/// use teleport_transport::Spin;
///
/// let (spin, mut looks) = (Spin::new(Duration::from_micros(50)), 0);
/// let found = spin.find(None, |_now| {
///     looks += 1;
///     (looks == 2).then_some("found")
/// });
/// match found {
///     Ok(found) => assert_eq!(found, "found"),
///     Err(since) => spin.woke(since, Instant::now()), // after a sleep, when it has come
/// }
/// ```
#[derive(Debug)]
pub struct Spin {
    time: Duration,
    adaptive: Adaptive,
}

impl Spin {
    /// Creates a spin of up to `time`: zero disables it, and the maximum is 1 ms.
    pub fn new(time: Duration) -> Spin {
        Spin { time: time.min(MAX_SPIN), adaptive: Adaptive::default() }
    }

    /// Returns the longest time of a spin.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Returns true if spinning is not disabled.
    pub(crate) fn is_on(&self) -> bool {
        !self.time.is_zero()
    }

    /// Returns true if the next wait should spin. Counts a wait that does not.
    pub(crate) fn should_try(&self) -> bool {
        self.is_on() && self.adaptive.should_try()
    }

    /// Calls `look` with the current time until it returns a value, for at most the spin time and at most
    /// `limit`, after which something else is due.
    ///
    /// # Errors
    /// Returns the time at which it began, if no value was found or `look` was not called.
    pub fn find<T>(
        &self,
        limit: Option<Duration>,
        look: impl FnMut(Instant) -> Option<T>,
    ) -> Result<T, Instant> {
        let start = Instant::now();
        if self.should_try() { self.run(start, limit, look).ok_or(start) } else { Err(start) }
    }

    /// Works like [`find`](Spin::find), after [`should_try`](Spin::should_try), from the time `start`.
    pub(crate) fn run<T>(
        &self,
        start: Instant,
        limit: Option<Duration>,
        mut look: impl FnMut(Instant) -> Option<T>,
    ) -> Option<T> {
        let time = limit.map_or(self.time, |limit| limit.min(self.time));
        if HAS_HANDED_OVER.replace(false) {
            thread::yield_now();
        }
        let mut now = start;
        while now - start < time {
            if let Some(found) = (0..LOOKS_PER_YIELD).find_map(|_| look(now)) {
                self.adaptive.hit();
                return Some(found);
            }
            thread::yield_now();
            now = Instant::now();
        }
        // A spin that was cut short says nothing about the time that it would have needed.
        if time == self.time {
            self.adaptive.miss_of_two();
        }
        None
    }

    /// Call this if the awaited value arrived during the sleep. If the value came at most twice the spin time
    /// after `since`, when the spin began, then the miss does not count, and the next spin is not skipped.
    pub fn woke(&self, since: Instant, now: Instant) {
        if self.is_on() && now - since < self.time * 2 {
            self.adaptive.forgive();
        }
    }
}

/// The spin of a thread that works for many sources, each with its own time. The longest one counts.
#[derive(Debug)]
pub(crate) struct SharedSpin {
    pub(super) spin: Spin,
    /// The number of sources for each time. Most sources have the same time.
    times: BTreeMap<Duration, usize>,
}

impl SharedSpin {
    pub(crate) fn new() -> SharedSpin {
        SharedSpin { spin: Spin::new(Duration::ZERO), times: BTreeMap::new() }
    }

    pub(crate) fn join(&mut self, time: Duration) {
        *self.times.entry(time).or_default() += 1;
        self.update();
    }

    pub(crate) fn leave(&mut self, time: Duration) {
        if let Some(count) = self.times.get_mut(&time) {
            *count -= 1;
            if *count == 0 {
                self.times.remove(&time);
            }
        }
        self.update();
    }

    fn update(&mut self) {
        self.spin.time = self.times.last_key_value().map_or(Duration::ZERO, |(time, _)| *time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spin_takes_longer_than_a_millisecond() {
        for time in [Duration::ZERO, Duration::from_micros(50), MAX_SPIN] {
            assert_eq!(Spin::new(time).time(), time);
        }
        assert_eq!(Spin::new(Duration::MAX).time(), MAX_SPIN);
    }

    #[test]
    fn a_spin_ends_when_it_finds_something() {
        let spin = Spin::new(Duration::MAX);
        let mut looks = 0;
        let found = spin.find(None, |_| {
            looks += 1;
            (looks == 3).then_some("it")
        });
        assert_eq!((found, looks), (Ok("it"), 3));
    }

    /// Spins twice in vain.
    fn miss_twice(spin: &Spin) -> Instant {
        assert!(spin.find(None, |_| None::<()>).is_err());
        spin.find(None, |_| None::<()>).expect_err("there is nothing to find")
    }

    #[test]
    fn a_spin_gives_up_and_after_two_the_next_one_is_skipped() {
        let spin = Spin::new(Duration::from_nanos(1));
        miss_twice(&spin);
        assert!(spin.find(None, |_| -> Option<()> { unreachable!("two spins found nothing") }).is_err());
        let never = Spin::new(Duration::ZERO);
        assert!(never.find(None, |_| -> Option<()> { unreachable!("it has no time") }).is_err());
    }

    #[test]
    fn a_value_that_is_a_little_late_counts_as_found() {
        let spin = Spin::new(Duration::from_nanos(10));
        let since = miss_twice(&spin);
        spin.woke(since, since + Duration::from_nanos(20));
        assert!(spin.find(None, |_| -> Option<()> { unreachable!("it took too long") }).is_err());
        spin.woke(since, since + Duration::from_nanos(19));
        let mut looks = 0;
        let look = |_| {
            looks += 1;
            None::<()>
        };
        assert!(spin.find(None, look).is_err());
        assert!(looks > 0, "it spins again");
    }

    #[test]
    fn a_spin_ends_when_the_next_timer_is_due() {
        let spin = Spin::new(Duration::MAX);
        assert!(
            spin.find(Some(Duration::ZERO), |_| -> Option<()> { unreachable!("no time is left") }).is_err()
        );
        // A spin that is cut short does not count as a miss.
        assert!(spin.find(Some(Duration::from_nanos(1)), |_| None::<()>).is_err());
        assert_eq!(spin.find(None, |_| Some("it")), Ok("it"));
    }

    #[test]
    fn the_longest_time_of_those_that_joined_counts() {
        let (short, long) = (Duration::from_micros(50), Duration::from_millis(1));
        let mut shared = SharedSpin::new();
        for (joins, time, expected) in [
            (true, short, short),
            (true, long, long),
            (true, long, long),
            (false, long, long),
            (false, long, short),
            (false, short, Duration::ZERO),
        ] {
            let change = if joins { SharedSpin::join } else { SharedSpin::leave };
            change(&mut shared, time);
            assert_eq!(shared.spin.time(), expected);
        }
    }
}
