//! The order in which calls start: each connection has a queue of its calls (a line), and the lines take
//! turns.
//!
//! Flow: `push` appends a call to its connection's line -> the line's turn comes -> `next` returns its first
//! call, and the line moves behind all others. `remove` empties the entry of a withdrawn call, which it finds
//! by the call's number. Empty entries are dropped when they reach the front of their line, or when more than
//! half of the line's entries are empty.
//!
//! Some calls need a slot to start. If no slot is free, the call is set aside within its line, and later
//! calls pass it. A line with such calls is also in `blocked`. Blocked lines take every other turn while
//! slots are free, and a line keeps its place there until it gets a slot.
//!
//! A line whose first call is throttled has no turns until `release`.
//!
//! So a call waits for at most as many calls of each other connection as precede it in its own line, and for
//! twice as many if slots are short.
//!
//! Holds no locks and reads no clock. Bounds: two entries for each call, and two lines for each connection
//! with calls or `MIN_LINES` in all.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use teleport_transport::wire::QuickHash;

/// Lines without calls are kept for their memory, until there are this many lines.
const MIN_LINES: usize = 16;

/// A line without calls keeps memory for at most this many.
const MAX_KEPT_CAPACITY: usize = 256;

/// A call for a queue.
pub(crate) trait Queueable {
    /// The arguments of a call. The thread that removes the call from its queue gets them, and so decides
    /// what becomes of the call.
    type Arguments: Debug;

    /// Returns the number of the call's connection.
    fn connection(&self) -> usize;
    /// Returns true if the call needs a slot to start.
    fn needs_slot(&self) -> bool;
    /// Returns true once the call was withdrawn.
    fn is_withdrawn(&self) -> bool;
    /// Returns when the call's caller stops waiting.
    fn deadline(&self) -> Option<Instant>;
    /// Returns a key if the call must not start before [`release`](FairQueue::release) is called with it.
    /// Called when it is the call's turn.
    fn throttled_by(&self) -> Option<usize>;
    /// Returns the call's place in its queue.
    fn place(&self) -> &QueuePlace;
}

/// A call's number in its queue, or in its batcher. Used only under the lock of that.
#[derive(Debug, Default)]
pub(crate) struct QueuePlace(AtomicU64);

impl QueuePlace {
    pub(crate) fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A call that was queued, with its arguments.
pub(crate) type Queued<T> = (Arc<T>, <T as Queueable>::Arguments);

#[derive(Debug)]
pub(crate) struct FairQueue<T: Queueable> {
    /// By connection. A line in `turns` or `blocked` is never removed.
    lines: HashMap<usize, Line<T>, QuickHash>,
    /// Lines without calls are removed when there are more lines than this.
    max_lines: usize,
    /// Connections whose lines have `waiting` calls, in the order of their turns.
    turns: VecDeque<usize>,
    /// Connections whose lines have calls set `aside`, in the order of their turns for slots.
    blocked: VecDeque<usize>,
    /// True if the next slot is for a blocked line.
    is_turn_of_blocked: bool,
    count: usize,
    /// The number of the call that was queued last.
    last_number: u64,
}

/// The queue of one connection's calls.
///
/// Invariant: the first entry of each deque has a call, so a deque without calls is empty. The numbers of
/// each deque ascend.
#[derive(Debug)]
struct Line<T: Queueable> {
    waiting: VecDeque<Entry<T>>,
    /// Calls that found no slot. Each starts before all in `waiting` that need one.
    aside: VecDeque<Entry<T>>,
    /// Calls of both that are still queued.
    count: usize,
    /// True while it is in `turns`.
    has_turn: bool,
    /// True while it is in `blocked`.
    is_blocked: bool,
    throttled_by: Option<usize>,
}

#[derive(Debug)]
struct Entry<T: Queueable> {
    number: u64,
    /// `None` once it was removed.
    queued: Option<Queued<T>>,
}

/// A call that may start.
#[derive(Debug)]
pub(crate) struct Taken<T: Queueable, P> {
    pub(crate) call: Arc<T>,
    pub(crate) arguments: T::Arguments,
    /// Its slot, if it needs one.
    pub(crate) slot: Option<P>,
    /// True if other calls had passed it.
    pub(crate) was_aside: bool,
}

impl<T: Queueable> FairQueue<T> {
    pub(crate) fn new() -> FairQueue<T> {
        FairQueue {
            lines: HashMap::default(),
            max_lines: MIN_LINES,
            turns: VecDeque::new(),
            blocked: VecDeque::new(),
            is_turn_of_blocked: true,
            count: 0,
            last_number: 0,
        }
    }

