//! The open calls of a connection: which may be answered, and how answers and withdrawals change them.
//!
//! On a client, these are the calls that it makes: `begin` -> `on_begun` -> an answer of the peer, or
//! `withdraw`. On a server, these are the calls of its peer: `on_call` -> `answer`. An entry also holds the
//! part of this side's message that is not written yet: of the call, or of its answer. What was staged of a
//! client's call is not noted in its entry but follows from its id, since calls are staged in the order of
//! their ids.
//!
//! Knows no frames and no clock. Bounds: `max_open_calls` of the server; on a client, `MAX_REMEMBERED` more
//! withdrawn calls; `max_structure_bytes` for the structure of the peer's calls.

mod call;

use teleport_wire::{CallState, ErrorKind, Ran, RemoteError};

use self::call::Call;
pub(super) use self::call::Progress;
use super::error::ProtocolError;
use super::id_table::IdTable;
use super::send::payload::Payload;
use crate::config::Config;
use crate::memory::budget::Charge;

/// The number of withdrawn calls to remember, because an error may cross their abort. An error for an older
/// call is ignored as well, but a second error for it is not detected. Few such errors are ever in transit.
const MAX_REMEMBERED: usize = 256;

/// A structure of more bytes than this counts as memory for which others may wait. Most calls have a few
/// hundred bytes.
pub(super) const LARGE_STRUCTURE_BYTES: u64 = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Calls {
    table: IdTable<Call>,
    /// Invariant: the entries that are [`Withdrawn`](Progress::Withdrawn) or
    /// [`Answered`](Progress::Answered).
    closed: usize,
    /// The newest call of this connection. Calls number from 1.
    last_id: u64,
    /// On a client, the newest call of this connection whose head was staged.
    last_begun_id: u64,
    /// The newest call that the peer may name. It may also name older ones.
    last_known_id: u64,
    /// It is unknown if calls up to this id that are not in the table were withdrawn.
    forgotten_id: u64,
    /// Invariant: the sum over the table.
    structure_bytes: u64,
}

impl Calls {
    /// Returns the number of calls without an answer, including a client's calls whose result is incomplete.
    pub(super) fn open(&self) -> usize {
        self.table.len() - self.closed
    }

    /// Returns the rest of the message of a call.
    pub(super) fn rest_mut(&mut self, id: u64) -> Option<&mut Payload> {
        self.table.get_mut(id)?.rest.as_deref_mut()
    }

    /// Returns the bytes that are charged for the structure of calls.
    #[cfg(test)]
    pub(super) fn charged_bytes(&self) -> u64 {
        self.table.iter().filter_map(|(_, call)| Some(call.structure_charge.as_ref()?.bytes())).sum()
    }

    /// Returns true if the peer may name the call: its frame may have crossed a frame of this side that ended
    /// the call.
    pub(super) fn is_known(&self, id: u64) -> bool {
        id <= self.last_known_id
    }

    /// Allows the peer to name a call of an earlier connection.
    pub(super) fn know(&mut self, id: u64) {
        self.last_known_id = self.last_known_id.max(id);
    }

    /// Adds a call of an earlier connection, which is answered on this one.
    pub(super) fn adopt(&mut self, id: u64, progress: Progress) {
        self.know(id);
        self.table.insert(id, Call { is_acknowledged: true, ..Call::new(progress) });
    }

    /// Takes the rest of a call or an answer, because it is written completely. An answer ends the call. A
    /// call is sent once [`on_sent`](Calls::on_sent) is called.
    pub(super) fn take_rest(&mut self, id: u64) -> Option<Box<Payload>> {
        let call = self.table.get_mut(id)?;
        if call.progress == Progress::Answered {
            self.closed -= 1;
            return self.table.remove(id).and_then(|call| call.rest);
        }
        call.progress = Progress::Begun;
        call.rest.take()
    }

    /// Notes for each call how much of it was staged, because the rest is dropped. Releases all charges.
    /// Returns the rests.
    pub(super) fn discard(&mut self) -> Vec<Payload> {
        let last_begun_id = self.last_begun_id;
        let take = |(id, call): (u64, &mut Call)| {
            call.progress = call.progress(id, last_begun_id);
            call.is_never_sent = call.progress == Progress::Queued;
            call.structure_charge = None;
            call.rest.take().map(|rest| *rest)
        };
        self.table.iter_mut().filter_map(take).collect()
    }

