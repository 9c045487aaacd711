//! Small answers of one thread that go together, so that one system call sends them: those that a handler
//! gives while a turn of reading tells it of calls, and those of a thread that has many at once
//! ([`AnswersTogether`]).
//!
//! They go at the latest when the turn is over, or that value is dropped. Never blocks. Bound:
//! `MAX_CORKED_ANSWERS`.

use std::cell::Cell;
use std::marker::PhantomData;

use super::port::Flush;

/// Answers go when this many wait: a side that answers does not know how many calls its peer keeps open.
const MAX_CORKED_ANSWERS: u32 = 24;

thread_local! {
    static CORK: Cell<Option<Cork>> = const { Cell::new(None) };
}

/// The answers of one turn of reading, or of a thread that has many at once.
#[derive(Clone, Copy, Debug)]
struct Cork {
    key: usize,
    is_turn: bool,
    /// Answers wait for others from here on.
    is_on: bool,
    /// Those that wait.
    answers: u32,
}

fn cork_of(key: usize) -> Option<Cork> {
    CORK.get().filter(|cork| cork.key == key)
}

/// This thread reads a link, and tells the handler what arrives, until `end_turn`.
pub(super) fn begin_turn(key: usize) {
    CORK.set(Some(Cork { key, is_turn: true, is_on: false, answers: 0 }));
}

/// Has the answers that this thread gives from here on wait for others. Before it no longer has, release
/// those that do.
pub(super) fn set_cork(key: usize, is_on: bool) {
    CORK.set(cork_of(key).map(|cork| Cork { is_on, ..cork }));
}

/// The turn is over. The caller writes what is queued.
pub(super) fn end_turn() {
    CORK.set(None);
}

/// Returns true if this thread is between `begin_turn` and `end_turn`.
pub(super) fn is_in_turn(key: usize) -> bool {
    cork_of(key).is_some_and(|cork| cork.is_turn)
}

/// Returns true if the answer that was queued just now waits for others.
pub(super) fn holds_answer(key: usize) -> bool {
    let Some(cork) = cork_of(key).filter(|cork| cork.is_on) else { return false };
    let answers = (cork.answers + 1) % MAX_CORKED_ANSWERS;
    CORK.set(Some(Cork { answers, ..cork }));
    answers > 0
}

/// Sends the answers that wait.
pub(super) fn release_answers(key: usize, link: &dyn Flush) {
    if let Some(cork) = cork_of(key).filter(|cork| cork.answers > 0) {
        CORK.set(Some(Cork { answers: 0, ..cork }));
        link.flush();
    }
}

/// While it lives, small answers that its thread gives on one link go together. See
/// [`Link::answers_together`](crate::Link::answers_together).
#[must_use = "the answers go when this is dropped"]
#[derive(Debug)]
pub struct AnswersTogether<'a> {
    key: usize,
    link: &'a dyn Flush,
    before: Option<Cork>,
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl AnswersTogether<'_> {
    pub(super) fn new(key: usize, link: &dyn Flush) -> AnswersTogether<'_> {
        let cork = Cork { key, is_turn: false, is_on: true, answers: 0 };
        AnswersTogether { key, link, before: CORK.replace(Some(cork)), _not_send: PhantomData }
    }
}

impl Drop for AnswersTogether<'_> {
    fn drop(&mut self) {
        let holds_nothing = |cork: &Cork| cork.key == self.key && !cork.is_turn && cork.answers == 0;
        // If this thread has read meanwhile, on any link, it is not known what waited before that.
        if !CORK.replace(self.before).as_ref().is_some_and(holds_nothing) {
            self.link.flush();
        }
    }
}
