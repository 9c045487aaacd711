//! A client's calls that survive its connections.
//!
//! Flow: a client with a session connects -> [`Sessions::opened`] finds its session, and ends the connection that it had
//! before -> calls `arrived` and `ended` here instead of at the connection -> it is lost: calls run on and answers are
//! kept -> the next connection asks, is answered once the one before is no longer read, and gets what it has missed.
//!
//! So a call runs at most once: whatever arrived whole is known here before the client can ask for it again.
//! Locks: that of all sessions, then a session's own, then that of a link's sending half. Never waits. Bounds:
//! `max_kept_bytes` of answers, `resume_timeout` without a connection, as many sessions without one as connections are
//! allowed.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::wire::{CallAnswer, Id128, Message, Resume};
use teleport_transport::{Budget, Charge, Link};

use crate::session::records::{Breach, Records};

/// What pays for answers that are kept: a budget of their own, and that of the whole server.
#[derive(Clone, Debug)]
pub(crate) struct KeptBudget {
    pub(crate) kept: Budget,
    pub(crate) all: Budget,
}

/// What pays for one answer that is kept.
#[derive(Debug)]
struct Room {
    _kept: Charge,
    _all: Charge,
}

impl KeptBudget {
    /// Returns room to keep an answer, if there is any.
    fn room(&self, bytes: u64) -> Option<Room> {
        Some(Room { _kept: self.kept.try_charge(bytes)?, _all: self.all.charge_anyway(bytes) })
    }
}

/// An answer that is kept until its client says that it has it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    message: Message,
    _room: Arc<Room>,
}

/// Calls that nobody waits for any more and that are to be withdrawn, and answers that go with them.
pub(crate) type Forgotten<C> = crate::session::records::Forgotten<Weak<C>, Kept>;

/// The calls of one client that survive its connections.
///
/// A call holds its session, so the session holds its calls weakly, and its links too, which hold it. A queue or a worker
/// holds the calls.
#[derive(Debug)]
pub(crate) struct Session<C> {
    pub(crate) id: Id128,
    /// Answers that may wait to be acknowledged.
    max_ended: usize,
    budget: KeptBudget,
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C> {
    records: Records<Weak<C>, Kept>,
    /// Connections that have not ended: one, or two while the older one is being ended.
    connections: usize,
    /// The key of the newest one: hellos may be read in another order than that in which the client connected.
    newest: usize,
    /// Where answers go; none from when a connection has ended until the next one has resumed.
    link: Option<WeakLink>,
    /// A connection that asked while the one before it had not ended.
    waiting: Option<(WeakLink, Resume)>,
    /// Since when there is no connection.
    lost: Option<Instant>,
}

/// A link and its key, which stays known when the link is gone.
#[derive(Clone, Debug)]
struct WeakLink {
    key: usize,
    link: Weak<Link>,
}

impl WeakLink {
    fn new(link: &Arc<Link>) -> WeakLink {
        WeakLink { key: link.key(), link: Arc::downgrade(link) }
    }
}

impl<C> Session<C> {
    pub(crate) fn new(
        id: Id128,
        max_open_calls: u32,
        budget: KeptBudget,
        records: Records<Weak<C>, Kept>,
    ) -> Session<C> {
        let state = State { records, connections: 0, newest: 0, link: None, waiting: None, lost: None };
        Session { id, max_ended: 2 * max_open_calls as usize, budget, state: Mutex::new(state) }
    }

    /// A connection of this session is open. The one before it, if it has not ended, is ended: only then is a resume
    /// answered, so that nothing arrives unseen. Gives since when there was none, if so.
    pub(crate) fn opened(&self, link: &Arc<Link>) -> Option<Instant> {
        let mut state = self.state.lock();
        state.connections += 1;
        let lost = state.lost.take();
        let ended = if link.key() < state.newest {
            // The client has given it up already.
            Some(link.clone())
        } else {
            state.newest = link.key();
            if state.link.is_none() && state.records.is_empty() {
                state.link = Some(WeakLink::new(link));
                None
            } else {
                state.link.as_ref().and_then(|before| before.link.upgrade())
            }
        };
        drop(state);
        if let Some(ended) = ended {
            ended.abort();
        }
        lost
    }

    /// A call arrived whole.
    ///
    /// # Errors
    /// Why it must not run: the rule that its client broke.
    pub(crate) fn arrived(&self, link: &Arc<Link>, id: u64, call: &Arc<C>) -> Result<(), &'static str> {
        let mut state = self.state.lock();
        if !state.takes_calls_of(link) {
            return Err("a call that can be resumed came before the resume of the earlier ones");
        }
        state.records.arrived(id, Arc::downgrade(call), self.max_ended).map_err(|breach| match breach {
            Breach::Repeated => "a call came again that had arrived",
            Breach::Unacknowledged => "more than twice `max_open_calls` answers were not acknowledged",
        })
    }

