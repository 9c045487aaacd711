//! The calls of a session and their outcomes. Pure: without links, threads or clocks.
//!
//! Flow: `arrived` -> `ended`, with the answer if it is kept -> `acknowledged`. On the client's next
//! connection `resume` returns the outcome of each call that the client lists, and forgets all others. If a
//! whole session was forgotten and its client comes back, the outcome of its calls is unknown up to the
//! newest that had arrived. Bounds: `max_open_calls` of the connection, and `max_ended` of
//! [`Records::arrived`].

use std::mem;

use teleport_transport::IdTable;
use teleport_transport::wire::{CallAnswer, CallState};

/// The oldest kept answer is searched for by id within this distance, and among all records otherwise.
const MAX_IDS_TRIED: u64 = 64;

/// The state of one call.
#[derive(Debug)]
pub(crate) enum Record<C, A> {
    Open(C),
    /// It ended, and its answer is kept.
    Kept(A),
    /// It ended, and its answer is gone.
    Expired,
}

/// The calls of a session whose answers its client has not acknowledged.
#[derive(Debug)]
pub(crate) struct Records<C, A> {
    calls: IdTable<Record<C, A>>,
    /// No older answer is kept.
    first_kept_id: u64,
    /// The number of `calls` that are not open.
    ended: usize,
    /// The newest call that ever arrived.
    newest_id: u64,
    /// Calls up to this one that are not in `calls` may have run.
    forgotten_id: u64,
    /// True if the session may have been forgotten without its newest id. The client's first call or resume
    /// decides: a client that has made calls resumes before it makes others.
    is_unsure: bool,
}

/// The outcome of a resume.
#[derive(Debug)]
pub(crate) struct Resumed<C, A, M> {
    /// One for each call that was listed.
    pub(crate) answers: Vec<(u64, CallAnswer)>,
    /// Answers to send now.
    pub(crate) kept: Vec<(u64, M)>,
    /// Calls that the client did not list.
    pub(crate) forgotten: Forgotten<C, A>,
}

/// Calls that were forgotten. To be dropped without a lock: answers may hold memory of users.
#[derive(Debug)]
#[must_use = "open calls are to be withdrawn"]
pub(crate) struct Forgotten<C, A> {
    pub(crate) open: Vec<C>,
    pub(crate) kept: Vec<A>,
}

impl<C, A> Default for Forgotten<C, A> {
    fn default() -> Self {
        Forgotten { open: Vec::new(), kept: Vec::new() }
    }
}

/// A client broke the protocol, and its call must not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    #[error("a call that can be resumed came before the resume of the earlier ones")]
    BeforeResume,
    #[error("a call came again that had arrived")]
    Repeated,
    #[error("more than twice `max_open_calls` answers were not acknowledged")]
    Unacknowledged,
}

impl<C, A> Default for Records<C, A> {
    fn default() -> Self {
        Records::after(0)
    }
}

impl<C, A> Records<C, A> {
    /// Creates the records of a session that was forgotten after the call `forgotten_id` had arrived.
    pub(crate) fn after(forgotten_id: u64) -> Self {
        let (calls, ended) = (IdTable::default(), 0);
        Records { calls, first_kept_id: 0, ended, newest_id: forgotten_id, forgotten_id, is_unsure: false }
    }

    /// Creates the records of a session that may have been forgotten.
    pub(crate) fn unsure() -> Self {
        Records { is_unsure: true, ..Records::after(0) }
    }

    /// Returns the id of the newest call that ever arrived, or 0.
    pub(crate) fn newest_id(&self) -> u64 {
        self.newest_id
    }
}

impl<C, A> Records<C, A> {
    /// Adds a call that is complete.
    ///
    /// # Errors
    /// Fails if the call is known already, or if more than `max_ended` answers wait to be acknowledged.
    pub(crate) fn arrived(&mut self, id: u64, call: C, max_ended: usize) -> Result<(), Breach> {
        if self.ended > max_ended {
            return Err(Breach::Unacknowledged);
        }
        if self.calls.get(id).is_some() {
            return Err(Breach::Repeated);
        }
        self.calls.insert(id, Record::Open(call));
        self.newest_id = self.newest_id.max(id);
        self.is_unsure = false;
        Ok(())
    }

    /// Ends a call. Keeps its answer if there is one. Returns false if the call is not open.
    pub(crate) fn ended(&mut self, id: u64, kept: Option<A>) -> bool {
        let Some(record @ Record::Open(_)) = self.calls.get_mut(id) else { return false };
        *record = kept.map_or(Record::Expired, Record::Kept);
        self.first_kept_id = self.first_kept_id.min(id);
        self.ended += 1;
        true
    }

