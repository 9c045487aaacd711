//! Small messages that wait a moment for others, so that one system call sends them together.
//!
//! A system call costs more than all else that is done for a small message. So a call that is made while others are open is
//! held back: its answer is not the one that its thread waits for next. It goes when its thread waits for anything
//! (`release_held`), when half of the open calls or `MAX_HELD_BYTES` have come together, when a later one finds it `MAX_HELD` old,
//! or with anything else of the link, or when another thread comes to wait for its answer. Should its thread do something else for
//! long, the poller sends it, and has answers read that nobody reads, since the thread that did so left to come back soon: while
//! that may be, it looks from time to time, and helps with what it found at two looks. Each time that it had to, the link is
//! trusted less; while it finds all in motion, it looks ever less often, since each look takes the processor from who works there. Nothing is held back while the right to write is taken: it goes together anyway.
//!
//! In the same way, answers that are given while a turn of reading tells of its calls go together; `release_answers` sends them
//! before something that takes longer. A thread that has many answers at once says so with `answers_together`.
//!
//! Never blocks. Bounds: as above; by the poller, two looks, so `2 * MAX_PAUSE`, and a little later where it is busy.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Link;
use crate::reactor::adaptive::Adaptive;
use crate::reactor::mailbox::{Command, on_poller_thread};

/// With more than this queued, no message waits for another.
pub(super) const MAX_HELD_BYTES: u64 = 16 << 10;

/// Calls go when half of those that are open have come together, within these bounds: the other side begins with them while this
/// one makes the next. Measured with 64 of 64 B in flight over TCP: 0.88 million a second in groups of 16, 0.97 of 32; with all of
/// them in one group both sides wait for each other in turn, and 32 in flight reach 0.6 instead of 0.8.
const HELD_CALLS: std::ops::RangeInclusive<usize> = 8..=32;

/// So many answers wait for no more. A side that answers does not know how many calls its peer keeps open.
const MAX_HELD_ANSWERS: u32 = 24;

/// A message that is older waits for no other.
const MAX_HELD: Duration = Duration::from_micros(30);

/// How long the poller waits before it looks for what was left behind.
const MIN_PAUSE: Duration = Duration::from_micros(200);

/// How long at most: twice as long as before after each look that found all in motion. A look costs two changes of threads:
/// measured with 5,000 a second instead of 600, 64 KiB arguments took 1.15 times as long, and calls from 4 processes 1.11 times.
const MAX_PAUSE: Duration = Duration::from_micros(1600);

/// The poller stops looking after so many looks that found nothing new.
const MAX_IDLE_LOOKS: u32 = 16;

/// What a link holds back.
#[derive(Debug, Default)]
pub(super) struct Coalesce {
    /// Something may be held that nobody writes yet.
    held: AtomicBool,
    /// Counts how often what was held has gone.
    gone: AtomicU32,
    /// The poller looks.
    guarded: AtomicBool,
    adaptive: Adaptive,
    guard: Mutex<Guard>,
}

impl Coalesce {
    /// Whether something may be held that nobody writes yet.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// What is queued is about to be written.
    pub(super) fn goes(&self) {
        if self.is_held() && self.take() {
            self.adaptive.hit();
        }
    }

