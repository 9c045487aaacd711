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
    /// The number of answers that are corked by it. Apart, so that a further answer writes nothing else.
    static ANSWERS: Cell<u32> = const { Cell::new(0) };
}

/// The corked answers of one turn of reading, or of an `AnswersTogether`.
#[derive(Clone, Copy, Debug)]
struct Cork {
    key: usize,
    is_turn: bool,
    /// New answers are corked.
    is_on: bool,
    /// Something else was queued that the end of the turn writes.
    has_queued: bool,
}

#[inline]
fn cork_of(key: usize) -> Option<Cork> {
    CORK.get().filter(|cork| cork.key == key)
}

/// Marks that this thread reads a link and calls its handler, until `end_turn`.
pub(super) fn begin_turn(key: usize) {
    CORK.set(Some(Cork { key, is_turn: true, is_on: false, has_queued: false }));
    ANSWERS.set(0);
}

/// Turns corking of this thread's answers on or off. Release the corked ones before turning it off.
pub(super) fn set_cork(key: usize, is_on: bool) {
    CORK.set(cork_of(key).map(|cork| Cork { is_on, ..cork }));
}

/// Ends the turn. Returns true if the caller must write what was queued.
pub(super) fn end_turn() -> bool {
    CORK.take().is_some_and(|cork| cork.has_queued || ANSWERS.get() > 0)
}

/// Leaves what this thread has queued to the end of its turn. Returns false if it is in no turn of the link.
pub(super) fn write_at_end(key: usize) -> bool {
    let Some(cork) = cork_of(key).filter(|cork| cork.is_turn) else { return false };
    CORK.set(Some(Cork { has_queued: true, ..cork }));
    true
}

/// Returns true if the answer that was queued just now is corked.
pub(super) fn holds_answer(key: usize) -> bool {
    if !cork_of(key).is_some_and(|cork| cork.is_on) {
        return false;
    }
    let answers = ANSWERS.get() + 1;
    let is_held = answers < MAX_CORKED_ANSWERS;
    ANSWERS.set(if is_held { answers } else { 0 });
    is_held
}

/// Sends the corked answers.
pub(super) fn release_answers(key: usize, link: &dyn Flush) {
    if cork_of(key).is_some() && ANSWERS.take() > 0 {
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
    before: (Option<Cork>, u32),
    /// The cork belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl AnswersTogether<'_> {
    pub(super) fn new(key: usize, link: &dyn Flush) -> AnswersTogether<'_> {
        let cork = Cork { key, is_turn: false, is_on: true, has_queued: false };
        let before = (CORK.replace(Some(cork)), ANSWERS.replace(0));
        AnswersTogether { key, link, before, _not_send: PhantomData }
    }
}

impl Drop for AnswersTogether<'_> {
    fn drop(&mut self) {
        let (cork, answers) = self.before;
        let answers = ANSWERS.replace(answers);
        let holds_nothing = |cork: Cork| cork.key == self.key && !cork.is_turn && answers == 0;
        // If this thread has read a link meanwhile, its earlier corked answers are unknown.
        if !CORK.replace(cork).is_some_and(holds_nothing) {
            self.link.flush();
        }
    }
}
