//! One thread for the deadlines of all clients of the process.
//!
//! Flow: a client sets when it next wants to look at the clock -> the thread sleeps until the earliest -> the client
//! ends the calls whose time is over and sets the next time. Bound: one entry for each client, whatever its calls.
//! The thread starts with the first deadline and never ends.

use std::collections::BTreeMap;
use std::io;
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
            parking_lot::MutexGuard::unlocked(&mut entries, || {
                if let Some(alarm) = alarm.upgrade() {
                    alarm.ring(now);
                }
            });
        }
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
}
