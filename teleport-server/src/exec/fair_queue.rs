//! Whose turn it is: calls in lines, one for each connection that has any, and the order of these lines.
//!
//! Flow: `push` to the end of its connection's line -> the line's turn comes -> `next` gives its first call, and the line goes
//! behind all others. A call that finds no place is set aside within its line, and later ones go past it. A line with such
//! calls also stands among those that are `blocked`, which take every other turn while there are places: whatever else the
//! line has or loses, it stays where it stands there until it gets a place.
//! So whatever others send, a call waits for no more calls of each of them than stand before it in its own line, and where
//! places are short for twice as many turns.
//! Knows no locks and no clock. Bound: what was pushed; a line ends with its last call, but for one that is kept.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::exec::lists::{List, Lists, NONE};

/// What the queue asks about a call.
pub(crate) trait Waiting {
    /// The connection that it came on, as a number of its own.
    fn connection(&self) -> usize;
    /// Whether it needs a place to start.
    fn needs_place(&self) -> bool;
    /// Whether it still wants to run.
    fn is_alive(&self) -> bool;
    /// When nobody waits for it any more.
    fn deadline(&self) -> Option<Instant>;
    /// Where the queue keeps its place in line.
    fn seat(&self) -> &Seat;
}

/// Where in a queue a call stands, so that it can leave at once. Used under the queue's lock alone.
#[derive(Debug)]
pub(crate) struct Seat(AtomicU32);

impl Default for Seat {
    fn default() -> Seat {
        Seat(AtomicU32::new(NONE))
    }
}

#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    calls: Lists<Seated<T>>,
    lines: Lists<Line>,
    by_connection: HashMap<usize, u32, BuildHasherDefault<KeyHasher>>,
    /// The line that was pushed to last: it stays when it has no calls, so that one connection at work looks nothing up.
    recent: u32,
    /// Lines with calls that were not set aside, in the order of their turns.
    turns: List,
    /// Lines with calls that were set aside, in the order of their turns for places; numbers of lines, since one may
    /// stand among `turns` too.
    blocked: List,
    blocked_lines: Lists<u32>,
    /// Whether the next place is for a blocked line.
    is_turn_of_blocked: bool,
    /// Calls that are here.
    count: usize,
    /// Those of them that were set aside.
    aside_count: usize,
}

#[derive(Debug)]
struct Seated<T> {
    call: Arc<T>,
    line: u32,
    is_aside: bool,
}

/// The calls of one connection. Invariant: it has at least one, unless it is the most recent line.
#[derive(Debug)]
struct Line {
    connection: usize,
    waiting: List,
    /// Calls that found no place. Invariant: each starts before all in `waiting` that need one.
    aside: List,
    /// Whether it stands among `turns`.
    has_turn: bool,
    /// Where it stands among those that are `blocked`.
    blocked_at: u32,
}

impl Line {
    fn new(connection: usize) -> Line {
        let (waiting, aside) = (List::EMPTY, List::EMPTY);
        Line { connection, waiting, aside, has_turn: false, blocked_at: NONE }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.aside.is_empty()
    }
}

/// A call whose turn it is, with its place if it needs one.
#[derive(Debug)]
pub(crate) struct Taken<T, P> {
    pub(crate) call: Arc<T>,
    pub(crate) place: Option<P>,
    /// Whether it had been passed over before.
    pub(crate) was_aside: bool,
}

impl<T: Waiting> FairQueue<T> {
    pub(crate) fn new() -> FairQueue<T> {
        FairQueue {
            calls: Lists::new(),
            lines: Lists::new(),
            by_connection: HashMap::default(),
            recent: NONE,
            turns: List::EMPTY,
            blocked: List::EMPTY,
            blocked_lines: Lists::new(),
            is_turn_of_blocked: true,
            count: 0,
            aside_count: 0,
        }
    }

    /// How many calls there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether any call but those that were set aside waits in a line.
    pub(crate) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether any call was set aside.
    pub(crate) fn has_aside(&self) -> bool {
        self.aside_count > 0
    }