    /// Removes the oldest answer that is kept.
    pub(crate) fn expire_oldest(&mut self) -> Option<A> {
        self.first_kept_id = self.oldest_kept()?;
        match mem::replace(self.calls.get_mut(self.first_kept_id)?, Record::Expired) {
            Record::Kept(answer) => Some(answer),
            _ => None,
        }
    }

    fn oldest_kept(&self) -> Option<u64> {
        let is_kept = |record: &Record<C, A>| matches!(record, Record::Kept(_));
        let mut next = self.first_kept_id..=self.first_kept_id.saturating_add(MAX_IDS_TRIED);
        let near = next.find(|id| self.calls.get(*id).is_some_and(is_kept));
        near.or_else(|| self.calls.iter().find(|(_, record)| is_kept(record)).map(|(id, _)| id))
    }

    /// Removes a call whose answer the client has, or knows to be lost. Returns its record. `release` is
    /// called with the answer if it was kept. If it returns true, the record is dropped where it is.
    pub(crate) fn acknowledged(&mut self, id: u64, release: impl FnOnce(&A) -> bool) -> Option<Record<C, A>> {
        let is_dropped = match self.calls.get(id)? {
            Record::Open(_) => return None,
            Record::Expired => true,
            Record::Kept(answer) => release(answer),
        };
        self.ended -= 1;
        if is_dropped {
            self.calls.discard(id);
            return None;
        }
        self.calls.remove(id)
    }

    /// Returns a call that has not ended.
    pub(crate) fn open(&self, id: u64) -> Option<&C> {
        match self.calls.get(id) {
            Some(Record::Open(call)) => Some(call),
            _ => None,
        }
    }

    /// Returns true if there is nothing to resume.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the outcome of the listed calls, and forgets all others. `copy` returns the message of a kept
    /// answer.
    pub(crate) fn resume<M>(
        &mut self,
        listed: &[(u64, CallState)],
        copy: impl Fn(&A) -> M,
    ) -> Resumed<C, A, M> {
        if mem::take(&mut self.is_unsure) {
            self.forgotten_id = listed.last().map_or(0, |(id, _)| *id);
            self.newest_id = self.forgotten_id;
        }
        let empty = Records { calls: IdTable::default(), first_kept_id: 0, ended: 0, ..*self };
        let mut before = mem::replace(self, empty);
        let (mut answers, mut kept) = (Vec::with_capacity(listed.len()), Vec::new());
        for (id, _) in listed {
            let record = before.calls.remove(*id);
            answers.push((*id, self.answer(*id, record.as_ref())));
            if let Some(Record::Kept(answer)) = &record {
                kept.push((*id, copy(answer)));
            }
            if let Some(record) = record {
                self.ended += usize::from(!matches!(record, Record::Open(_)));
                self.calls.insert(*id, record);
            }
        }
        Resumed { answers, kept, forgotten: before.forget() }
    }

    fn answer(&self, id: u64, record: Option<&Record<C, A>>) -> CallAnswer {
        match record {
            Some(Record::Open(_)) => CallAnswer::Running,
            Some(Record::Kept(_)) => CallAnswer::Done,
            Some(Record::Expired) => CallAnswer::Expired,
            None if id <= self.forgotten_id => CallAnswer::UnknownSession,
            None => CallAnswer::Missing,
        }
    }

