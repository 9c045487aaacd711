//! One thread for the deadlines of all clients of the process.
//!
//! Flow: a client sets when it next wants to look at the clock -> the thread sleeps until the earliest -> the client
//! ends the calls whose time is over and sets the next time. Bound: one entry for each client, whatever its calls; it goes
//! with its client. The thread starts with the first deadline and never ends, whatever an alarm does.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// What is called when its time has come, on the timer's thread. Must not block.
pub(crate) trait Alarm: Send + Sync {
    fn ring(&self, now: Instant);
}

/// Names an alarm. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AlarmId(u64);

impl AlarmId {
    pub(crate) fn new() -> AlarmId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        AlarmId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

type Entries = BTreeMap<(Instant, AlarmId), Weak<dyn Alarm>>;

pub(crate) struct Timer {
    entries: Mutex<Entries>,
    /// The earliest entry has changed.
    changed: Condvar,
}

impl Timer {
    /// The timer of this process.
    ///
    /// # Errors
    /// What the system says when it has no thread left.
    pub(crate) fn shared() -> io::Result<&'static Timer> {
        static SHARED: OnceLock<Timer> = OnceLock::new();
        static STARTING: Mutex<bool> = Mutex::new(false);
        let timer = SHARED.get_or_init(|| Timer { entries: Mutex::default(), changed: Condvar::new() });
        let mut started = STARTING.lock();
        if !*started {
            std::thread::Builder::new().name("teleport-timer".into()).spawn(|| timer.run())?;
            *started = true;
        }
        Ok(timer)
    }

    /// Has `alarm` called at `at`, and no longer at `before`.
    pub(crate) fn set(&self, id: AlarmId, before: Option<Instant>, at: Instant, alarm: Weak<dyn Alarm>) {
        let mut entries = self.entries.lock();
        if let Some(before) = before {
            entries.remove(&(before, id));
        }
        entries.insert((at, id), alarm);
        if entries.first_key_value().is_some_and(|(first, _)| *first == (at, id)) {
            self.changed.notify_one();
        }
    }

    /// Forgets the alarm that was set for `at`.
    pub(crate) fn unset(&self, id: AlarmId, at: Instant) {
        self.entries.lock().remove(&(at, id));
    }

    #[cfg(test)]
    pub(crate) fn is_set(&self, id: AlarmId) -> bool {
        self.entries.lock().keys().any(|(_, set)| *set == id)
    }

    fn run(&self) {
        let mut entries = self.entries.lock();
        loop {
            let now = Instant::now();
            let Some(entry) = entries.first_entry() else {
                self.changed.wait(&mut entries);
                continue;
            };
            let at = entry.key().0;
            if at > now {
                self.changed.wait_until(&mut entries, at);
                continue;
            }
            let alarm = entry.remove();
            parking_lot::MutexGuard::unlocked(&mut entries, || ring(alarm, now));
        }
    }
}

/// Rings one alarm. It may be the last that holds its client, whose end runs code of the user's; whatever panics must not
/// end the deadlines of all others.
fn ring(alarm: Weak<dyn Alarm>, now: Instant) {
    let rung = catch_unwind(AssertUnwindSafe(|| {
        if let Some(alarm) = alarm.upgrade() {
            alarm.ring(now);
        }
    }));
    if rung.is_err() {
        tracing::error!("a client panicked as its deadlines were looked at");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    struct Bell(mpsc::Sender<&'static str>, &'static str);

    impl Alarm for Bell {
        fn ring(&self, _now: Instant) {
            self.0.send(self.1).unwrap();
        }
    }

    #[test]
    fn the_earliest_rings_first_and_a_moved_one_once() {
        let timer = Timer::shared().unwrap();
        let (sender, receiver) = mpsc::channel();
        let bells = ["late", "early", "moved"].map(|name| Arc::new(Bell(sender.clone(), name)));
        let weak =
            |index: usize| -> Weak<dyn Alarm> { Arc::downgrade(&(bells[index].clone() as Arc<dyn Alarm>)) };
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let moved = AlarmId::new();
        timer.set(AlarmId::new(), None, at(60), weak(0));
        timer.set(moved, None, at(40), weak(2));
        timer.set(AlarmId::new(), None, at(20), weak(1));
        timer.set(moved, Some(at(40)), at(80), weak(2));
        let rung: Vec<_> = (0..3).map(|_| receiver.recv_timeout(Duration::from_secs(30)).unwrap()).collect();
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
        let timer = Timer::shared().unwrap();
        let (sender, receiver) = mpsc::channel();
        let now = Instant::now();
        let panics: Arc<dyn Alarm> = Arc::new(Panics);
        let bell: Arc<dyn Alarm> = Arc::new(Bell(sender, "rings"));
        timer.set(AlarmId::new(), None, now, Arc::downgrade(&panics));
        timer.set(AlarmId::new(), None, now + Duration::from_millis(1), Arc::downgrade(&bell));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(30)).unwrap(), "rings");
    }

    #[test]
    fn what_is_unset_leaves_nothing_behind() {
        let timer = Timer { entries: Mutex::default(), changed: Condvar::new() };
        let (id, at) = (AlarmId::new(), Instant::now());
        let bell: Arc<dyn Alarm> = Arc::new(Bell(mpsc::channel().0, "never"));
        timer.set(id, None, at, Arc::downgrade(&bell));
        timer.unset(id, at);
        assert!(timer.entries.lock().is_empty());
        assert_eq!(Arc::weak_count(&bell), 0);
    }
}