    /// Adds a call behind all of its connection.
    pub(crate) fn push(&mut self, call: Arc<T>) {
        let at = self.line_of(call.connection());
        // Where only such wait it is one of them; else it keeps its order among the others.
        let line = self.lines.get(at);
        let is_aside = line.waiting.is_empty() && !line.aside.is_empty() && call.needs_place();
        let seat = self.seat(call, at, is_aside);
        let line = self.lines.get_mut(at);
        self.calls.link_last(if is_aside { &mut line.aside } else { &mut line.waiting }, seat);
        self.settle(at);
    }

    /// Adds a call before all of its connection.
    pub(crate) fn push_first(&mut self, call: Arc<T>) {
        let at = self.line_of(call.connection());
        let is_aside = !self.lines.get(at).aside.is_empty() && call.needs_place();
        let seat = self.seat(call, at, is_aside);
        let line = self.lines.get_mut(at);
        self.calls.link_first(if is_aside { &mut line.aside } else { &mut line.waiting }, seat);
        self.settle(at);
    }

    /// Takes out a call wherever it stands; false if it is not here.
    pub(crate) fn remove(&mut self, call: &T) -> bool {
        let seat = call.seat().0.load(Ordering::Relaxed);
        if seat == NONE {
            return false;
        }
        let (at, _) = self.leave(seat);
        self.settle(at);
        true
    }

    /// The next call that may start.
    pub(crate) fn next<P>(&mut self, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        // Asked once too often at most: who finds none finds none for all.
        let mut are_places = true;
        let mut reserve = || {
            let place = if are_places { reserve() } else { None };
            are_places = place.is_some();
            place
        };
        if let Some(first) = self.blocked.first()
            && (self.is_turn_of_blocked || self.turns.is_empty())
        {
            let at = *self.blocked_lines.get(first);
            if let Some(taken) = self.take_aside(at, &mut reserve) {
                self.is_turn_of_blocked = false;
                self.settle(at);
                return Some(taken);
            }
        }
        self.is_turn_of_blocked = true;
        while let Some(at) = self.turns.first() {
            let taken = self.turn_of(at, &mut reserve);
            // Behind all others, if there are any.
            if !self.turns.is_short() {
                self.leave_turns(at);
            }
            self.settle(at);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// Takes out all calls of which this is true. Looks at each.
    pub(crate) fn remove_if(&mut self, is_one: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let those = self.calls.all().filter(|(_, seated)| is_one(&seated.call));
        let seats: Vec<u32> = those.map(|(seat, _)| seat).collect();
        let mut removed = Vec::with_capacity(seats.len());
        for seat in seats {
            let (at, call) = self.leave(seat);
            self.settle(at);
            removed.push(call);
        }
        removed
    }

    /// All calls that are here, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.calls.all().map(|(_, seated)| &*seated.call)
    }

    /// Takes out all calls, in the order in which each connection made them.
    pub(crate) fn drain(&mut self) -> Vec<Arc<T>> {
        let mut drained = Vec::with_capacity(self.count);
        while let Some(at) = self.turns.first().or(self.blocked.first().map(|at| *self.blocked_lines.get(at)))
        {
            let line = self.lines.get(at);
            if let Some(seat) = line.aside.first().or(line.waiting.first()) {
                drained.push(self.leave(seat).1);
            }
            self.settle(at);
        }
        drained
    }

    /// How many calls and lines there is memory for.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> (usize, usize) {
        (self.calls.len(), self.lines.len())
    }

    // ---- One line ----

    /// The first call of a line that may start; those without a place before it are set aside.
    fn turn_of<P>(&mut self, at: u32, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        if let Some(taken) = self.take_aside(at, reserve) {
            return Some(taken);
        }
        while let Some(seat) = self.lines.get(at).waiting.first() {
            let needs_place = self.calls.get(seat).call.needs_place();
            // Those set aside come first, and have just found no place.
            let place = if needs_place { reserve() } else { None };
            if !needs_place || place.is_some() {
                let (_, call) = self.leave(seat);
                return Some(Taken { call, place, was_aside: false });
            }
            let line = self.lines.get_mut(at);
            self.calls.unlink(&mut line.waiting, seat);
            self.calls.link_last(&mut line.aside, seat);
            self.calls.get_mut(seat).is_aside = true;
            self.aside_count += 1;
        }
        None
    }