    /// Returns how many calls are queued.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Returns false if no line has a turn.
    pub(crate) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Returns false if no call waits for a slot.
    pub(crate) fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Appends a call to its connection's line. Returns false if the line is throttled.
    #[inline]
    pub(crate) fn push(&mut self, call: Arc<T>, arguments: T::Arguments) -> bool {
        let connection = call.connection();
        if self.lines.len() >= self.max_lines && !self.lines.contains_key(&connection) {
            self.remove_empty_lines();
        }
        let line = self.lines.entry(connection).or_default();
        self.last_number += 1;
        call.place().set(self.last_number);
        line.push(Entry { number: self.last_number, queued: Some((call, arguments)) });
        self.count += 1;
        line.join(connection, &mut self.turns, &mut self.blocked);
        line.throttled_by.is_none()
    }

    /// Removes a call. Returns `None` if it is not queued.
    pub(crate) fn remove(&mut self, call: &T) -> Option<Queued<T>> {
        let queued = self.lines.get_mut(&call.connection())?.remove(call.place().get())?;
        self.count -= 1;
        Some(queued)
    }

    /// Returns the next call that may start. `reserve` returns a slot if one is free.
    #[inline]
    pub(crate) fn next<P>(&mut self, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        // If there is no slot for one call, there is none for the others.
        let mut has_slots = true;
        let mut reserve = || {
            let slot = if has_slots { reserve() } else { None };
            has_slots = slot.is_some();
            slot
        };
        if self.is_turn_of_blocked && self.has_blocked() {
            let taken = self.next_blocked(&mut reserve);
            self.is_turn_of_blocked = taken.is_none();
            if taken.is_some() {
                return taken;
            }
        }
        self.is_turn_of_blocked = true;
        let taken = self.next_turn(&mut reserve);
        if taken.is_some() || !self.has_blocked() {
            return taken;
        }
        let taken = self.next_blocked(&mut reserve);
        self.is_turn_of_blocked = taken.is_none();
        taken
    }

    /// Gives the lines that are throttled by `key` their turns again. Returns false if there are none.
    pub(crate) fn release(&mut self, key: usize) -> bool {
        let mut any = false;
        for (connection, line) in self.lines.iter_mut().filter(|(_, line)| line.throttled_by == Some(key)) {
            line.throttled_by = None;
            line.join(*connection, &mut self.turns, &mut self.blocked);
            any = true;
        }
        any
    }

    /// Removes all calls for which `is_one` returns true, and returns them. Visits each call.
    pub(crate) fn remove_if(&mut self, is_one: impl Fn(&T) -> bool) -> Vec<Queued<T>> {
        let mut found = Vec::new();
        for line in self.lines.values_mut() {
            let before = found.len();
            for entry in line.aside.iter_mut().chain(&mut line.waiting) {
                found.extend(entry.queued.take_if(|(call, _)| is_one(call)));
            }
            line.count -= found.len() - before;
            line.trim();
        }
        self.count -= found.len();
        found
    }

    /// Returns all calls, in any order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Arc<T>> {
        self.lines.values().flat_map(Line::calls)
    }

    /// Removes all calls, and returns them in the order of each connection.
    pub(crate) fn drain(&mut self) -> Vec<Queued<T>> {
        self.remove_if(|_| true)
    }

    /// Returns the number of entries and of lines that have memory.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> (usize, usize) {
        (self.lines.values().map(|line| line.waiting.len() + line.aside.len()).sum(), self.lines.len())
    }

    #[inline]
    fn next_turn<P>(&mut self, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        while let Some(connection) = self.turns.pop_front() {
            let line = self.lines.get_mut(&connection)?;
            line.has_turn = false;
            let taken = line.take(reserve);
            if taken.as_ref().is_some_and(|taken| taken.was_aside) && mem::take(&mut line.is_blocked) {
                // It had a slot, so it moves behind the others that wait for one.
                self.blocked.retain(|other| *other != connection);
            }
            line.join(connection, &mut self.turns, &mut self.blocked);
            if taken.is_some() {
                self.count -= 1;
                return taken;
            }
        }
        None
    }

    #[inline(never)]
    fn next_blocked<P>(&mut self, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        while let Some(connection) = self.blocked.front().copied() {
            let line = self.lines.get_mut(&connection)?;
            let taken = line.take_aside(reserve);
            if taken.is_none() && !line.aside.is_empty() && line.throttled_by.is_none() {
                return None;
            }
            self.blocked.pop_front();
            line.is_blocked = false;
            line.join(connection, &mut self.turns, &mut self.blocked);
            if taken.is_some() {
                self.count -= 1;
                return taken;
            }
        }
        None
    }

    fn remove_empty_lines(&mut self) {
        self.lines.retain(|_, line| line.count > 0);
        let has_line = |connection: &usize| self.lines.contains_key(connection);
        self.turns.retain(has_line);
        self.blocked.retain(has_line);
        self.max_lines = MIN_LINES.max(2 * self.lines.len());
    }
}