    /// Whoever takes out what is held writes it next; false if another has.
    fn take(&self) -> bool {
        let taken = self.held.swap(false, Ordering::SeqCst);
        if taken {
            self.gone.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

/// What a thread holds back.
struct Held {
    key: usize,
    link: Weak<Link>,
    /// The link's count when it began.
    gone: u32,
    since: Instant,
    messages: usize,
}

impl Held {
    fn new(link: &Arc<Link>, since: Instant) -> Held {
        let gone = link.coalesce.gone.load(Ordering::Relaxed);
        Held { key: link.key, link: Arc::downgrade(link), gone, since, messages: 1 }
    }

    fn is_of(&self, link: &Link) -> bool {
        self.key == link.key && self.gone == link.coalesce.gone.load(Ordering::Relaxed)
    }

    fn release(&self) {
        if let Some(link) = self.link.upgrade()
            && link.coalesce.is_held()
        {
            link.flush();
        }
    }
}

/// The answers of one turn of reading, or of a thread that has many at once.
#[derive(Clone, Copy, Debug)]
struct Cork {
    key: usize,
    is_turn: bool,
    /// Whether they wait for each other.
    gathers: bool,
    answers: u32,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
    static CORK: Cell<Option<Cork>> = const { Cell::new(None) };
}

/// Sends what this thread has held back, on whichever link. Call it before the thread waits for anything, with no lock held;
/// [`block_on`](crate::block_on) does.
pub fn release_held() {
    // Fails while the thread ends: the poller sends it.
    let held = HELD.try_with(|held| if held.borrow().is_some() { held.take() } else { None });
    if let Ok(Some(held)) = held {
        held.release();
    }
}

impl Link {
    // ---- Calls ----

    /// Holds back the call that this thread has queued; false if it is to be written now.
    pub(super) fn holds(self: &Arc<Self>, open_calls: usize) -> bool {
        if on_poller_thread() || !self.coalesce.adaptive.should_try() {
            return false;
        }
        let now = Instant::now();
        // Fails while the thread ends: it writes now.
        let Ok((is_due, other)) = HELD.try_with(|held| self.hold_on(&mut held.borrow_mut(), open_calls, now))
        else {
            return false;
        };
        if let Some(other) = other {
            other.release();
        }
        if is_due {
            return false;
        }
        self.coalesce.held.store(true, Ordering::SeqCst);
        self.guard();
        true
    }

    /// Counts a call into what this thread holds. Says whether all of that is to go now, and gives what it held on another link.
    fn hold_on(
        self: &Arc<Self>,
        held: &mut Option<Held>,
        open_calls: usize,
        now: Instant,
    ) -> (bool, Option<Held>) {
        let Some(of) = held.as_mut().filter(|held| held.is_of(self)) else {
            return (false, held.replace(Held::new(self, now)));
        };
        of.messages += 1;
        let enough = (open_calls / 2).clamp(*HELD_CALLS.start(), *HELD_CALLS.end());
        let is_due = of.messages >= enough || now - of.since > MAX_HELD;
        if is_due {
            *held = None;
        }
        (is_due, None)
    }

    /// Calls are open, and no thread may be reading. Who made them most likely waits for them next, and reads then: the poller
    /// takes over where that does not happen soon, or where others wait.
    pub(super) fn leave_unread(self: &Arc<Self>) {
        if self.driven.load(Ordering::SeqCst) || !self.unwatched.load(Ordering::SeqCst) {
            return;
        }
        if self.handler.is_waited_for() || !self.coalesce.adaptive.should_try() {
            self.watch_again();
        } else {
            self.guard();
        }
    }

    fn is_unread(&self) -> bool {
        self.unwatched.load(Ordering::SeqCst)
            && !self.driven.load(Ordering::SeqCst)
            && self.outbound.lock().open_calls() > 0
    }

    fn guard(self: &Arc<Self>) {
        if !self.coalesce.guarded.swap(true, Ordering::SeqCst) {
            self.coalesce.guard.lock().begin();
            self.poller.send(Command::Check(self.key, Instant::now() + MIN_PAUSE));
        }
    }

    // ---- Answers ----

    /// This thread reads, and tells the handler what arrives, until `end_turn`.
    pub(super) fn begin_turn(&self) {
        CORK.set(Some(Cork { key: self.key, is_turn: true, gathers: false, answers: 0 }));
    }

    /// Has the answers that this thread gives go together from here on, if `gathers`, until the turn ends.
    pub(super) fn gather_answers(self: &Arc<Self>, gathers: bool) {
        if !gathers {
            self.release_answers();
        }
        CORK.set(self.cork().map(|cork| Cork { gathers, ..cork }));
    }

    /// Whether this thread is between `begin_turn` and `end_turn`.
    pub(super) fn is_in_turn(&self) -> bool {
        self.cork().is_some_and(|cork| cork.is_turn)
    }

    fn cork(&self) -> Option<Cork> {
        CORK.get().filter(|cork| cork.key == self.key)
    }

    /// Whether the answer that was queued just now goes with others.
    pub(super) fn is_corked(&self) -> bool {
        let Some(cork) = self.cork().filter(|cork| cork.gathers) else { return false };
        let answers = (cork.answers + 1) % MAX_HELD_ANSWERS;
        CORK.set(Some(Cork { answers, ..cork }));
        answers > 0
    }

    /// Sends the answers that wait for others of this turn of reading. A handler calls it before it does what takes long.
    pub fn release_answers(self: &Arc<Self>) {
        if let Some(cork) = self.cork().filter(|cork| cork.answers > 0) {
            CORK.set(Some(Cork { answers: 0, ..cork }));
            self.flush();
        }
    }

    /// The turn is over.
    pub(super) fn end_turn(self: &Arc<Self>) {
        if CORK.take().is_some_and(|cork| cork.key == self.key && cork.answers > 0) {
            self.flush();
        }
    }
}

/// As long as it lives, small answers of the thread that has it wait for each other, on one link. See
/// [`Link::answers_together`].
#[must_use = "what is held goes when this is dropped"]
#[derive(Debug)]
pub struct AnswersTogether<'a> {
    link: &'a Arc<Link>,
    before: Option<Cork>,
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl Link {
    /// Has the small answers that this thread gives on this link go together, with fewer system calls, until what this gives is
    /// dropped; so many leave before that the peer can begin with them. For a thread that has many answers ready: it does
    /// nothing else meanwhile that takes long.
    pub fn answers_together(self: &Arc<Self>) -> AnswersTogether<'_> {
        let cork = Cork { key: self.key, is_turn: false, gathers: true, answers: 0 };
        AnswersTogether { link: self, before: CORK.replace(Some(cork)), _not_send: PhantomData }
    }
}

impl Drop for AnswersTogether<'_> {
    fn drop(&mut self) {
        let key = self.link.key;
        let holds_nothing = |cork: &Cork| cork.key == key && !cork.is_turn && cork.answers == 0;
        // Where this thread has read meanwhile, on any link, nobody knows what was held before that.
        if !CORK.replace(self.before).as_ref().is_some_and(holds_nothing) {
            self.link.flush();
        }
    }
}

/// What the poller saw of a link when it looked last.
#[derive(Debug, Default)]
struct Guard {
    gone: u32,
    is_held: bool,
    drives: usize,
    is_unread: bool,
    idle_looks: u32,
    pause: Duration,
}

impl Guard {
    fn begin(&mut self) {
        *self = Guard { pause: MIN_PAUSE, ..Guard::default() };
    }
}

impl Link {
    /// Sends and reads what was left behind since the last check. Returns when to check again, if there is need.
    pub(super) fn check(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        let gather = &self.coalesce;
        let mut last = gather.guard.lock();
        let (gone, drives) = (gather.gone.load(Ordering::Relaxed), self.drives.load(Ordering::SeqCst));
        let (is_held, is_unread) = (gather.is_held(), self.is_unread());
        // Taken out first: what the poller has to send has not paid.
        if is_held && last.is_held && gone == last.gone && gather.take() {
            gather.adaptive.miss();
            self.flush();
        }
        if is_unread && last.is_unread && drives == last.drives {
            gather.adaptive.miss();
            self.watch_unless_read();
        }
        let moves = (gone, drives) != (last.gone, last.drives);
        let pause = if moves { (last.pause * 2).min(MAX_PAUSE) } else { MIN_PAUSE };
        let is_idle = !is_held && !is_unread && !moves;
        let idle_looks = if is_idle { last.idle_looks + 1 } else { 0 };
        *last = Guard { gone, is_held, drives, is_unread, idle_looks, pause };
        drop(last);
        if self.closed.get().is_some() {
            return None;
        }
        if idle_looks < MAX_IDLE_LOOKS {
            return Some(now + pause);
        }
        gather.guarded.store(false, Ordering::SeqCst);
        // Who left something behind before this counted on the poller.
        if gather.is_held() || self.is_unread() {
            self.guard();
        }
        None
    }
}