    // ---- The calls of a client ----

    /// Returns the id of the next new call.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Begins a call, which may be one of an earlier connection. `rest` is the part of it that is not
    /// written.
    pub(super) fn begin(&mut self, id: u64, rest: Option<Box<Payload>>) {
        self.last_id = self.last_id.max(id);
        self.table.insert(id, Call { rest, ..Call::new(Progress::Queued) });
    }

    /// The heads of all calls up to `id` were staged.
    pub(super) fn on_begun(&mut self, id: u64) {
        self.last_begun_id = self.last_begun_id.max(id);
        self.know(id);
    }

    /// The rest of a call was staged, after its head.
    pub(super) fn on_sent(&mut self, id: u64) {
        if let Some(call) = self.table.get_mut(id).filter(|call| call.progress == Progress::Begun) {
            call.progress = Progress::Sent;
        }
    }

    /// Continues the ids of new calls after `id`. Ids up to it belong to earlier connections.
    pub(super) fn number_after(&mut self, id: u64) {
        self.last_id = self.last_id.max(id);
    }

    /// Returns what the peer may have received of each call whose answer is incomplete.
    pub(super) fn states(&self) -> Vec<(u64, CallState)> {
        let state = |(id, call): (u64, &Call)| {
            let state = match call.progress(id, self.last_begun_id) {
                Progress::Queued => CallState::Unsent,
                Progress::Begun => CallState::Part,
                Progress::Sent | Progress::Receiving if call.is_acknowledged => CallState::Acknowledged,
                Progress::Sent | Progress::Receiving => CallState::Sent,
                Progress::Withdrawn | Progress::Unanswered | Progress::Answered => return None,
            };
            Some((id, state))
        };
        self.table.iter().filter_map(state).collect()
    }

    /// Ends a call that the peer cannot have completely. Returns its progress and the rest of its message, or
    /// `None` if there is nothing to withdraw. A call that was sent completely stays open.
    pub(super) fn withdraw(&mut self, id: u64) -> Option<(Progress, Option<Box<Payload>>)> {
        let call = self.table.get_mut(id)?;
        let progress = call.progress(id, self.last_begun_id);
        let rest = match progress {
            Progress::Queued => self.table.remove(id).and_then(|call| call.rest),
            Progress::Begun => {
                call.progress = Progress::Withdrawn;
                call.is_awaited = false;
                let rest = call.rest.take();
                self.closed += 1;
                self.forget_withdrawn();
                rest
            }
            Progress::Sent => None,
            _ => return None,
        };
        Some((progress, rest))
    }

    /// Forgets the older half of the withdrawn calls if there are too many.
    fn forget_withdrawn(&mut self) {
        if self.closed > MAX_REMEMBERED {
            let withdrawn = self.table.iter().filter(|(_, call)| call.progress == Progress::Withdrawn);
            let oldest: Vec<u64> = withdrawn.take(MAX_REMEMBERED / 2).map(|(id, _)| id).collect();
            self.closed -= oldest.len();
            for id in oldest {
                self.table.remove(id);
                self.forgotten_id = self.forgotten_id.max(id);
            }
        }
    }

    /// The peer acknowledged a complete call. This counts only if the call was sent completely.
    pub(super) fn on_ack(&mut self, id: u64) {
        if let Some(call) = self.table.get_mut(id) {
            let progress = call.progress(id, self.last_begun_id);
            call.is_acknowledged |= matches!(progress, Progress::Sent | Progress::Receiving);
        }
    }

    /// An error arrived, which ends the call. Returns true if its caller waits for the error, and the
    /// progress and the rest of the call.
    pub(super) fn on_error(
        &mut self,
        id: u64,
    ) -> Result<(bool, Progress, Option<Box<Payload>>), ProtocolError> {
        let progress = match self.table.get(id).map(|call| call.progress(id, self.last_begun_id)) {
            Some(progress @ (Progress::Begun | Progress::Sent | Progress::Withdrawn)) => progress,
            None if id <= self.forgotten_id => return Ok((false, Progress::Withdrawn, None)),
            _ => return Err(ProtocolError::UnexpectedAnswer { id }),
        };
        self.closed -= usize::from(progress == Progress::Withdrawn);
        let (is_awaited, rest) =
            self.table.remove(id).map_or((false, None), |call| (call.is_awaited, call.rest));
        Ok((is_awaited, progress, rest))
    }