impl<T: Queueable> Default for Line<T> {
    fn default() -> Line<T> {
        let (waiting, aside) = (VecDeque::new(), VecDeque::new());
        Line { waiting, aside, count: 0, has_turn: false, is_blocked: false, throttled_by: None }
    }
}

impl<T: Queueable> Line<T> {
    fn calls(&self) -> impl Iterator<Item = &Arc<T>> {
        self.aside.iter().chain(&self.waiting).filter_map(|entry| Some(&entry.queued.as_ref()?.0))
    }

    #[inline]
    fn push(&mut self, entry: Entry<T>) {
        // If all others wait for a slot, it waits with them. Otherwise it keeps its order among the others.
        let is_aside = self.waiting.is_empty() && !self.aside.is_empty() && entry.needs_slot();
        let calls = if is_aside { &mut self.aside } else { &mut self.waiting };
        calls.push_back(entry);
        self.count += 1;
    }

    fn remove(&mut self, number: u64) -> Option<Queued<T>> {
        let removed = [&mut self.aside, &mut self.waiting].into_iter().find_map(|calls| {
            let index = calls.binary_search_by_key(&number, |entry| entry.number).ok()?;
            calls[index].queued.take()
        })?;
        self.count -= 1;
        self.trim();
        Some(removed)
    }

    /// Appends the line to the queues where it belongs and is not yet.
    #[inline]
    fn join(&mut self, connection: usize, turns: &mut VecDeque<usize>, blocked: &mut VecDeque<usize>) {
        if self.throttled_by.is_some() {
            return;
        }
        if !self.waiting.is_empty() && !mem::replace(&mut self.has_turn, true) {
            turns.push_back(connection);
        }
        if !self.aside.is_empty() && !mem::replace(&mut self.is_blocked, true) {
            blocked.push_back(connection);
        }
    }

    /// Takes the first call that may start, and sets aside those before it that find no slot.
    #[inline]
    fn take<P>(&mut self, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        // The calls that it had a turn for may be gone.
        if !self.waiting.is_empty()
            && let Some(taken) = self.take_aside(reserve)
        {
            return Some(taken);
        }
        while !self.waiting.is_empty() && !self.check_throttled() {
            let needs_slot = self.waiting.front()?.needs_slot();
            let slot = if needs_slot { reserve() } else { None };
            let entry = self.waiting.pop_front()?;
            if !needs_slot || slot.is_some() {
                return self.started(entry, slot, false);
            }
            self.aside.push_back(entry);
            self.trim();
        }
        None
    }

    /// Takes the first call that was set aside, if there is a slot.
    #[inline]
    fn take_aside<P>(&mut self, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        if self.aside.is_empty() || self.check_throttled() {
            return None;
        }
        let slot = Some(reserve()?);
        let entry = self.aside.pop_front()?;
        self.started(entry, slot, true)
    }

    #[inline]
    fn check_throttled(&mut self) -> bool {
        if self.throttled_by.is_none() {
            let first = self.aside.front().or(self.waiting.front());
            let first = first.and_then(|entry| entry.queued.as_ref());
            self.throttled_by = first.and_then(|(call, _)| call.throttled_by());
        }
        self.throttled_by.is_some()
    }

    #[inline]
    fn started<P>(&mut self, entry: Entry<T>, slot: Option<P>, was_aside: bool) -> Option<Taken<T, P>> {
        self.count -= 1;
        self.trim();
        entry.queued.map(|(call, arguments)| Taken { call, arguments, slot, was_aside })
    }

    /// Drops the entries of removed calls: those at the front, and all if they outnumber the others.
    #[inline]
    fn trim(&mut self) {
        if self.waiting.len() + self.aside.len() > self.count {
            self.drop_empty();
        }
        if self.count == 0 {
            self.throttled_by = None;
            for calls in [&mut self.waiting, &mut self.aside] {
                if calls.capacity() > MAX_KEPT_CAPACITY {
                    calls.shrink_to(MAX_KEPT_CAPACITY);
                }
            }
        }
    }

    #[cold]
    fn drop_empty(&mut self) {
        let is_sparse = self.waiting.len() + self.aside.len() > 2 * self.count;
        for calls in [&mut self.waiting, &mut self.aside] {
            if is_sparse {
                calls.retain(|entry| entry.queued.is_some());
            }
            while calls.front().is_some_and(|entry| entry.queued.is_none()) {
                calls.pop_front();
            }
        }
    }
}

impl<T: Queueable> Entry<T> {
    fn needs_slot(&self) -> bool {
        self.queued.as_ref().is_some_and(|(call, _)| call.needs_slot())
    }
}
