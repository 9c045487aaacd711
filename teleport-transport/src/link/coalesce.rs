//! Small calls that wait a moment for others, so that one system call sends them together.
//!
//! A system call costs more than all else that is done for a small message. So a call that is made while
//! others are open is held back: its answer is not the one that its thread waits for next. It goes
//! - when its thread waits for anything ([`flush_coalesced`]), or another thread waits for its answer;
//! - when half of the open calls, or `MAX_COALESCED_BYTES`, have come together, or the oldest is older than
//!   `MAX_GROUP_AGE`;
//! - with anything else that is sent on the link;
//! - at a check of the event loop, which also has answers read that nobody reads.
//!
//! Nothing is held back while another thread writes, or while the socket is full: it goes together anyway.
//! Never blocks. Bounds: as above; by the event loop, two checks, so `2 * MAX_PAUSE`, and a little later
//! where it is busy.

use std::cell::RefCell;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::port::{Flush, Port};
use super::status::{Flag, Status};
use super::writer::{Sending, Writer};
use crate::memory::deferred_drop::DropScope;
use crate::reactor::adaptive::Adaptive;
use crate::reactor::mailbox::{Command, on_poller_thread};

/// With more than this queued, no message waits for another.
pub(super) const MAX_COALESCED_BYTES: u64 = 16 << 10;

/// Calls go when half of those that are open have come together, within these bounds: the other side begins
/// with them while this one makes the next. Measured with 64 of 64 B in flight over TCP: 0.88 million a
/// second in groups of 16, 0.97 of 32. With all of them in one group both sides wait for each other in turn,
/// and 32 in flight reach 0.6 instead of 0.8.
const GROUP_CALLS: std::ops::RangeInclusive<usize> = 8..=32;

/// A call that is older waits for no other.
const MAX_GROUP_AGE: Duration = Duration::from_micros(30);

/// The time to the first check.
const MIN_PAUSE: Duration = Duration::from_micros(200);

/// The longest time between checks. It doubles after each that found all in motion. A check costs two changes
/// of threads: measured with 5,000 a second instead of 600, 64 KiB arguments took 1.15 times as long, and
/// calls from 4 processes 1.11 times.
const MAX_PAUSE: Duration = Duration::from_micros(1600);

/// Checks end after this many that found nothing new.
const MAX_IDLE_CHECKS: u32 = 16;

/// What a link holds back, and what the event loop saw of it at the last check. `Flag::COALESCED` is set
/// while something is held.
#[derive(Debug, Default)]
pub(super) struct Coalesce {
    /// Counts how often what was held has gone.
    gone: u32,
    /// The event loop checks.
    is_checked: bool,
    last: Seen,
    adaptive: Adaptive,
}

#[derive(Debug, Default)]
struct Seen {
    gone: u32,
    leads: u32,
    is_held: bool,
    is_unread: bool,
    idle_checks: u32,
    pause: Duration,
}

impl Coalesce {
    /// All that is queued is about to be written.
    pub(super) fn on_write(&mut self, status: &Status) {
        if status.has(Flag::COALESCED) {
            self.take(status);
            self.adaptive.hit();
        }
    }

    fn take(&mut self, status: &Status) {
        status.clear(Flag::COALESCED);
        self.gone = self.gone.wrapping_add(1);
    }

    /// Has the event loop check, if it does not yet.
    fn begin_checks(&mut self, port: &Port) {
        if !std::mem::replace(&mut self.is_checked, true) {
            self.last = Seen { pause: MIN_PAUSE, ..Seen::default() };
            port.send(Command::Check(port.key, Instant::now() + MIN_PAUSE));
        }
    }
}

thread_local! {
    static GROUP: RefCell<Option<Group>> = const { RefCell::new(None) };
}

/// The calls that a thread holds back, on one link.
pub(super) struct Group {
    key: usize,
    link: Weak<dyn Flush>,
    /// The link's count when it began.
    gone: u32,
    since: Instant,
    calls: usize,
}

impl Group {
    pub(super) fn flush(&self) {
        if let Some(link) = self.link.upgrade() {
            link.flush_coalesced();
        }
    }
}