    /// The head of a result arrived. Returns true if the caller waits for the result.
    pub(super) fn on_result_head(&mut self, id: u64) -> Result<bool, ProtocolError> {
        let last_begun_id = self.last_begun_id;
        let call = self.table.get_mut(id).ok_or(ProtocolError::UnexpectedAnswer { id })?;
        match call.progress(id, last_begun_id) {
            Progress::Sent => {
                call.progress = Progress::Receiving;
                Ok(call.is_awaited)
            }
            Progress::Begun => Err(ProtocolError::EarlyResult { id }),
            _ => Err(ProtocolError::UnexpectedAnswer { id }),
        }
    }

    /// A result arrived whole, which ends the call if its caller waits for it. Otherwise only its head
    /// counts. Returns true if the caller waits.
    #[inline]
    pub(super) fn on_result_at_once(&mut self, id: u64) -> Result<bool, ProtocolError> {
        match self.table.remove(id) {
            Some(call) if call.is_awaited && call.progress(id, self.last_begun_id) == Progress::Sent => {
                return Ok(true);
            }
            Some(call) => {
                self.table.insert(id, call);
            }
            None => {}
        }
        self.on_result_head(id)
    }

    /// A result is complete, which ends the call.
    pub(super) fn on_result_whole(&mut self, id: u64) {
        self.table.remove(id);
    }

    /// The peer gave up a result that it had begun. Another answer follows.
    pub(super) fn on_result_abort(&mut self, id: u64, is_awaited: bool) {
        self.table.insert(id, Call { is_awaited, ..Call::new(Progress::Sent) });
    }

    // ---- The calls of a server's peer ----

    /// The head of a call arrived: opens the call. `unstaged_answers` are written but not staged. Returns
    /// false if there is no room for its structure: the call must be refused, with
    /// [`no_room`](Calls::no_room).
    pub(super) fn on_call(
        &mut self,
        id: u64,
        structure_bytes: u64,
        unstaged_answers: usize,
        config: &Config,
        charge: impl FnOnce(u64) -> Option<Charge>,
    ) -> Result<bool, ProtocolError> {
        if id <= self.last_id || (self.is_known(id) && self.table.get(id).is_some()) {
            return Err(self.reused(id));
        }
        // Answers in the send queue count. Otherwise a peer that reads none of them could have any number
        // queued.
        let max_open_calls = config.max_open_calls;
        if self.table.len() + unstaged_answers >= max_open_calls as usize {
            return Err(ProtocolError::TooManyCalls { max_open_calls });
        }
        self.last_id = id;
        self.know(id);
        let mut call = Call::new(Progress::Unanswered);
        let (held_bytes, max_bytes) = (self.structure_bytes, config.max_structure_bytes);
        // One call alone always fits: `max_metadata_bytes` and `max_nodes` bound it.
        let fits = held_bytes == 0 || structure_bytes <= max_bytes.saturating_sub(held_bytes);
        if fits {
            call.structure_bytes = structure_bytes;
            self.structure_bytes += structure_bytes;
            if structure_bytes > LARGE_STRUCTURE_BYTES {
                call.structure_charge = charge(structure_bytes).map(Box::new);
            }
        }
        self.table.insert(id, call);
        Ok(fits)
    }

    /// Returns the refusal of a call whose structure has no room.
    #[cold]
    pub(super) fn no_room(&self, structure_bytes: u64, config: &Config) -> RemoteError {
        let (held_bytes, max_bytes) = (self.structure_bytes, config.max_structure_bytes);
        let text = format!(
            "names, shapes and nodes of this call take {structure_bytes} bytes beside the {held_bytes} of calls that \
             have no answer yet, past the server's {max_bytes} per connection (`max_structure_bytes`): make fewer at \
             once, or calls of fewer nodes"
        );
        RemoteError::new(ErrorKind::Overloaded, Ran::No, text)
    }

