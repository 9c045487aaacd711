//! Which calls are open on a connection: what may be answered, and what an answer or a withdrawal changes.
//!
//! [`OwnCalls`] are those that this side makes: `begin` -> `advance` as they are staged -> `withdrawn`, or `answered` by a
//! frame of the peer, which is judged here. [`PeerCalls`] are those that this side answers: `arrived` -> `answered` ->
//! `answer_sent`. One of the two stays empty, depending on the role.
//!
//! Knows no frames, messages or clocks. Bounds: both by `max_open_calls` of the side that answers; what is remembered of
//! withdrawn calls by `MAX_REMEMBERED`; what the peer's calls take beside their payload by `max_structure_bytes`.

use std::collections::BTreeSet;

use teleport_wire::CallState;

use super::error::ProtocolError;
use super::id_map::IdMap;
use crate::config::Config;

/// Withdrawn calls of which it is remembered that no answer to them has come. An error for an older one is ignored too,
/// without the certainty that it is the first. Their answers are frames that crossed: few are ever on the way.
const MAX_REMEMBERED: usize = 256;

/// How far a call has been handed to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not at all: the peer cannot know it.
    Queued,
    /// Its head, and part of its payload or none.
    Begun,
    Whole,
}

#[derive(Debug)]
struct OwnCall {
    progress: Progress,
    /// False once its caller was told of a failure: the answer that still comes is dropped.
    is_awaited: bool,
    /// The head of its result has come, and part of the payload or none.
    is_receiving: bool,
    /// The peer said that it has the call whole.
    is_acknowledged: bool,
}

impl OwnCall {
    fn new(progress: Progress, is_awaited: bool) -> OwnCall {
        OwnCall { progress, is_awaited, is_receiving: false, is_acknowledged: false }
    }
}

/// The calls that this side has made and that have no answer, or one that is not whole.
#[derive(Debug, Default)]
pub(super) struct OwnCalls {
    open: IdMap<OwnCall>,
    /// Calls number from 1.
    last_id: u64,
    /// The newest call that the peer may know of; ids below it count as known too.
    last_sent_id: u64,
    /// Calls that ended with an abort and to which no answer has come.
    withdrawn: BTreeSet<u64>,
    /// Of calls up to here that are neither open nor in `withdrawn`, it is not known whether they were withdrawn.
    forgotten_id: u64,
}

impl OwnCalls {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn begin(&mut self) -> u64 {
        self.last_id += 1;
        self.begin_again(self.last_id);
        self.last_id
    }

    /// A call of an earlier connection is made once more, under its id.
    pub(super) fn begin_again(&mut self, id: u64) {
        self.open.insert(id, OwnCall::new(Progress::Queued, true));
    }

    /// Ids begin after `id`: those up to it belong to earlier connections.
    pub(super) fn number_after(&mut self, id: u64) {
        self.last_id = self.last_id.max(id);
    }

    /// The peer has a call of an earlier connection, and answers it on this one.
    pub(super) fn adopt(&mut self, id: u64) {
        self.open.insert(id, OwnCall { is_acknowledged: true, ..OwnCall::new(Progress::Whole, true) });
        self.last_sent_id = self.last_sent_id.max(id);
    }

    /// The peer said that it has a call whole, which it can only have if it was sent.
    pub(super) fn acknowledged(&mut self, id: u64) {
        if let Some(call) = self.open.get_mut(&id) {
            call.is_acknowledged |= call.progress == Progress::Whole;
        }
    }

    /// What the peer can know of each call whose answer has not come whole.
    pub(super) fn states(&self) -> Vec<(u64, CallState)> {
        let state = |call: &OwnCall| match call.progress {
            Progress::Queued => CallState::Unsent,
            Progress::Begun => CallState::Part,
            Progress::Whole if call.is_acknowledged => CallState::Acknowledged,
            Progress::Whole => CallState::Sent,
        };
        self.open.iter().map(|(id, call)| (*id, state(call))).collect()
    }

    /// None for a call that has its answer, or the head of it.
    pub(super) fn progress(&self, id: u64) -> Option<Progress> {
        self.open.get(&id).filter(|call| !call.is_receiving).map(|call| call.progress)
    }

    /// A part of the message `id` was staged.
    pub(super) fn advance(&mut self, id: u64, progress: Progress) {
        if let Some(call) = self.open.get_mut(&id) {
            call.progress = progress;
            self.last_sent_id = self.last_sent_id.max(id);
        }
    }

    /// Whether the peer may name the call in a frame that crossed something of ours.
    pub(super) fn is_known(&self, id: u64) -> bool {
        id <= self.last_sent_id
    }

    /// A call ends without an answer. One that was begun ends with an abort, which an error may cross.
    pub(super) fn withdrawn(&mut self, id: u64) {
        let Some(call) = self.open.remove(&id) else { return };
        if call.progress == Progress::Queued {
            return;
        }
        self.withdrawn.insert(id);
        if self.withdrawn.len() > MAX_REMEMBERED
            && let Some(oldest) = self.withdrawn.pop_first()
        {
            self.forgotten_id = self.forgotten_id.max(oldest);
        }
    }

