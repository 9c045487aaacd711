//! What a session knows of its calls, without links, threads or clocks.
//!
//! Flow: `arrived` -> `ended`, with what is kept of the answer -> `acknowledged`. On the client's next connection `resume`
//! says what became of each call that it lists; what it does not list is forgotten. A session that was forgotten as a whole
//! and comes back knows how far it had come: of calls up to there it cannot tell what became of them.
//! Bound: open calls by the connection's `max_open_calls`, ended ones by as many as [`Records::arrived`] is told.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use teleport_transport::wire::{CallAnswer, CallState};

/// One call: open, ended with its answer kept, or ended without.
#[derive(Debug)]
enum Record<C, A> {
    Open(C),
    Kept(A),
    Expired,
}

/// The calls of a session that its client has no answer to, as far as the server knows.
#[derive(Debug)]
pub(crate) struct Records<C, A> {
    /// By id, so the oldest come first.
    calls: BTreeMap<u64, Record<C, A>>,
    /// Invariant: those of `calls` that are not open.
    ended: usize,
    /// The newest call that ever arrived.
    newest_id: u64,
    /// Of calls up to this one that are not in `calls`, nobody knows what became of them: they may have run.
    forgotten_id: u64,
    /// Whether it may have been forgotten, and how far it came with it. The first call or resume tells: who has made calls
    /// resumes before any other.
    is_unsure: bool,
}

/// What came of a resume.
#[derive(Debug)]
pub(crate) struct Resumed<C, A> {
    /// One for each call that was listed.
    pub(crate) answers: Vec<(u64, CallAnswer)>,
    /// Answers to send now.
    pub(crate) kept: Vec<(u64, A)>,
    /// What the client has given up, or has.
    pub(crate) forgotten: Forgotten<C, A>,
}

/// What is no longer known. Whoever gets it drops it, outside of all locks: it may hold memory of users.
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

/// Why a call must not run: its client does not keep to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// Its id is that of a call which is known.
    Repeated,
    /// Too many answers were not acknowledged.
    Unacknowledged,
}

impl<C, A> Default for Records<C, A> {
    fn default() -> Self {
        Records::after(0)
    }
}

impl<C, A> Records<C, A> {
    /// Of a session of which it is only known that calls up to `forgotten_id` have arrived.
    pub(crate) fn after(forgotten_id: u64) -> Self {
        let (calls, ended) = (BTreeMap::new(), 0);
        Records { calls, ended, newest_id: forgotten_id, forgotten_id, is_unsure: false }
    }

    /// Of a session that may have been forgotten.
    pub(crate) fn unsure() -> Self {
        Records { is_unsure: true, ..Records::after(0) }
    }

    /// The newest call that ever arrived; 0 if none did.
    pub(crate) fn newest_id(&self) -> u64 {
        self.newest_id
    }
}

impl<C: Clone, A: Clone> Records<C, A> {
    /// A call arrived whole. At most `max_ended` answers may wait to be acknowledged.
    ///
    /// # Errors
    /// Why it must not run; nothing is noted then.
    pub(crate) fn arrived(&mut self, id: u64, call: C, max_ended: usize) -> Result<(), Breach> {
        if self.ended > max_ended {
            return Err(Breach::Unacknowledged);
        }
        match self.calls.entry(id) {
            Entry::Occupied(_) => Err(Breach::Repeated),
            Entry::Vacant(place) => {
                place.insert(Record::Open(call));
                self.newest_id = self.newest_id.max(id);
                self.is_unsure = false;
                Ok(())
            }
        }
    }

    /// A call ended, with an answer that is kept, or that there is no room for. False if it had ended before, or is not
    /// known any more.
    pub(crate) fn ended(&mut self, id: u64, kept: Option<A>) -> bool {
        let Some(record @ Record::Open(_)) = self.calls.get_mut(&id) else { return false };
        *record = kept.map_or(Record::Expired, Record::Kept);
        self.ended += 1;
        true
    }

    /// Gives up the answer that is kept for longest; none if none is.
    pub(crate) fn expire_oldest(&mut self) -> Option<A> {
        let oldest = self.calls.values_mut().find(|record| matches!(record, Record::Kept(_)))?;
        match std::mem::replace(oldest, Record::Expired) {
            Record::Kept(answer) => Some(answer),
            _ => None,
        }
    }

    /// The client has the answer, or knows that it has expired. Gives what was kept.
    pub(crate) fn acknowledged(&mut self, id: u64) -> Option<A> {
        if self.open(id).is_some() {
            return None;
        }
        let record = self.calls.remove(&id)?;
        self.ended -= 1;
        if let Record::Kept(answer) = record { Some(answer) } else { None }
    }