    /// Returns the error for a call whose id is not new.
    pub(super) fn reused(&self, id: u64) -> ProtocolError {
        ProtocolError::ReusedId { id, last_id: self.last_id }
    }

    /// Ends a call, because its answer is about to be written completely. Returns false if it has an answer
    /// or is gone.
    #[inline]
    pub(super) fn end_with_answer(&mut self, id: u64) -> bool {
        let Some(call) = self.table.remove(id) else { return false };
        if call.progress != Progress::Unanswered {
            self.table.insert(id, call);
            return false;
        }
        self.structure_bytes -= call.structure_bytes;
        true
    }

    /// Marks a call as answered, because its answer is about to be written in part. Returns false if it has
    /// an answer or is gone.
    pub(super) fn answer(&mut self, id: u64) -> bool {
        let unanswered = self.table.get_mut(id).filter(|call| call.progress == Progress::Unanswered);
        let Some(call) = unanswered else { return false };
        self.structure_bytes -= std::mem::take(&mut call.structure_bytes);
        call.progress = Progress::Answered;
        call.structure_charge = None;
        self.closed += 1;
        true
    }

    /// Adds the rest of an answer.
    pub(super) fn keep_rest(&mut self, id: u64, rest: Box<Payload>) {
        if let Some(call) = self.table.get_mut(id) {
            call.rest = Some(rest);
        }
    }

    /// Returns true if the peer waits for the answer.
    pub(super) fn is_unanswered(&self, id: u64) -> bool {
        self.table.get(id).is_some_and(|call| call.progress == Progress::Unanswered)
    }