    /// An error arrived: tells whether anybody waits for it, and how far the call was sent.
    pub(super) fn error_arrived(&mut self, id: u64) -> Result<(bool, Progress), ProtocolError> {
        match self.open.get(&id) {
            Some(call) if call.progress != Progress::Queued && !call.is_receiving => {
                let (is_awaited, progress) = (call.is_awaited, call.progress);
                self.open.remove(&id);
                Ok((is_awaited, progress))
            }
            None if self.withdrawn.remove(&id) || id <= self.forgotten_id => Ok((false, Progress::Whole)),
            _ => Err(ProtocolError::UnexpectedAnswer { id }),
        }
    }

    /// The head of a result arrived: tells whether anybody waits for it.
    pub(super) fn result_arrived(&mut self, id: u64) -> Result<bool, ProtocolError> {
        match self.open.get_mut(&id) {
            Some(call) if call.is_receiving => Err(ProtocolError::UnexpectedAnswer { id }),
            Some(call) if call.progress == Progress::Whole => {
                call.is_receiving = true;
                Ok(call.is_awaited)
            }
            Some(call) if call.progress == Progress::Begun => Err(ProtocolError::EarlyResult { id }),
            _ => Err(ProtocolError::UnexpectedAnswer { id }),
        }
    }

    /// A result is whole: the call is over.
    pub(super) fn result_completed(&mut self, id: u64) {
        self.open.remove(&id);
    }

    /// The peer gave up a result that it had begun: another answer follows.
    pub(super) fn result_aborted(&mut self, id: u64, is_awaited: bool) {
        self.open.insert(id, OwnCall::new(Progress::Whole, is_awaited));
    }
}

/// What a call takes beside its payload counts as memory that others may wait for if it is more than this. Most take a few
/// hundred bytes.
pub(super) const LARGE_STRUCTURE_BYTES: u64 = 64 << 10;

#[derive(Debug)]
struct PeerCall {
    /// Whether an answer is queued that was not staged whole.
    is_answered: bool,
    structure_bytes: u64,
}

/// The calls of the peer that have no answer, or one that was not staged whole.
#[derive(Debug, Default)]
pub(super) struct PeerCalls {
    open: IdMap<PeerCall>,
    /// Invariant: those of `open` that are not answered.
    unanswered: usize,
    last_id: u64,
    /// The newest call of an earlier connection that this one knows of.
    last_earlier_id: u64,
    /// Invariant: the sum over `open`.
    structure_bytes: u64,
    /// Invariant: the same over those of more than `LARGE_STRUCTURE_BYTES`.
    large_structure_bytes: u64,
}

/// What of it counts as memory that others may wait for.
fn large(structure_bytes: u64) -> u64 {
    if structure_bytes > LARGE_STRUCTURE_BYTES { structure_bytes } else { 0 }
}

/// What the structure of a connection's calls takes, and why there is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StructureOverrun {
    /// What this call's takes.
    pub(super) bytes: u64,
    /// What those of the others take.
    pub(super) held_bytes: u64,
    pub(super) max_bytes: u64,
}

impl PeerCalls {
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// What the structure of unanswered calls takes, but for that of small ones.
    pub(super) fn large_structure_bytes(&self) -> u64 {
        self.large_structure_bytes
    }

    /// Whether the peer may name the call in a frame that crossed something of ours.
    pub(super) fn is_known(&self, id: u64) -> bool {
        id <= self.last_id.max(self.last_earlier_id)
    }

    /// A call of an earlier connection is answered on this one.
    pub(super) fn adopt(&mut self, id: u64) {
        self.open.insert(id, PeerCall { is_answered: false, structure_bytes: 0 });
        self.unanswered += 1;
    }

    /// The peer knows the call from an earlier connection, and may name it on this one.
    pub(super) fn know(&mut self, id: u64) {
        self.last_earlier_id = self.last_earlier_id.max(id);
    }

    /// The head of a call arrived. It is open from now on; with an overrun its structure must not be kept.
    pub(super) fn arrived(
        &mut self,
        id: u64,
        structure_bytes: u64,
        config: &Config,
    ) -> Result<Option<StructureOverrun>, ProtocolError> {
        if id <= self.last_id || self.open.contains_key(&id) {
            return Err(ProtocolError::ReusedId { id, last_id: self.last_id });
        }
        // Answers that wait for the socket count: a peer that does not read them cannot have any number queued.
        let max_open_calls = config.max_open_calls;
        if self.open.len() >= max_open_calls as usize {
            return Err(ProtocolError::TooManyCalls { max_open_calls });
        }
        let (held_bytes, max_bytes) = (self.structure_bytes, config.max_structure_bytes);
        // One alone is taken whatever its size, which `max_metadata_bytes` and `max_nodes` bound.
        let fits = held_bytes == 0 || structure_bytes <= max_bytes.saturating_sub(held_bytes);
        let kept_bytes = if fits { structure_bytes } else { 0 };
        self.last_id = id;
        self.open.insert(id, PeerCall { is_answered: false, structure_bytes: kept_bytes });
        self.unanswered += 1;
        self.structure_bytes += kept_bytes;
        self.large_structure_bytes += large(kept_bytes);
        Ok((!fits).then_some(StructureOverrun { bytes: structure_bytes, held_bytes, max_bytes }))
    }

