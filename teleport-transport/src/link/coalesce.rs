//! Holds small calls back for a moment, so that one system call sends several.
//!
//! A system call costs more than all other work for a small message. A call that is made while others are
//! open is held back, because its thread waits for an older answer first. It is sent
//! - when its thread waits for anything ([`flush_coalesced`]), or another thread waits for its answer;
//! - when half of the open calls or `MAX_COALESCED_BYTES` are held back, or the oldest of them is older than
//!   `MAX_GROUP_AGE`;
//! - with anything else that is sent on the link;
//! - at a check of the event loop, which also reads answers if no thread does.
//!
//! Nothing is held back while another thread writes or the socket is full, because the next write takes it
//! anyway. Never blocks. Bounds: as above; a check sends a call after at most two checks (`2 * MAX_PAUSE`),
//! or a little later on a busy event loop.

use std::cell::RefCell;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::port::{Flush, Port};
use super::status::{Flag, Status};
use super::writer::{Sending, Writer};
use crate::memory::deferred_drop::DropScope;
use crate::reactor::adaptive::Adaptive;
use crate::reactor::mailbox::{Command, on_poller_thread};

/// If more than this is queued, nothing is held back.
pub(super) const MAX_COALESCED_BYTES: u64 = 16 << 10;

/// Calls are sent once half of the open calls are held back, within these bounds. The other side then works
/// on them while this side makes the next ones. Measured over TCP with 64 calls of 64 B in flight: 0.88
/// million a second in groups of 16, 0.97 in groups of 32. If all open calls were one group, the sides would
/// wait for each other in turn: 32 in flight reach 0.6 instead of 0.8.
const GROUP_CALLS: std::ops::RangeInclusive<usize> = 8..=32;

/// A call that is older than this is sent at once. The age is checked once for `CALLS_PER_CHECK` calls, since
/// reading the clock costs as much as holding a call back.
const MAX_GROUP_AGE: Duration = Duration::from_micros(30);

const CALLS_PER_CHECK: usize = 4;

/// The time until the first check.
const MIN_PAUSE: Duration = Duration::from_micros(200);

/// The longest time between checks. It doubles after each check that found progress. A check costs two
/// context switches: with 5,000 a second instead of 600, 64 KiB arguments took 1.15 times as long, and calls
/// from 4 processes 1.11 times.
const MAX_PAUSE: Duration = Duration::from_micros(1600);

/// Checks stop after this many in a row found nothing to do.
const MAX_IDLE_CHECKS: u32 = 16;

/// The calls that a link holds back, and the state that the last check saw. `Flag::COALESCED` is set while a
/// call is held back.
#[derive(Debug, Default)]
pub(super) struct Coalesce {
    /// Counts how often held calls were sent.
    gone: u32,
    /// The event loop runs checks.
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
    /// Called when everything queued is about to be written.
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

    /// Lets the event loop run checks, if it does not yet.
    #[inline]
    fn begin_checks(&mut self, port: &Port) {
        if !self.is_checked {
            self.ask_for_checks(port);
        }
    }

    #[cold]
    fn ask_for_checks(&mut self, port: &Port) {
        self.is_checked = true;
        self.last = Seen { pause: MIN_PAUSE, ..Seen::default() };
        port.send(Command::Check(port.key, Instant::now() + MIN_PAUSE));
    }
}

thread_local! {
    static GROUP: RefCell<Option<Group>> = const { RefCell::new(None) };
}

/// The calls that a thread holds back on one link.
struct Group {
    key: usize,
    link: Weak<dyn Flush>,
    /// The link's `gone` when the group began.
    gone: u32,
    since: Instant,
    calls: usize,
}

/// Sends the calls that a link holds back, if it still exists.
#[cold]
pub(super) fn flush_other(link: &Weak<dyn Flush>) {
    if let Some(link) = link.upgrade() {
        link.flush_coalesced();
    }
}

/// Sends the calls that this thread holds back, on any link.
///
/// Call it before the thread waits for anything, with no lock held. [`block_on`](crate::block_on) does.
pub fn flush_coalesced() {
    // Fails while the thread ends; then the event loop sends them.
    let group = GROUP.try_with(|group| if group.borrow().is_some() { group.take() } else { None });
    if let Ok(Some(group)) = group
        && let Some(link) = group.link.upgrade()
    {
        link.flush_coalesced();
    }
}

/// Holds back the call that this thread has just queued. Returns false if it should be written now. Also
/// returns another link for which this thread held calls back, and which the caller flushes once it holds no
/// lock.
#[inline]
pub(super) fn hold(
    port: &Port,
    sending: &mut Sending,
    link: impl FnOnce() -> Weak<dyn Flush>,
) -> (bool, Option<Weak<dyn Flush>>) {
    let open_calls = sending.outbound.open_calls();
    let coalesce = &mut sending.coalesce;
    if on_poller_thread() || !coalesce.adaptive.should_try() {
        return (false, None);
    }
    let (key, gone) = (port.key, coalesce.gone);
    let held = GROUP.try_with(|current| {
        let mut current = current.borrow_mut();
        let Some(group) = current.as_mut().filter(|group| group.key == key && group.gone == gone) else {
            let before = current.replace(Group { key, link: link(), gone, since: Instant::now(), calls: 1 });
            // An earlier group of this link was sent.
            return (true, before.filter(|other| other.key != key).map(|other| other.link));
        };
        group.calls += 1;
        let enough = (open_calls / 2).clamp(*GROUP_CALLS.start(), *GROUP_CALLS.end());
        let is_old = || group.calls % CALLS_PER_CHECK == 0 && group.since.elapsed() > MAX_GROUP_AGE;
        let is_due = group.calls >= enough || is_old();
        if is_due {
            *current = None;
        }
        (!is_due, None)
    });
    // Fails while the thread ends; then the call is written now.
    let (is_held, other) = held.unwrap_or((false, None));
    if is_held {
        if !port.status.has(Flag::COALESCED) {
            port.status.set(Flag::COALESCED);
        }
        coalesce.begin_checks(port);
    }
    (is_held, other)
}

/// Called when calls are open and perhaps nobody reads. The thread that made them will most likely wait and
/// read soon. If it does not, a check lets the event loop watch the socket, and at once if another thread
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

/// Sends held calls, and lets answers be read, if two checks in a row find them untouched. Each such case
/// makes the link hold back less often. While checks find progress, they become rarer, since each takes the
/// processor from a working thread. Returns the time of the next check, if one is needed.
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
        // Taken without `on_write`, since holding it back gained nothing.
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