    /// The first of those set aside in a line, if there is a place; the line goes behind all that are blocked.
    fn take_aside<P>(&mut self, at: u32, reserve: &mut impl FnMut() -> Option<P>) -> Option<Taken<T, P>> {
        let seat = self.lines.get(at).aside.first()?;
        let place = Some(reserve()?);
        let (_, call) = self.leave(seat);
        self.leave_blocked(at);
        Some(Taken { call, place, was_aside: true })
    }

    fn seat(&mut self, call: Arc<T>, line: u32, is_aside: bool) -> u32 {
        self.count += 1;
        self.aside_count += usize::from(is_aside);
        let seat = self.calls.add(Seated { call, line, is_aside });
        self.calls.get(seat).call.seat().0.store(seat, Ordering::Relaxed);
        seat
    }

    /// Takes a call out of its line, whose turns the caller settles.
    fn leave(&mut self, seat: u32) -> (u32, Arc<T>) {
        let Seated { line: at, is_aside, .. } = *self.calls.get(seat);
        let line = self.lines.get_mut(at);
        self.calls.unlink(if is_aside { &mut line.aside } else { &mut line.waiting }, seat);
        let call = self.calls.take(seat).call;
        call.seat().0.store(NONE, Ordering::Relaxed);
        self.count -= 1;
        self.aside_count -= usize::from(is_aside);
        (at, call)
    }

    // ---- The order of lines ----

    /// The line of a connection: a new one, which the caller fills and settles, if it has none.
    fn line_of(&mut self, connection: usize) -> u32 {
        if self.recent != NONE && self.lines.get(self.recent).connection == connection {
            return self.recent;
        }
        let new = || self.lines.add(Line::new(connection));
        let at = *self.by_connection.entry(connection).or_insert_with(new);
        let before = std::mem::replace(&mut self.recent, at);
        if before != NONE && self.lines.get(before).is_empty() {
            self.end_line(before);
        }
        at
    }

    fn end_line(&mut self, at: u32) {
        let line = self.lines.take(at);
        self.by_connection.remove(&line.connection);
    }

    /// Puts a line where it belongs, at the end where it does not stand there yet, and ends one that has no calls.
    fn settle(&mut self, at: u32) {
        let line = self.lines.get(at);
        match (line.waiting.is_empty(), line.has_turn) {
            (true, true) => self.leave_turns(at),
            (false, false) => self.join_turns(at),
            _ => {}
        }
        let line = self.lines.get(at);
        match (line.aside.is_empty(), line.blocked_at) {
            (true, NONE) => {}
            (true, _) => self.leave_blocked(at),
            (false, NONE) => self.join_blocked(at),
            (false, _) => {}
        }
        if self.lines.get(at).is_empty() && at != self.recent {
            self.end_line(at);
        }
    }

    fn join_turns(&mut self, at: u32) {
        self.lines.link_last(&mut self.turns, at);
        self.lines.get_mut(at).has_turn = true;
    }

    fn leave_turns(&mut self, at: u32) {
        if std::mem::take(&mut self.lines.get_mut(at).has_turn) {
            self.lines.unlink(&mut self.turns, at);
        }
    }

    fn join_blocked(&mut self, at: u32) {
        let blocked_at = self.blocked_lines.add(at);
        self.blocked_lines.link_last(&mut self.blocked, blocked_at);
        self.lines.get_mut(at).blocked_at = blocked_at;
    }

    fn leave_blocked(&mut self, at: u32) {
        let blocked_at = std::mem::replace(&mut self.lines.get_mut(at).blocked_at, NONE);
        if blocked_at != NONE {
            self.blocked_lines.unlink(&mut self.blocked, blocked_at);
            self.blocked_lines.take(blocked_at);
        }
    }
}

/// Numbers of connections are this process's own and count up, so a multiplication spreads them well enough.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, key: usize) {
        self.0 = (self.0 ^ key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
