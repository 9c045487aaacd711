//! The open calls of a connection: which may be answered, and how answers and withdrawals change them.
//!
//! On a client, these are the calls that it makes: `begin` -> `on_staged` -> an answer of the peer, or
//! `withdraw`. On a server, these are the calls of its peer: `on_call` -> `answer` -> `on_answer_staged`.
//! Each entry also holds this side's message until it is staged completely: the call, or its answer.
//! the call, or its answer.
//!
//! Knows no frames and no clock. Bounds: `max_open_calls` of the server; on a client, `MAX_REMEMBERED` more
//! withdrawn calls; `max_structure_bytes` for the structure of the peer's calls.

use teleport_wire::{CallState, ErrorKind, Ran, RemoteError};

use super::error::ProtocolError;
use super::id_table::IdTable;
use super::send::unsent::Unsent;
use crate::config::Config;
use crate::memory::budget::Charge;

/// The number of withdrawn calls to remember, because an error may cross their abort. An error for an older
/// call is ignored as well, but a second error for it is not detected. Few such errors are ever in transit.
const MAX_REMEMBERED: usize = 256;

/// A structure of more bytes than this counts as memory for which others may wait. Most calls have a few
/// hundred bytes.
pub(super) const LARGE_STRUCTURE_BYTES: u64 = 64 << 10;

/// The progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// On a client: nothing of it was staged, so the peer cannot know it.
    Queued,
    /// On a client: its head was staged, but not all of its payload.
    Begun,
    /// On a client: it was staged completely.
    Sent,
    /// On a client: the head of its result arrived, but not all of its payload.
    Receiving,
    /// On a client: it ended with an abort, and no answer to it has arrived.
    Withdrawn,
    /// On a server: it has no answer.
    Unanswered,
    /// On a server: its answer is queued, or staged in part.
    Answered,
}

/// One call in the table.
#[derive(Debug)]
pub(super) struct Call {
    progress: Progress,
    /// False once its caller was informed of a failure: a later answer is dropped.
    is_awaited: bool,
    /// The peer has acknowledged the complete call.
    is_acknowledged: bool,
    /// The call or its answer, until it is staged completely.
    pub(super) unsent: Option<Unsent>,
    /// The memory for its names, shapes and nodes, until it is answered.
    structure_bytes: u64,
    /// Pays for a large structure until the call is answered, and then for a large result until it is staged
    /// completely.
    pub(super) charge: Option<Charge>,
    /// The window of the minimum rate in which the result was queued.
    pub(super) window: u32,
}

impl Call {
    fn new(progress: Progress) -> Call {
        Call {
            progress,
            is_awaited: true,
            is_acknowledged: false,
            unsent: None,
            structure_bytes: 0,
            charge: None,
            window: 0,
        }
    }

    /// Called when the head of its message, or the rest of it, was staged. Returns true if the message is an
    /// answer.
    pub(super) fn on_staged(&mut self, is_whole: bool) -> bool {
        let is_answer = self.progress == Progress::Answered;
        if !is_answer {
            self.progress = if is_whole { Progress::Sent } else { Progress::Begun };
        }
        is_answer
    }

