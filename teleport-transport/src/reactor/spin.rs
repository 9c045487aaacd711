//! A short look-out before a thread sleeps.
//!
//! To put a processor to sleep and wake it takes several times as long as a small call. So a thread that is about to wait first
//! looks a few times, and lets others run in between; it sleeps once the time is over. Where that is in vain too often, as when the
//! other side computes for long or the processors are busy, it sleeps at once, and tries again now and then. Bound: for each wait,
//! the time that its owner gives, and what is left until something else is due.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::reactor::adaptive::Adaptive;

/// A look between sockets takes half as long as to let others run. Measured with a core each: a call of 1 KiB over a Unix socket
/// takes 6.5 us with one look, 5.7 with two, 5.2 with four; with both sides on one core, one over TCP takes 15.0, 15.1 and 16.4.
const LOOKS_PER_YIELD: u32 = 4;

/// A thread looks no longer than this before it sleeps. What takes as long anyway gains nothing from it, and a thread that looks
/// keeps a processor, and may be what somebody waits for.
const MAX_SPIN: Duration = Duration::from_millis(1);

/// Whether and for how long to look before one sleeps; for any thread that waits for others of its process, or for a peer.
///
/// ```
/// use std::time::Duration;
/// use teleport_transport::Spin;
///
/// let (spin, mut looks) = (Spin::new(Duration::from_micros(50)), 0);
/// let found = spin.find(None, |_now| {
///     looks += 1;
///     (looks == 2).then_some("what was waited for")
/// });
/// match found {
///     Ok(found) => assert_eq!(found, "what was waited for"),
///     Err(since) => spin.woke(since), // after a sleep, when it has come
/// }
/// ```
#[derive(Debug)]
pub struct Spin {
    time: Duration,
    adaptive: Adaptive,
}

impl Spin {
    /// Looks for up to `time`; zero for not at all, and more than 1 ms counts as 1 ms.
    pub fn new(time: Duration) -> Spin {
        Spin { time: time.min(MAX_SPIN), adaptive: Adaptive::default() }
    }

    /// How long it looks.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// What `look` found, which is told the time, before the time was over, or `limit`, when something else is due. Where it was
    /// called in vain, or not at all: when that was.
    pub fn find<T>(
        &self,
        limit: Option<Duration>,
        mut look: impl FnMut(Instant) -> Option<T>,
    ) -> Result<T, Instant> {
        let time = limit.map_or(self.time, |limit| limit.min(self.time));
        let start = Instant::now();
        if time.is_zero() || !self.adaptive.should_try() {
            return Err(start);
        }
        let mut now = start;
        while now - start < time {
            if let Some(found) = (0..LOOKS_PER_YIELD).find_map(|_| look(now)) {
                self.adaptive.hit();
                return Ok(found);
            }
            thread::yield_now();
            now = Instant::now();
        }
        // One that was cut short says nothing of how long it would have taken.
        if time == self.time {
            self.adaptive.miss();
        }
        Err(start)
    }

    /// What was waited for since then has come while the thread slept. If a look would have found it, the next one is taken.
    pub fn woke(&self, since: Instant) {
        if since.elapsed() < self.time {
            self.adaptive.reset();
        }
    }
}

/// The look-out of a thread that works for many: for as long as the most patient of them asks for.
#[derive(Debug)]
pub(crate) struct SharedSpin {
    spin: Spin,
    /// How many ask for which time. Few differ, however many there are.
    times: BTreeMap<Duration, usize>,
}

impl SharedSpin {
    /// Nobody asks for anything.
    pub(crate) fn new() -> SharedSpin {
        SharedSpin { spin: Spin::new(Duration::ZERO), times: BTreeMap::new() }
    }

    /// One more asks for `time`.
    pub(crate) fn join(&mut self, time: Duration) {
        *self.times.entry(time).or_default() += 1;
        self.settle();
    }

    /// One that asked for `time` is gone.
    pub(crate) fn leave(&mut self, time: Duration) {
        if let Some(count) = self.times.get_mut(&time) {
            *count -= 1;
            if *count == 0 {
                self.times.remove(&time);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.spin.time = self.times.last_key_value().map_or(Duration::ZERO, |(time, _)| *time);
    }

    /// As [`Spin::find`].
    pub(crate) fn find<T>(
        &self,
        limit: Option<Duration>,
        look: impl FnMut(Instant) -> Option<T>,
    ) -> Result<T, Instant> {
        self.spin.find(limit, look)
    }

    /// As [`Spin::woke`].
    pub(crate) fn woke(&self, since: Instant) {
        self.spin.woke(since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_looks_for_longer_than_a_millisecond() {
        for time in [Duration::ZERO, Duration::from_micros(50), MAX_SPIN] {
            assert_eq!(Spin::new(time).time(), time);
        }
        assert_eq!(Spin::new(Duration::MAX).time(), MAX_SPIN);
    }

    #[test]
    fn it_looks_until_it_finds() {
        let spin = Spin::new(Duration::MAX);
        let mut looks = 0;
        let found = spin.find(None, |_| {
            looks += 1;
            (looks == 3).then_some("it")
        });
        assert_eq!((found, looks), (Ok("it"), 3));
    }

    #[test]
    fn it_gives_up_and_is_not_asked_again_at_once() {
        let spin = Spin::new(Duration::from_nanos(1));
        assert!(spin.find(None, |_| None::<()>).is_err());
        assert!(spin.find(None, |_| -> Option<()> { unreachable!("the last time was in vain") }).is_err());
        let never = Spin::new(Duration::ZERO);
        assert!(never.find(None, |_| -> Option<()> { unreachable!("it has no time") }).is_err());
    }

    #[test]
    fn it_is_asked_again_once_a_look_would_have_found_it() {
        let mut spin = Spin::new(Duration::from_nanos(1));
        let since = spin.find(None, |_| None::<()>).unwrap_err();
        spin.woke(since);
        assert!(spin.find(None, |_| -> Option<()> { unreachable!("it took longer") }).is_err());
        spin.time = Duration::MAX;
        spin.woke(since);
        assert_eq!(spin.find(None, |_| Some("it")), Ok("it"));
    }

    #[test]
    fn it_does_not_look_past_what_is_due() {
        let spin = Spin::new(Duration::MAX);
        assert!(
            spin.find(Some(Duration::ZERO), |_| -> Option<()> { unreachable!("no time is left") }).is_err()
        );
        // It ends, and was not in vain.
        assert!(spin.find(Some(Duration::from_nanos(1)), |_| None::<()>).is_err());
        assert_eq!(spin.find(None, |_| Some("it")), Ok("it"));
    }

    #[test]
    fn the_most_patient_of_those_that_are_there_counts() {
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