    /// A call has its answer. It is kept if there is room for it, and sent if there is a connection. Returns false if the
    /// call was answered before, or its client has given it up.
    pub(crate) fn ended(&self, id: u64, message: Message) -> bool {
        let bytes = message.memory_bytes + message.metadata.len() as u64;
        let (mut room, mut expired) = (self.budget.room(bytes), Vec::new());
        let mut state = self.state.lock();
        if state.records.open(id).is_none() {
            return false;
        }
        // A client that does not say what it has loses its own oldest answers first.
        while room.is_none()
            && let Some(answer) = state.records.expire_oldest()
        {
            expired.push(answer.message);
            room = self.budget.room(bytes);
        }
        let kept = room.map(|room| Kept { message: message.clone(), _room: Arc::new(room) });
        state.records.ended(id, kept);
        let link = state.link.as_ref().and_then(|current| current.link.upgrade());
        drop(state);
        // Fails when the connection has just ended: the next one gets the answer.
        let _ = link.map(|link| link.answer(id, message));
        true
    }

    /// Returns the open call with this id.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<C>> {
        self.state.lock().records.open(id)?.upgrade()
    }

    /// Returns the link that answers go to now.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.state.lock().link.as_ref()?.link.upgrade()
    }

    /// The client has these answers.
    pub(crate) fn acknowledged(&self, ids: &[u64]) {
        let mut state = self.state.lock();
        let answers: Vec<Kept> = ids.iter().filter_map(|id| state.records.acknowledged(*id)).collect();
        drop(state);
        drop(answers);
    }

    /// A connection asks for its calls of earlier ones.
    pub(crate) fn resuming(&self, link: &Arc<Link>, resume: Resume) -> Forgotten<C> {
        let mut state = self.state.lock();
        if link.key() != state.newest {
            return Forgotten::default();
        }
        if state.link.as_ref().is_some_and(|current| current.key != link.key()) {
            state.waiting = Some((WeakLink::new(link), resume));
            return Forgotten::default();
        }
        state.resume(link, &resume)
    }

    /// A connection is no longer read. Gives what the next one has given up, if it has asked already, and whether none is
    /// left.
    pub(crate) fn closed(&self, link: &Link, now: Instant) -> (Forgotten<C>, bool) {
        let mut state = self.state.lock();
        state.connections = state.connections.saturating_sub(1);
        if state.waiting.as_ref().is_some_and(|(waiting, _)| waiting.key == link.key()) {
            state.waiting = None;
        }
        if state.link.as_ref().is_some_and(|current| current.key == link.key()) {
            state.link = None;
        }
        let mut forgotten = Forgotten::default();
        if state.link.is_none()
            && let Some((next, resume)) = state.waiting.take()
            && let Some(next) = next.link.upgrade()
        {
            forgotten = state.resume(&next, &resume);
        }
        let is_lost = state.connections == 0;
        state.lost = is_lost.then_some(now);
        (forgotten, is_lost)
    }

    /// Forgets everything but how far it came, which it gives.
    pub(crate) fn end(&self) -> (Forgotten<C>, u64) {
        let mut state = self.state.lock();
        let records = mem::take(&mut state.records);
        (state.link, state.waiting) = (None, None);
        drop(state);
        let newest_id = records.newest_id();
        (records.forget(), newest_id)
    }
}

impl<C> State<C> {
    /// Whether calls may come on `link`: it is the current one, or the first that has anything to keep.
    pub(crate) fn takes_calls_of(&mut self, link: &Arc<Link>) -> bool {
        if self.records.is_empty() && self.waiting.is_none() && link.key() == self.newest {
            self.link = Some(WeakLink::new(link));
        }
        self.link.as_ref().is_some_and(|current| current.key == link.key())
    }

    /// Answers a resume, and sends what the client has missed. Under the lock, so that an answer which comes now finds
    /// its call open on the new link.
    pub(crate) fn resume(&mut self, link: &Arc<Link>, resume: &Resume) -> Forgotten<C> {
        self.link = Some(WeakLink::new(link));
        let resumed = self.records.resume(&resume.calls);
        // Fails when this connection has ended too: the next one asks again.
        let done = resumed.kept.into_iter().map(|(id, kept)| (id, kept.message)).collect();
        let _ = link.answer_resume(resumed.answers, done);
        resumed.forgotten
    }
}

/// What a client is told of calls that this server never had.
pub(crate) fn unknown(resume: &Resume) -> Vec<(u64, CallAnswer)> {
    resume.calls.iter().map(|(id, _)| (*id, CallAnswer::UnknownSession)).collect()
}