    /// A call that has not ended.
    pub(crate) fn open(&self, id: u64) -> Option<&C> {
        match self.calls.get(&id) {
            Some(Record::Open(call)) => Some(call),
            _ => None,
        }
    }

    /// Whether there is nothing to resume.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Says what became of the listed calls, and forgets all others.
    pub(crate) fn resume(&mut self, listed: &[(u64, CallState)]) -> Resumed<C, A> {
        if std::mem::take(&mut self.is_unsure) {
            self.forgotten_id = listed.last().map_or(0, |(id, _)| *id);
            self.newest_id = self.forgotten_id;
        }
        let empty = Records { calls: BTreeMap::new(), ended: 0, ..*self };
        let mut before = std::mem::replace(self, empty);
        let (mut answers, mut kept) = (Vec::with_capacity(listed.len()), Vec::new());
        for (id, _) in listed {
            let record = before.calls.remove(id);
            answers.push((*id, self.answer(*id, record.as_ref())));
            if let Some(Record::Kept(answer)) = &record {
                kept.push((*id, answer.clone()));
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

    /// Everything that is known, to be dropped.
    pub(crate) fn forget(self) -> Forgotten<C, A> {
        let mut forgotten = Forgotten::default();
        for record in self.calls.into_values() {
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

    #[test]
    fn a_resume_tells_what_became_of_each_call_and_forgets_the_others() {
        let mut records = records();
        let resumed = records.resume(&[(1, SENT), (2, SENT), (3, SENT), (7, SENT)]);
        let (running, done, expired, missing) =
            (CallAnswer::Running, CallAnswer::Done, CallAnswer::Expired, CallAnswer::Missing);
        assert_eq!(resumed.answers, [(1, running), (2, done), (3, expired), (7, missing)]);
        assert_eq!((resumed.kept, resumed.forgotten.open), (vec![(2, "two's answer")], vec!["four"]));
        // Nothing was acknowledged: the next connection is told the same.
        let again = records.resume(&[(1, SENT), (2, SENT), (3, SENT)]);
        assert_eq!(again.answers, [(1, running), (2, done), (3, expired)]);
        assert_eq!((records.acknowledged(2), records.acknowledged(3)), (Some("two's answer"), None));
        assert_eq!(records.resume(&[]).forgotten.open, ["one"]);
        assert!(records.is_empty());
    }

    #[test]
    fn what_was_forgotten_is_not_missing() {
        let records = records();
        assert_eq!(records.newest_id(), 4);
        let mut later: Records<&str, &str> = Records::after(records.newest_id());
        let (unknown, missing) = (CallAnswer::UnknownSession, CallAnswer::Missing);
        for _ in 0..2 {
            // Asked again, since the answer may be lost with its connection.
            assert_eq!(later.resume(&[(3, SENT), (5, SENT)]).answers, [(3, unknown), (5, missing)]);
        }
        assert_eq!(later.arrived(5, "five", 0), Ok(()));
        assert_eq!(later.resume(&[(5, SENT)]).answers, [(5, CallAnswer::Running)]);
        assert_eq!(later.newest_id(), 5);
    }

    #[test]
    fn where_nobody_knows_whether_it_was_forgotten_the_client_tells() {
        let (unknown, missing) = (CallAnswer::UnknownSession, CallAnswer::Missing);
        let mut asked: Records<&str, &str> = Records::unsure();
        for _ in 0..2 {
            assert_eq!(asked.resume(&[(3, SENT), (5, SENT)]).answers, [(3, unknown), (5, unknown)]);
        }
        assert_eq!(asked.resume(&[(6, SENT)]).answers, [(6, missing)]);
        let mut called: Records<&str, &str> = Records::unsure();
        assert_eq!(called.arrived(2, "two", 0), Ok(()));
        assert_eq!(called.resume(&[(1, SENT), (3, SENT)]).answers, [(1, missing), (3, missing)]);
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
    fn answers_that_nobody_acknowledges_are_bounded() {
        let mut records = records();
        assert_eq!(records.arrived(5, "five", 2), Ok(()));
        assert_eq!(records.arrived(6, "six", 1), Err(Breach::Unacknowledged));
        records.acknowledged(3);
        records.acknowledged(4); // still open: a client that lies
        assert_eq!(records.arrived(6, "six", 1), Ok(()));
        assert!(records.open(4).is_some());
    }

    #[test]
    fn what_is_kept_for_longest_goes_first() {
        let mut records = records();
        records.ended(1, Some("one's answer"));
        assert_eq!(records.expire_oldest(), Some("one's answer"));
        assert_eq!((records.expire_oldest(), records.expire_oldest()), (Some("two's answer"), None));
        let expired = CallAnswer::Expired;
        assert_eq!(records.resume(&[(1, SENT), (2, SENT)]).answers, [(1, expired), (2, expired)]);
    }
}
