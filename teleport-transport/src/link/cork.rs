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
    static CORK: Cell<Option<Cork>> = const { Cell::new(None) };
}

/// The corked answers of one turn of reading, or of an `AnswersTogether`.
#[derive(Clone, Copy, Debug)]
struct Cork {
    key: usize,
    is_turn: bool,
    /// New answers are corked.
    is_on: bool,
    /// The number of corked answers.
    answers: u32,
    /// Something else was queued that the end of the turn writes.
    has_queued: bool,
}

fn cork_of(key: usize) -> Option<Cork> {
    CORK.get().filter(|cork| cork.key == key)
}

/// Marks that this thread reads a link and calls its handler, until `end_turn`.
pub(super) fn begin_turn(key: usize) {
    CORK.set(Some(Cork { key, is_turn: true, is_on: false, answers: 0, has_queued: false }));
}

/// Turns corking of this thread's answers on or off. Release the corked ones before turning it off.
pub(super) fn set_cork(key: usize, is_on: bool) {
    CORK.set(cork_of(key).map(|cork| Cork { is_on, ..cork }));
}

/// Ends the turn. Returns true if the caller must write what was queued.
pub(super) fn end_turn() -> bool {
    CORK.take().is_some_and(|cork| cork.has_queued || cork.answers > 0)
}

/// Leaves what this thread has queued to the end of its turn. Returns false if it is in no turn of the link.
pub(super) fn write_at_end(key: usize) -> bool {
    let Some(cork) = cork_of(key).filter(|cork| cork.is_turn) else { return false };
    CORK.set(Some(Cork { has_queued: true, ..cork }));
    true
}

/// Returns true if the answer that was queued just now is corked.
pub(super) fn holds_answer(key: usize) -> bool {
    let Some(cork) = cork_of(key).filter(|cork| cork.is_on) else { return false };
    let answers = (cork.answers + 1) % MAX_CORKED_ANSWERS;
    CORK.set(Some(Cork { answers, ..cork }));
    answers > 0
}

/// Sends the corked answers.
pub(super) fn release_answers(key: usize, link: &dyn Flush) {
    if let Some(cork) = cork_of(key).filter(|cork| cork.answers > 0) {
        CORK.set(Some(Cork { answers: 0, ..cork }));
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
    before: Option<Cork>,
    /// The cork belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl AnswersTogether<'_> {
    pub(super) fn new(key: usize, link: &dyn Flush) -> AnswersTogether<'_> {
        let cork = Cork { key, is_turn: false, is_on: true, answers: 0, has_queued: false };
        AnswersTogether { key, link, before: CORK.replace(Some(cork)), _not_send: PhantomData }
    }
}

impl Drop for AnswersTogether<'_> {
    fn drop(&mut self) {
        let holds_nothing = |cork: &Cork| cork.key == self.key && !cork.is_turn && cork.answers == 0;
        // If this thread has read a link meanwhile, its earlier corked answers are unknown.
        if !CORK.replace(self.before).as_ref().is_some_and(holds_nothing) {
            self.link.flush();
        }
    }
}