/// Sends the calls that this thread holds back, on whichever link.
///
/// Call it before the thread waits for anything, with no lock held. [`block_on`](crate::block_on) does.
pub fn flush_coalesced() {
    // Fails while the thread ends: the event loop sends them.
    let group = GROUP.try_with(|group| if group.borrow().is_some() { group.take() } else { None });
    if let Ok(Some(group)) = group {
        group.flush();
    }
}

/// Holds back the call that this thread has queued. Returns false if it is to be written now. Also returns
/// the group of another link, to be flushed once no lock is held.
pub(super) fn hold(
    port: &Port,
    sending: &mut Sending,
    link: impl FnOnce() -> Weak<dyn Flush>,
) -> (bool, Option<Group>) {
    let open_calls = sending.outbound.open_calls();
    let coalesce = &mut sending.coalesce;
    if on_poller_thread() || !coalesce.adaptive.should_try() {
        return (false, None);
    }
    let (key, gone, now) = (port.key, coalesce.gone, Instant::now());
    let held = GROUP.try_with(|current| {
        let mut current = current.borrow_mut();
        let Some(group) = current.as_mut().filter(|group| group.key == key && group.gone == gone) else {
            let before = current.replace(Group { key, link: link(), gone, since: now, calls: 1 });
            // An earlier group of this link has gone.
            return (true, before.filter(|other| other.key != key));
        };
        group.calls += 1;
        let enough = (open_calls / 2).clamp(*GROUP_CALLS.start(), *GROUP_CALLS.end());
        let is_due = group.calls >= enough || now - group.since > MAX_GROUP_AGE;
        if is_due {
            *current = None;
        }
        (!is_due, None)
    });
    // Fails while the thread ends: it writes now.
    let (is_held, other) = held.unwrap_or((false, None));
    if is_held {
        port.status.set(Flag::COALESCED);
        coalesce.begin_checks(port);
    }
    (is_held, other)
}

/// Calls are open, and perhaps nobody reads. The thread that made them most likely waits for them next, and
/// reads then. The event loop watches the socket if that does not happen soon, or at once if another thread
/// waits.
pub(super) fn leave_unread(port: &Port, sending: &mut Sending, is_waited_for: impl FnOnce() -> bool) {
    if !port.status.is_unread() {
        return;
    }
    if is_waited_for() || !sending.coalesce.adaptive.should_try() {
        sending.watch_if_unread(port);
    } else {
        sending.coalesce.begin_checks(port);
    }
}

/// Sends and reads what threads have left behind: what one check finds, and the next one finds untouched.
/// Each time, the link is trusted less. While it finds all in motion, it runs ever less often, since each
/// takes the processor from a thread that works. Returns when to check again, if there is need.
pub(super) fn check(port: &Port, writer: &Writer, now: Instant, is_open: bool) -> Option<Instant> {
    let _scope = DropScope::enter();
    let status = &port.status;
    let mut sending = writer.lock();
    let is_unread = status.is_unread() && sending.outbound.open_calls() > 0;
    let coalesce = &mut sending.coalesce;
    let (gone, leads, is_held) = (coalesce.gone, status.leads(), status.has(Flag::COALESCED));
    let last = &coalesce.last;
    let is_left = is_held && last.is_held && gone == last.gone;
    let is_left_unread = is_unread && last.is_unread && leads == last.leads;
    let moves = (gone, leads) != (last.gone, last.leads);
    let pause = if moves { (last.pause * 2).min(MAX_PAUSE) } else { MIN_PAUSE };
    let idle_checks = if is_held || is_unread || moves { 0 } else { last.idle_checks + 1 };
    coalesce.last = Seen { gone, leads, is_held, is_unread, idle_checks, pause };
    coalesce.is_checked = is_open && idle_checks < MAX_IDLE_CHECKS;
    let next = coalesce.is_checked.then(|| now + pause);
    if is_left_unread {
        coalesce.adaptive.miss();
    }
    if is_left {
        // Taken out here: to hold it back has not paid.
        coalesce.adaptive.miss();
        coalesce.take(status);
    }
    if is_left_unread {
        sending.watch_if_unread(port);
    }
    if is_left {
        writer.write(port, sending);
    }
    next
}
