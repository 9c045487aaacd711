//! One thread for the deadlines of all clients of the process.
//!
//! Flow: a client sets its alarm -> the thread sleeps until the earliest alarm -> the client ends its expired
//! calls and sets the next alarm. Bound: one entry for each client, which is removed with its client. The
//! thread starts with the first client and never ends, even if an alarm panics.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use teleport_transport::ForkGuard;

/// Called on the timer's thread at the set time. Must not block.
pub(crate) trait Alarm: Send + Sync {
    fn ring(&self, now: Instant);
}

/// Starts the timer's thread, if it does not run yet.
///
/// # Errors
/// Fails if the system has no thread left.
pub(crate) fn start() -> io::Result<()> {
    let mut schedule = TIMER.schedule.lock();
    if !schedule.is_running {
        std::thread::Builder::new().name("teleport-timer".into()).spawn(|| TIMER.run())?;
        schedule.is_running = true;
    }
    Ok(())
}

/// The alarm of one client. Dropping it stops the alarm.
pub(crate) struct AlarmClock {
    /// Never reused.
    id: u64,
    alarm: Weak<dyn Alarm>,
    at: Option<Instant>,
    process: ForkGuard,
}

impl AlarmClock {
    pub(crate) fn new(alarm: Weak<dyn Alarm>) -> AlarmClock {
        let mut schedule = TIMER.schedule.lock();
        schedule.last_id += 1;
        AlarmClock { id: schedule.last_id, alarm, at: None, process: ForkGuard::current() }
    }

    /// Rings at `at`, or earlier.
    pub(crate) fn ring_by(&mut self, at: Instant) {
        if self.at.is_none_or(|earlier| at < earlier) {
            self.set(Some(at));
        }
    }

    /// Rings at `at` instead of the time that was set before.
    pub(crate) fn set(&mut self, at: Option<Instant>) {
        let before = std::mem::replace(&mut self.at, at);
        let entries = &mut TIMER.schedule.lock().entries;
        if let Some(before) = before {
            entries.remove(&(before, self.id));
        }
        let Some(at) = at else { return };
        entries.insert((at, self.id), self.alarm.clone());
        if entries.first_key_value().is_some_and(|(first, _)| *first == (at, self.id)) {
            TIMER.changed.notify_one();
        }
    }

    #[cfg(test)]
    pub(crate) fn is_set(&self) -> bool {
        TIMER.schedule.lock().entries.keys().any(|(_, id)| *id == self.id)
    }
}

impl Drop for AlarmClock {
    fn drop(&mut self) {
        // In a forked process, the holder of the timer's lock may not exist.
        if self.at.is_some() && self.process.is_current() {
            self.set(None);
        }
    }
}

struct Timer {
    schedule: Mutex<Schedule>,
    /// The earliest entry has changed.
    changed: Condvar,
}

struct Schedule {
    entries: BTreeMap<(Instant, u64), Weak<dyn Alarm>>,
    last_id: u64,
    is_running: bool,
}

static TIMER: Timer = Timer {
    schedule: Mutex::new(Schedule { entries: BTreeMap::new(), last_id: 0, is_running: false }),
    changed: Condvar::new(),
};

impl Timer {
    fn run(&self) {
        let mut schedule = self.schedule.lock();
        loop {
            let now = Instant::now();
            let Some(entry) = schedule.entries.first_entry() else {
                self.changed.wait(&mut schedule);
                continue;
            };
            let at = entry.key().0;
            if at > now {
                self.changed.wait_until(&mut schedule, at);
                continue;
            }
            let alarm = entry.remove();
            MutexGuard::unlocked(&mut schedule, || ring(&alarm, now));
        }
    }
}

/// Rings one alarm. This may drop the last reference to its client, whose end runs user code. A panic must
/// not end the deadlines of the others.
fn ring(alarm: &Weak<dyn Alarm>, now: Instant) {
    let rung = catch_unwind(AssertUnwindSafe(|| {
        if let Some(alarm) = alarm.upgrade() {
            alarm.ring(now);
        }
    }));
    if rung.is_err() {
        tracing::error!("a client panicked while its deadlines were checked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    const MAX_WAIT: Duration = Duration::from_secs(30);

    struct Bell(mpsc::Sender<&'static str>, &'static str);

    impl Alarm for Bell {
        fn ring(&self, _now: Instant) {
            self.0.send(self.1).unwrap();
        }
    }

    fn clock<A: Alarm + 'static>(alarm: &Arc<A>) -> AlarmClock {
        start().unwrap();
        let alarm: Weak<A> = Arc::downgrade(alarm);
        AlarmClock::new(alarm)
    }

    #[test]
    fn the_earliest_rings_first_and_a_moved_one_rings_once() {
        let (sender, receiver) = mpsc::channel();
        let bells = ["late", "early", "moved"].map(|name| Arc::new(Bell(sender.clone(), name)));
        let [mut late, mut early, mut moved] = [0, 1, 2].map(|index| clock(&bells[index]));
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        late.set(Some(at(60)));
        moved.set(Some(at(40)));
        early.ring_by(at(20));
        early.ring_by(at(500));
        moved.set(Some(at(80)));
        let rung: Vec<_> = (0..3).map(|_| receiver.recv_timeout(MAX_WAIT).unwrap()).collect();
        assert_eq!(rung, ["early", "late", "moved"]);
        assert!(receiver.try_recv().is_err());
    }

    struct Panics;

    impl Alarm for Panics {
        fn ring(&self, _now: Instant) {
            panic!("this alarm panics");
        }
    }

    #[test]
    fn an_alarm_that_panics_ends_no_other() {
        let (sender, receiver) = mpsc::channel();
        let now = Instant::now();
        let (panics, bell) = (Arc::new(Panics), Arc::new(Bell(sender, "rings")));
        let (mut first, mut second) = (clock(&panics), clock(&bell));
        first.set(Some(now));
        second.set(Some(now + Duration::from_millis(1)));
        assert_eq!(receiver.recv_timeout(MAX_WAIT).unwrap(), "rings");
    }

    #[test]
    fn a_clock_that_is_dropped_leaves_nothing_behind() {
        let bell = Arc::new(Bell(mpsc::channel().0, "never"));
        let mut clock = clock(&bell);
        clock.set(Some(Instant::now() + Duration::from_secs(3600)));
        assert!(clock.is_set());
        let id = clock.id;
        drop(clock);
        assert!(TIMER.schedule.lock().entries.keys().all(|(_, set)| *set != id));
        assert_eq!(Arc::weak_count(&bell), 0);
    }
}