    /// Ends a call whose answer is not wanted, or is replaced. Returns the rest of the answer.
    pub(super) fn remove(&mut self, id: u64) -> Option<Box<Payload>> {
        let call = self.table.remove(id)?;
        self.structure_bytes -= call.structure_bytes;
        self.closed -= usize::from(call.progress == Progress::Answered);
        call.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Calls {
        fn arrive(&mut self, id: u64, structure_bytes: u64, config: &Config) -> Option<RemoteError> {
            let has_room = self.on_call(id, structure_bytes, 0, config, |_| None).expect("the call is legal");
            (!has_room).then(|| self.no_room(structure_bytes, config))
        }

        /// Begins a call and stages all of it, a part or nothing.
        fn make(&mut self, staged: Option<bool>) -> u64 {
            let id = self.next_id();
            let rest = (staged == Some(false)).then(|| Box::new(Payload::new(Vec::new(), 0, false)));
            self.begin(id, rest);
            if staged.is_some() {
                self.on_begun(id);
            }
            id
        }
    }

    #[test]
    fn errors_for_withdrawn_calls_are_ignored_however_many_there_are() {
        let mut calls = Calls::default();
        let long = calls.make(Some(true));
        let count = 4 * MAX_REMEMBERED as u64;
        for _ in 0..count {
            let id = calls.make(Some(false));
            assert!(matches!(calls.withdraw(id), Some((Progress::Begun, _))));
            assert!(calls.withdraw(id).is_none() && calls.on_result_head(id).is_err());
        }
        assert_eq!((calls.open(), calls.states().len()), (1, 1));
        assert!((MAX_REMEMBERED / 2..=MAX_REMEMBERED).contains(&calls.closed));
        let newest = long + count;
        for id in long + 1..=newest {
            assert!(matches!(calls.on_error(id), Ok((false, ..))), "{id}");
        }
        assert!(calls.on_error(newest).is_err(), "it was answered");
        assert!(calls.on_error(newest + 1).is_err(), "it was never used");
        assert!(matches!(calls.on_error(long), Ok((true, ..))), "it is older and waits");
        assert_eq!((calls.table.len(), calls.closed), (0, 0));
    }

    #[test]
    fn a_call_that_was_never_sent_leaves_no_trace() {
        let mut calls = Calls::default();
        let id = calls.make(None);
        assert!(calls.on_error(id).is_err());
        assert!(calls.on_result_head(id).is_err());
        assert!(matches!(calls.withdraw(id), Some((Progress::Queued, _))));
        assert!(calls.on_error(id).is_err());
        assert!(!calls.is_known(id));
    }

    #[test]
    fn structure_is_bounded_and_one_call_alone_always_fits() {
        let config = Config { max_structure_bytes: 100, ..Config::default() };
        let mut calls = Calls::default();
        let mut charged_bytes = 0;
        let charge = |bytes| {
            charged_bytes = bytes;
            None
        };
        let huge = LARGE_STRUCTURE_BYTES + 1;
        assert!(matches!(calls.on_call(1, huge, 0, &config, charge), Ok(true)));
        assert_eq!(charged_bytes, huge);
        let refusal = calls.arrive(2, 1, &config).expect("there is no room");
        let text =
            format!("take 1 bytes beside the {huge} of calls that have no answer yet, past the server's 100");
        assert!(refusal.message.contains(&text), "{}", refusal.message);
        assert!(calls.end_with_answer(2) && calls.answer(1));
        assert!(!calls.answer(1) && !calls.end_with_answer(1) && !calls.end_with_answer(2));
        assert!(calls.arrive(3, 60, &config).is_none() && calls.arrive(4, 40, &config).is_none());
        assert!(calls.arrive(5, 1, &config).is_some());
        calls.remove(4);
        assert!(calls.arrive(6, 40, &config).is_none());
        assert_eq!((calls.structure_bytes, calls.open()), (100, 3));
    }

    #[test]
    fn answers_that_wait_for_the_socket_count_as_open_calls() {
        let config = Config { max_open_calls: 2, ..Config::default() };
        let mut calls = Calls::default();
        for id in 1..=2 {
            calls.arrive(id, 1, &config);
            assert!(if id == 1 { calls.end_with_answer(id) } else { calls.answer(id) });
        }
        let refused = calls.on_call(3, 1, 1, &config, |_| None);
        assert!(matches!(refused, Err(ProtocolError::TooManyCalls { .. })));
        calls.arrive(3, 1, &config);
        assert_eq!((calls.open(), calls.table.len()), (1, 2));
        calls.remove(2);
        calls.arrive(4, 1, &config);
        assert_eq!(calls.open(), 2);
    }

    #[test]
    fn what_was_staged_of_a_call_is_known_after_the_rest_was_dropped() {
        let mut calls = Calls::default();
        for staged in [Some(true), Some(false), None] {
            calls.make(staged);
        }
        let states = [(1, CallState::Sent), (2, CallState::Part), (3, CallState::Unsent)];
        assert_eq!(calls.states(), states);
        assert_eq!(calls.discard().len(), 1);
        calls.make(Some(true));
        assert_eq!(calls.states(), [&states[..], &[(4, CallState::Sent)]].concat());
    }

    #[test]
    fn a_call_is_open_until_its_result_is_whole() {
        let mut calls = Calls::default();
        let id = calls.make(Some(true));
        assert!(matches!(calls.on_result_head(id), Ok(true)));
        assert_eq!(calls.open(), 1);
        assert!(calls.withdraw(id).is_none());
        assert!(calls.on_result_head(id).is_err() && calls.on_error(id).is_err(), "one answer is enough");
        calls.on_result_abort(id, true);
        assert!(matches!(calls.on_result_head(id), Ok(true)), "unless it was given up");
        calls.on_result_whole(id);
        assert_eq!(calls.open(), 0);
    }

    #[test]
    fn a_whole_result_obeys_the_rules_of_its_head() {
        let mut calls = Calls::default();
        let [sent, begun, queued] = [Some(true), Some(false), None].map(|staged| calls.make(staged));
        assert!(matches!(calls.on_result_at_once(begun), Err(ProtocolError::EarlyResult { .. })));
        for id in [queued, queued + 1] {
            assert!(matches!(calls.on_result_at_once(id), Err(ProtocolError::UnexpectedAnswer { .. })));
        }
        assert_eq!(calls.open(), 3);
        assert!(matches!(calls.on_result_at_once(sent), Ok(true)));
        assert_eq!(calls.open(), 2);
        // The rest of a result that nobody waits for is dropped as it arrives, and then ends the call.
        let unwanted = calls.make(Some(true));
        calls.on_result_abort(unwanted, false);
        assert!(matches!(calls.on_result_at_once(unwanted), Ok(false)));
        assert_eq!(calls.open(), 3);
        calls.on_result_whole(unwanted);
        assert_eq!(calls.open(), 2);
    }
}