    /// An answer is queued; false if the call has one, or is gone.
    pub(super) fn answered(&mut self, id: u64) -> bool {
        match self.open.get_mut(&id) {
            Some(call) if !call.is_answered => {
                call.is_answered = true;
                let freed_bytes = std::mem::take(&mut call.structure_bytes);
                self.structure_bytes -= freed_bytes;
                self.large_structure_bytes -= large(freed_bytes);
                self.unanswered -= 1;
                true
            }
            _ => false,
        }
    }

    /// An answer was staged whole: the call is over.
    pub(super) fn answer_sent(&mut self, id: u64) {
        if self.open.get(&id).is_some_and(|call| call.is_answered) {
            self.open.remove(&id);
        }
    }

    /// The peer gave the call up before it was whole. True if an answer to it is queued, which nobody wants.
    pub(super) fn aborted(&mut self, id: u64) -> bool {
        let is_answered = !self.answered(id) && self.open.contains_key(&id);
        self.open.remove(&id);
        is_answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_for_withdrawn_calls_are_ignored_however_many_there_are() {
        let mut calls = OwnCalls::default();
        let long = calls.begin();
        calls.advance(long, Progress::Whole);
        let count = 4 * MAX_REMEMBERED as u64;
        for _ in 0..count {
            let id = calls.begin();
            calls.advance(id, Progress::Begun);
            calls.withdrawn(id);
        }
        assert_eq!((calls.len(), calls.withdrawn.len()), (1, MAX_REMEMBERED));
        let newest = long + count;
        for id in long + 1..=newest {
            assert!(matches!(calls.error_arrived(id), Ok((false, _))), "{id}");
        }
        assert!(calls.error_arrived(newest).is_err(), "it was answered");
        assert!(calls.error_arrived(newest + 1).is_err(), "it was never used");
        assert!(matches!(calls.error_arrived(long), Ok((true, Progress::Whole))), "it is older and waits");
    }

    #[test]
    fn a_call_that_was_never_sent_leaves_no_trace() {
        let mut calls = OwnCalls::default();
        let id = calls.begin();
        assert!(calls.error_arrived(id).is_err());
        assert!(calls.result_arrived(id).is_err());
        calls.withdrawn(id);
        assert!(calls.error_arrived(id).is_err());
        assert!(!calls.is_known(id));
    }

    #[test]
    fn structure_is_bounded_and_one_call_alone_always_fits() {
        let config = Config { max_structure_bytes: 100, ..Config::default() };
        let mut calls = PeerCalls::default();
        let huge = LARGE_STRUCTURE_BYTES + 1;
        assert!(matches!(calls.arrived(1, huge, &config), Ok(None)));
        assert_eq!(calls.large_structure_bytes(), huge);
        let overrun = StructureOverrun { bytes: 1, held_bytes: huge, max_bytes: 100 };
        assert!(matches!(calls.arrived(2, 1, &config), Ok(Some(found)) if found == overrun));
        assert!(calls.answered(2) && calls.answered(1) && !calls.answered(1));
        assert!(matches!(calls.arrived(3, 60, &config), Ok(None)));
        assert!(matches!(calls.arrived(4, 40, &config), Ok(None)));
        assert!(matches!(calls.arrived(5, 1, &config), Ok(Some(_))));
        assert!(!calls.aborted(4));
        assert!(matches!(calls.arrived(6, 40, &config), Ok(None)));
        assert_eq!((calls.structure_bytes, calls.large_structure_bytes(), calls.unanswered()), (100, 0, 3));
    }

    #[test]
    fn answers_that_wait_for_the_socket_count_as_open_calls() {
        let config = Config { max_open_calls: 2, ..Config::default() };
        let mut calls = PeerCalls::default();
        for id in 1..=2 {
            calls.arrived(id, 1, &config).expect("two are allowed");
            assert!(calls.answered(id));
        }
        assert!(matches!(calls.arrived(3, 1, &config), Err(ProtocolError::TooManyCalls { .. })));
        calls.answer_sent(1);
        assert!(calls.aborted(2), "its answer is still queued");
        assert!(calls.arrived(3, 1, &config).is_ok());
        assert_eq!(calls.unanswered(), 1);
    }

    #[test]
    fn a_call_is_open_until_its_result_is_whole() {
        let mut calls = OwnCalls::default();
        let id = calls.begin();
        calls.advance(id, Progress::Whole);
        assert!(matches!(calls.result_arrived(id), Ok(true)));
        assert_eq!((calls.len(), calls.progress(id)), (1, None));
        assert!(
            calls.result_arrived(id).is_err() && calls.error_arrived(id).is_err(),
            "one answer is enough"
        );
        calls.result_aborted(id, true);
        assert!(matches!(calls.result_arrived(id), Ok(true)), "unless it was given up");
        calls.result_completed(id);
        assert_eq!(calls.len(), 0);
    }
}
