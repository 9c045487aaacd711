//! Collects small answers of one thread, so that one system call sends them: those that a handler gives
//! during a turn of reading, and those of a thread that has many ready ([`AnswersTogether`]).
//!
//! They are sent at the latest when the turn ends or that value is dropped. Never blocks. Bound:
//! `MAX_CORKED_ANSWERS`.

use std::cell::Cell;
use std::marker::PhantomData;

use super::port::Flush;

/// Answers are sent when this many are corked, since the answering side does not know how many calls its peer
/// keeps open.
const MAX_CORKED_ANSWERS: u32 = 24;

thread_local! {
    static CORK: Cork = const { Cork::none() };
}

/// The corked answers of one turn of reading, or of an `AnswersTogether`.
#[derive(Clone, Debug)]
struct Cork {
    /// The key of the link, or 0 if this thread corks nothing.
    key: Cell<usize>,
    is_turn: Cell<bool>,
    /// New answers are corked.
    is_on: Cell<bool>,
    /// The number of corked answers.
    answers: Cell<u32>,
    /// Something else was queued that the end of the turn writes.
    has_queued: Cell<bool>,
}

impl Cork {
    const fn none() -> Cork {
        Cork {
            key: Cell::new(0),
            is_turn: Cell::new(false),
            is_on: Cell::new(false),
            answers: Cell::new(0),
            has_queued: Cell::new(false),
        }
    }

    /// Begins to cork answers of this link, with none corked yet.
    fn begin(&self, key: usize, is_turn: bool) {
        let (key, is_turn, is_on) = (Cell::new(key), Cell::new(is_turn), Cell::new(!is_turn));
        self.set(&Cork { key, is_turn, is_on, ..Cork::none() });
    }

    fn set(&self, other: &Cork) {
        self.key.set(other.key.get());
        self.is_turn.set(other.is_turn.get());
        self.is_on.set(other.is_on.get());
        self.answers.set(other.answers.get());
        self.has_queued.set(other.has_queued.get());
    }
}

/// Calls `change` with this thread's cork, if it is that of the link.
#[inline]
fn with_cork<T>(key: usize, change: impl FnOnce(&Cork) -> T) -> Option<T> {
    CORK.with(|cork| (cork.key.get() == key).then(|| change(cork)))
}

/// Marks that this thread reads a link and calls its handler, until `end_turn`.
#[inline]
pub(super) fn begin_turn(key: usize) {
    CORK.with(|cork| cork.begin(key, true));
}

/// Turns corking of this thread's answers on or off. Release the corked ones before turning it off.
#[inline]
pub(super) fn set_cork(key: usize, is_on: bool) {
    with_cork(key, |cork| cork.is_on.set(is_on));
}

/// Ends the turn. Returns true if the caller must write what was queued.
#[inline]
pub(super) fn end_turn() -> bool {
    CORK.with(|cork| cork.key.replace(0) != 0 && (cork.has_queued.get() || cork.answers.get() > 0))
}

/// Leaves what this thread has queued to the end of its turn. Returns false if it is in no turn of the link.
pub(super) fn write_at_end(key: usize) -> bool {
    let leave = |cork: &Cork| {
        let is_turn = cork.is_turn.get();
        if is_turn {
            cork.has_queued.set(true);
        }
        is_turn
    };
    with_cork(key, leave).unwrap_or(false)
}

/// Returns true if the answer that was queued just now is corked.
#[inline]
pub(super) fn holds_answer(key: usize) -> bool {
    let hold = |cork: &Cork| {
        if !cork.is_on.get() {
            return false;
        }
        let answers = cork.answers.get() + 1;
        let is_held = answers < MAX_CORKED_ANSWERS;
        cork.answers.set(if is_held { answers } else { 0 });
        is_held
    };
    with_cork(key, hold).unwrap_or(false)
}

/// Sends the corked answers.
#[inline]
pub(super) fn release_answers(key: usize, link: &dyn Flush) {
    if with_cork(key, |cork| cork.answers.replace(0) > 0) == Some(true) {
        link.flush();
    }
}

/// Combines small answers of its thread on one link into fewer writes while it lives. See
/// [`Link::answers_together`](crate::Link::answers_together).
#[must_use = "the answers go when this is dropped"]
#[derive(Debug)]
pub struct AnswersTogether<'a> {
    key: usize,
    link: &'a dyn Flush,
    before: Cork,
    /// The cork belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl AnswersTogether<'_> {
    pub(super) fn new(key: usize, link: &dyn Flush) -> AnswersTogether<'_> {
        let before = CORK.with(Cork::clone);
        CORK.with(|cork| cork.begin(key, false));
        AnswersTogether { key, link, before, _not_send: PhantomData }
    }
}

impl Drop for AnswersTogether<'_> {
    fn drop(&mut self) {
        let holds_nothing = |cork: &Cork| !cork.is_turn.get() && cork.answers.get() == 0;
        // If this thread has read a link meanwhile, its earlier corked answers are unknown.
        let holds_nothing = with_cork(self.key, holds_nothing) == Some(true);
        CORK.with(|cork| cork.set(&self.before));
        if !holds_nothing {
            self.link.flush();
        }
    }
}