    /// Returns the bytes that are charged for its result.
    pub(super) fn result_charge_bytes(&self) -> Option<u64> {
        let charge = self.charge.as_ref().filter(|_| self.progress == Progress::Answered);
        charge.map(Charge::bytes)
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    table: IdTable<Call>,
    /// Invariant: the entries that are [`Withdrawn`](Progress::Withdrawn) or
    /// [`Answered`](Progress::Answered).
    closed: usize,
    /// The newest call of this connection. Calls number from 1.
    last_id: u64,
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

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Call> {
        self.table.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Call)> {
        self.table.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.table.iter_mut().map(|(_, call)| call)
    }

    /// Returns the charge of each result.
    pub(super) fn result_charges(&self) -> impl Iterator<Item = u64> {
        self.table.iter().filter_map(|(_, call)| call.result_charge_bytes())
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

    /// Ends a call of the peer, because its answer was staged completely.
    pub(super) fn on_answer_staged(&mut self, id: u64) -> Option<Call> {
        self.closed -= 1;
        self.table.remove(id)
    }

    // ---- The calls of a client ----

    /// Returns the id of the next new call.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Begins a call, which may be one of an earlier connection.
    pub(super) fn begin(&mut self, id: u64, message: Unsent) {
        self.last_id = self.last_id.max(id);
        self.table.insert(id, Call { unsent: Some(message), ..Call::new(Progress::Queued) });
    }

    /// Continues the ids of new calls after `id`. Ids up to it belong to earlier connections.
    pub(super) fn number_after(&mut self, id: u64) {
        self.last_id = self.last_id.max(id);
    }

    /// Returns what the peer may have received of each call whose answer is incomplete.
    pub(super) fn states(&self) -> Vec<(u64, CallState)> {
        let state = |(id, call): (u64, &Call)| {
            let state = match call.progress {
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
    pub(super) fn withdraw(&mut self, id: u64) -> Option<(Progress, Option<Unsent>)> {
        let call = self.table.get_mut(id)?;
        let progress = call.progress;
        let unsent = match progress {
            Progress::Queued => self.table.remove(id).and_then(|call| call.unsent),
            Progress::Begun => {
                call.progress = Progress::Withdrawn;
                call.is_awaited = false;
                let unsent = call.unsent.take();
                self.closed += 1;
                self.forget_withdrawn();
                unsent
            }
            Progress::Sent => None,
            _ => return None,
        };
        Some((progress, unsent))
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
            call.is_acknowledged |= matches!(call.progress, Progress::Sent | Progress::Receiving);
        }
    }

    /// An error arrived, which ends the call. Returns true if its caller waits for the error, and the rest of
    /// the call's message.
    pub(super) fn on_error(&mut self, id: u64) -> Result<(bool, Option<Unsent>), ProtocolError> {
        match self.table.get(id).map(|call| call.progress) {
            Some(Progress::Begun | Progress::Sent | Progress::Withdrawn) => {}
            None if id <= self.forgotten_id => return Ok((false, None)),
            _ => return Err(ProtocolError::UnexpectedAnswer { id }),
        }
        let Some(call) = self.table.remove(id) else { return Ok((false, None)) };
        self.closed -= usize::from(call.progress == Progress::Withdrawn);
        Ok((call.is_awaited, call.unsent))
    }

    /// The head of a result arrived. Returns true if the caller waits for the result.
    pub(super) fn on_result_head(&mut self, id: u64) -> Result<bool, ProtocolError> {
        match self.table.get_mut(id) {
            Some(call) if call.progress == Progress::Sent => {
                call.progress = Progress::Receiving;
                Ok(call.is_awaited)
            }
            Some(call) if call.progress == Progress::Begun => Err(ProtocolError::EarlyResult { id }),
            _ => Err(ProtocolError::UnexpectedAnswer { id }),
        }
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

    /// The head of a call arrived: opens the call. Returns a refusal if there is no room for its structure,
    /// which must not be kept then.
    pub(super) fn on_call(
        &mut self,
        id: u64,
        structure_bytes: u64,
        config: &Config,
        charge: impl FnOnce(u64) -> Option<Charge>,
    ) -> Result<Option<RemoteError>, ProtocolError> {
        if id <= self.last_id || (self.is_known(id) && self.table.get(id).is_some()) {
            return Err(ProtocolError::ReusedId { id, last_id: self.last_id });
        }
        // Answers in the send queue count. Otherwise a peer that reads none of them could have any number
        // queued.
        let max_open_calls = config.max_open_calls;
        if self.table.len() >= max_open_calls as usize {
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
                call.charge = charge(structure_bytes);
            }
        }
        self.table.insert(id, call);
        let refusal = || {
            let text = format!(
                "names, shapes and nodes of this call take {structure_bytes} bytes beside the {held_bytes} of calls \
                 that have no answer yet, past the server's {max_bytes} per connection (`max_structure_bytes`): make \
                 fewer at once, or calls of fewer nodes"
            );
            RemoteError::new(ErrorKind::Overloaded, Ran::No, text)
        };
        Ok((!fits).then(refusal))
    }

    /// Marks a call as answered. Returns `None` if it has an answer or is gone.
    pub(super) fn answer(&mut self, id: u64) -> Option<&mut Call> {
        let call = self.table.get_mut(id).filter(|call| call.progress == Progress::Unanswered)?;
        call.progress = Progress::Answered;
        call.charge = None;
        self.structure_bytes -= std::mem::take(&mut call.structure_bytes);
        self.closed += 1;
        Some(call)
    }

    /// Returns a call whose answer is not staged completely.
    pub(super) fn answered_mut(&mut self, id: u64) -> Option<&mut Call> {
        self.table.get_mut(id).filter(|call| call.progress == Progress::Answered)
    }

    /// The peer gave up an incomplete call, which ends it. Its queued answer is not needed.
    pub(super) fn on_call_abort(&mut self, id: u64) -> Option<Call> {
        let call = self.table.remove(id)?;
        self.structure_bytes -= call.structure_bytes;
        self.closed -= usize::from(call.progress == Progress::Answered);
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use teleport_wire::Message;

    use super::*;

    impl Calls {
        fn arrive(&mut self, id: u64, structure_bytes: u64, config: &Config) -> Option<RemoteError> {
            self.on_call(id, structure_bytes, config, |_| None).expect("the call is legal")
        }

        /// Begins a call and stages all of it, a part or nothing.
        fn make(&mut self, staged: Option<bool>) -> u64 {
            let id = self.next_id();
            let message = Message::error(&RemoteError::new(ErrorKind::Failed, Ran::No, ""));
            self.begin(id, Unsent::Head { message, is_eager: false });
            if let (Some(is_whole), Some(call)) = (staged, self.get_mut(id)) {
                call.unsent = None;
                assert!(!call.on_staged(is_whole));
                self.know(id);
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
            assert!(matches!(calls.on_error(id), Ok((false, _))), "{id}");
        }
        assert!(calls.on_error(newest).is_err(), "it was answered");
        assert!(calls.on_error(newest + 1).is_err(), "it was never used");
        assert!(matches!(calls.on_error(long), Ok((true, _))), "it is older and waits");
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
        assert!(matches!(calls.on_call(1, huge, &config, charge), Ok(None)));
        assert_eq!(charged_bytes, huge);
        let refusal = calls.arrive(2, 1, &config).expect("there is no room");
        let text =
            format!("take 1 bytes beside the {huge} of calls that have no answer yet, past the server's 100");
        assert!(refusal.message.contains(&text), "{}", refusal.message);
        assert!(calls.answer(2).is_some() && calls.answer(1).is_some() && calls.answer(1).is_none());
        assert!(calls.arrive(3, 60, &config).is_none() && calls.arrive(4, 40, &config).is_none());
        assert!(calls.arrive(5, 1, &config).is_some());
        assert!(calls.on_call_abort(4).is_some());
        assert!(calls.arrive(6, 40, &config).is_none());
        assert_eq!((calls.structure_bytes, calls.open()), (100, 3));
    }

    #[test]
    fn answers_that_wait_for_the_socket_count_as_open_calls() {
        let config = Config { max_open_calls: 2, ..Config::default() };
        let mut calls = Calls::default();
        for id in 1..=2 {
            calls.arrive(id, 1, &config);
            assert!(calls.answer(id).is_some());
        }
        let refused = calls.on_call(3, 1, &config, |_| None);
        assert!(matches!(refused, Err(ProtocolError::TooManyCalls { .. })));
        assert!(calls.on_answer_staged(1).is_some());
        calls.on_call_abort(2);
        calls.arrive(3, 1, &config);
        assert_eq!(calls.open(), 1);
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
}