    /// Forgets all calls.
    pub(crate) fn forget(mut self) -> Forgotten<C, A> {
        let mut forgotten = Forgotten::default();
        for record in self.calls.drain() {
            match record {
                Record::Open(call) => forgotten.open.push(call),
                Record::Kept(answer) => forgotten.kept.push(answer),
                Record::Expired => {}
            }
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: CallState = CallState::Sent;

    fn records() -> Records<&'static str, &'static str> {
        let mut records = Records::default();
        for (id, call) in [(1, "one"), (2, "two"), (3, "three"), (4, "four")] {
            assert_eq!(records.arrived(id, call, 0), Ok(()));
        }
        assert!(records.ended(2, Some("two's answer")) && records.ended(3, None));
        records
    }

    /// Acknowledges an answer, and returns it if it was kept.
    fn acknowledge(records: &mut Records<&str, &'static str>, id: u64) -> Option<&'static str> {
        match records.acknowledged(id, |_| false) {
            Some(Record::Kept(answer)) => Some(answer),
            Some(Record::Open(_)) => panic!("open calls stay"),
            Some(Record::Expired) | None => None,
        }
    }

    #[test]
    fn a_resume_returns_the_outcome_of_each_call_and_forgets_the_others() {
        let mut records = records();
        let resumed = records.resume(&[(1, SENT), (2, SENT), (3, SENT), (7, SENT)], |answer| *answer);
        let (running, done, expired, missing) =
            (CallAnswer::Running, CallAnswer::Done, CallAnswer::Expired, CallAnswer::Missing);
        assert_eq!(resumed.answers, [(1, running), (2, done), (3, expired), (7, missing)]);
        assert_eq!((resumed.kept, resumed.forgotten.open), (vec![(2, "two's answer")], vec!["four"]));
        // Nothing was acknowledged, so the next connection gets the same.
        let again = records.resume(&[(1, SENT), (2, SENT), (3, SENT)], |answer| *answer);
        assert_eq!(again.answers, [(1, running), (2, done), (3, expired)]);
        let acknowledged = [2, 3].map(|id| acknowledge(&mut records, id));
        assert_eq!(acknowledged, [Some("two's answer"), None]);
        assert_eq!(records.resume(&[], |answer| *answer).forgotten.open, ["one"]);
        assert!(records.is_empty());
    }

    #[test]
    fn forgotten_calls_are_not_missing() {
        let records = records();
        assert_eq!(records.newest_id(), 4);
        let mut later: Records<&str, &str> = Records::after(records.newest_id());
        let (unknown, missing) = (CallAnswer::UnknownSession, CallAnswer::Missing);
        for _ in 0..2 {
            // A client asks again if the answer was lost with its connection.
            assert_eq!(
                later.resume(&[(3, SENT), (5, SENT)], |answer| *answer).answers,
                [(3, unknown), (5, missing)]
            );
        }
        assert_eq!(later.arrived(5, "five", 0), Ok(()));
        assert_eq!(later.resume(&[(5, SENT)], |answer| *answer).answers, [(5, CallAnswer::Running)]);
        assert_eq!(later.newest_id(), 5);
    }

    #[test]
    fn the_client_decides_whether_its_session_was_forgotten() {
        let (unknown, missing) = (CallAnswer::UnknownSession, CallAnswer::Missing);
        let mut asked: Records<&str, &str> = Records::unsure();
        for _ in 0..2 {
            assert_eq!(
                asked.resume(&[(3, SENT), (5, SENT)], |answer| *answer).answers,
                [(3, unknown), (5, unknown)]
            );
        }
        assert_eq!(asked.resume(&[(6, SENT)], |answer| *answer).answers, [(6, missing)]);
        let mut called: Records<&str, &str> = Records::unsure();
        assert_eq!(called.arrived(2, "two", 0), Ok(()));
        assert_eq!(
            called.resume(&[(1, SENT), (3, SENT)], |answer| *answer).answers,
            [(1, missing), (3, missing)]
        );
    }

    #[test]
    fn a_call_arrives_once_and_ends_once() {
        let mut records = records();
        assert_eq!(records.arrived(2, "again", 100), Err(Breach::Repeated));
        assert!(!records.ended(2, None) && !records.ended(9, None));
        assert!(records.ended(1, Some("one's answer")));
        assert!(records.open(1).is_none() && records.open(4).is_some());
    }

    #[test]
    fn unacknowledged_answers_are_bounded() {
        let mut records = records();
        assert_eq!(records.arrived(5, "five", 2), Ok(()));
        assert_eq!(records.arrived(6, "six", 1), Err(Breach::Unacknowledged));
        acknowledge(&mut records, 3);
        acknowledge(&mut records, 4); // Call 4 is still open, so the client lies.
        assert_eq!(records.arrived(6, "six", 1), Ok(()));
        assert!(records.open(4).is_some());
    }

    #[test]
    fn the_oldest_answer_expires_first() {
        let mut records = records();
        records.ended(1, Some("one's answer"));
        assert_eq!(records.expire_oldest(), Some("one's answer"));
        assert_eq!((records.expire_oldest(), records.expire_oldest()), (Some("two's answer"), None));
        let expired = CallAnswer::Expired;
        assert_eq!(
            records.resume(&[(1, SENT), (2, SENT)], |answer| *answer).answers,
            [(1, expired), (2, expired)]
        );
    }

    #[test]
    fn the_oldest_answer_is_found_however_far_apart_the_ids_are() {
        let mut records: Records<(), u64> = Records::default();
        let ids = [1, 2, 3 + MAX_IDS_TRIED, 1 << 40, (1 << 40) + 1, u64::MAX];
        for id in ids {
            assert_eq!(records.arrived(id, (), 0), Ok(()));
        }
        // The last of them is still open.
        ids[..5].iter().rev().for_each(|id| assert!(records.ended(*id, Some(*id))));
        assert!(records.acknowledged(2, |_| true).is_none());
        let expired: Vec<u64> = std::iter::from_fn(|| records.expire_oldest()).collect();
        assert_eq!(expired, [1, 3 + MAX_IDS_TRIED, 1 << 40, (1 << 40) + 1]);
    }
}
