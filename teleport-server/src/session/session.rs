//! The calls of one client that survive its connections.
//!
//! Flow: a client with a session connects -> `Sessions::opened` finds its session and ends the previous
//! connection -> calls `arrived` and `ended` here -> the connection is lost: calls continue to run, and
//! answers are kept -> the client's next connection resumes. It is answered once the previous one is no
//! longer read, and gets the missed answers.
//!
//! A call runs at most once: a complete call is registered here before its client can ask for it. Locks: that
//! of all sessions, then a session's own, then that of a link's sending half. Never waits. Bounds:
//! `max_kept_bytes` of answers, `resume_timeout` without a connection, and `max_lost` such sessions.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::wire::{CallAnswer, Id128, Message, Resume};
use teleport_transport::{Budget, Charge, Link};

use crate::session::records::{Breach, Records};

/// Answers of at most this size are paid from the blocks of their session. Like small results that wait for
/// their client, they are not part of `max_memory`.
const MAX_SMALL_BYTES: u64 = 2 << 10;

/// The unit in which a session pays for its small answers, so that most of these need no lock of a budget.
const BLOCK_BYTES: u64 = 4 << 10;

/// The part of the bytes for kept answers that blocks may take.
const BLOCKS_PART: u64 = 4;

/// Pays for kept answers, from their own budget and that of the whole server.
#[derive(Clone, Debug)]
pub(crate) struct KeptBudget {
    kept: Budget,
    /// For the blocks of all sessions.
    blocks: Budget,
    all: Budget,
}

/// Pays for one kept answer.
#[derive(Debug)]
enum Room {
    /// These bytes of the blocks of the session.
    Small(u64),
    /// Boxed, so that the records of small answers are small.
    Own(#[expect(dead_code, reason = "they pay until they are dropped")] Box<[Charge; 2]>),
}

impl KeptBudget {
    pub(crate) fn new(max_kept_bytes: u64, all: Budget) -> KeptBudget {
        let max_block_bytes = max_kept_bytes / BLOCKS_PART;
        let kept = Budget::new(max_kept_bytes - max_block_bytes);
        KeptBudget { kept, blocks: Budget::new(max_block_bytes), all }
    }

    /// Returns the bytes of kept answers, except those in blocks.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.kept.used_bytes()
    }

    /// Returns room for an answer, if there is any.
    fn room(&self, bytes: u64) -> Option<Room> {
        Some(Room::Own(Box::new([self.kept.try_charge(bytes)?, self.all.charge_anyway(bytes)])))
    }
}

/// The small kept answers of a session.
#[derive(Debug, Default)]
struct SmallAnswers {
    bytes: u64,
    /// A session keeps one block for its next answers.
    blocks: Vec<Charge>,
}

impl SmallAnswers {
    fn room(&mut self, budget: &KeptBudget, bytes: u64) -> Option<Room> {
        if bytes > MAX_SMALL_BYTES {
            return None;
        }
        if self.bytes + bytes > self.blocks.len() as u64 * BLOCK_BYTES {
            self.blocks.push(budget.blocks.try_charge(BLOCK_BYTES)?);
        }
        self.bytes += bytes;
        Some(Room::Small(bytes))
    }

    fn release(&mut self, room: &Room) {
        let Room::Small(bytes) = room else { return };
        self.bytes -= bytes;
        // With a block to spare, so that not each answer takes or returns one.
        while self.blocks.len() > 1 && self.bytes + 2 * BLOCK_BYTES < self.blocks.len() as u64 * BLOCK_BYTES {
            self.blocks.pop();
        }
    }
}

/// An answer that is kept until its client acknowledges it.
#[derive(Debug)]
pub(crate) struct Kept {
    message: Message,
    room: Room,
}

/// Calls to withdraw, since their client has given them up, and answers to drop.
pub(crate) type Forgotten<C> = crate::session::records::Forgotten<Weak<C>, Kept>;

/// One session.
///
/// Calls and links own their session, so a session refers to them weakly. A queue or a worker owns the calls.
#[derive(Debug)]
pub(crate) struct Session<C> {
    pub(crate) id: Id128,
    /// The number of answers that may wait to be acknowledged.
    max_ended: usize,
    budget: KeptBudget,
    inner: Mutex<SessionState<C>>,
}

#[derive(Debug)]
struct SessionState<C> {
    records: Records<Weak<C>, Kept>,
    small: SmallAnswers,
    /// Connections that have not ended: one, or two while the older one is being ended.
    connections: usize,
    /// The key of the newest link. Hellos may be read in another order than connections were accepted.
    newest: usize,
    /// The link for answers. `None` from the end of a connection until the next one has resumed.
    link: Option<WeakLink>,
    /// A resume that arrived before the previous connection had ended.
    waiting: Option<(WeakLink, Resume)>,
    /// The time since which there is no connection.
    lost: Option<Instant>,
}

/// A link and its key, which stays known when the link is dropped.
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
        let state = SessionState {
            records,
            small: SmallAnswers::default(),
            connections: 0,
            newest: 0,
            link: None,
            waiting: None,
            lost: None,
        };
        Session { id, max_ended: 2 * max_open_calls as usize, budget, inner: Mutex::new(state) }
    }

    /// Adds a connection, and ends the previous one: a resume is answered only then, so that no call is
    /// missed. Returns the time since which there was no connection.
    pub(crate) fn opened(&self, link: &Arc<Link>) -> Option<Instant> {
        let mut state = self.inner.lock();
        state.connections += 1;
        let lost = state.lost.take();
        let ended = if link.key() < state.newest {
            // The client has already given up this connection.
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

    /// Adds a call that is complete. One that runs at once, on the thread that reads its connection, is an
    /// empty reference.
    ///
    /// # Errors
    /// Fails if the client broke the protocol: the call must not run.
    pub(crate) fn arrived(&self, link: &Arc<Link>, id: u64, call: Weak<C>) -> Result<(), Breach> {
        let mut state = self.inner.lock();
        if !state.takes_calls_of(link) {
            return Err(Breach::BeforeResume);
        }
        state.records.arrived(id, call, self.max_ended)
    }

    /// Ends a call. Keeps the answer if there is room, and sends it if there is a connection. Returns false
    /// if the call was answered before, or its client has given it up. `arrived_on` is the link on which the
    /// call arrived.
    pub(crate) fn ended(&self, id: u64, message: Message, arrived_on: &Arc<Link>) -> bool {
        let bytes = message.memory_bytes() + message.metadata().len() as u64;
        let mut state = self.inner.lock();
        if state.records.open(id).is_none() {
            return false;
        }
        let mut room = state.room(&self.budget, bytes);
        let mut expired = Vec::new();
        // A client that does not acknowledge answers loses its own oldest ones.
        while room.is_none()
            && let Some(Kept { message, room: freed }) = state.records.expire_oldest()
        {
            state.small.release(&freed);
            drop(freed);
            expired.push(message);
            room = state.room(&self.budget, bytes);
        }
        let kept = room.map(|room| Kept { message: message.clone(), room });
        state.records.ended(id, kept);
        let is_same = state.link.as_ref().is_some_and(|current| current.key == arrived_on.key());
        let other = if is_same { None } else { state.current() };
        drop(state);
        // Fails if the connection has just ended: the next one gets the answer.
        if let Some(link) = other.as_ref().or_else(|| is_same.then_some(arrived_on)) {
            let _ = link.answer(id, message);
        }
        true
    }

    /// Returns the bytes of small answers that are kept.
    pub(crate) fn small_bytes(&self) -> u64 {
        self.inner.lock().small.bytes
    }

    /// Returns the open call with this id.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<C>> {
        self.inner.lock().records.open(id)?.upgrade()
    }

    /// Returns the current link for answers.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.inner.lock().current()
    }

    /// Drops acknowledged answers.
    pub(crate) fn acknowledged(&self, ids: &[u64]) {
        let mut state = self.inner.lock();
        let SessionState { records, small, .. } = &mut *state;
        // Answers whose drop takes a lock or runs code of a user are dropped without the lock.
        let mut others = Vec::new();
        for id in ids {
            others.extend(records.acknowledged(*id, |kept| {
                small.release(&kept.room);
                matches!(kept.room, Room::Small(_)) && kept.message.pieces().is_empty()
            }));
        }
        drop(state);
        drop(others);
    }

    /// Answers a resume now, or once the previous connection has ended.
    pub(crate) fn resuming(&self, link: &Arc<Link>, resume: Resume) -> Forgotten<C> {
        let mut state = self.inner.lock();
        if link.key() != state.newest {
            return Forgotten::default();
        }
        if state.link.as_ref().is_some_and(|current| current.key != link.key()) {
            state.waiting = Some((WeakLink::new(link), resume));
            return Forgotten::default();
        }
        state.resume(link, &resume)
    }

    /// Removes a connection that is no longer read, and answers the next connection's resume if it waits.
    /// Returns true if no connection is left.
    pub(crate) fn closed(&self, link: &Link, now: Instant) -> (Forgotten<C>, bool) {
        let mut state = self.inner.lock();
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

    /// Forgets all calls. Returns them and the id of the newest call.
    pub(crate) fn end(&self) -> (Forgotten<C>, u64) {
        let mut state = self.inner.lock();
        let records = mem::take(&mut state.records);
        state.small = SmallAnswers::default();
        (state.link, state.waiting) = (None, None);
        drop(state);
        let newest_id = records.newest_id();
        (records.forget(), newest_id)
    }
}

impl<C> SessionState<C> {
    /// Returns room for an answer, if there is any.
    fn room(&mut self, budget: &KeptBudget, bytes: u64) -> Option<Room> {
        self.small.room(budget, bytes).or_else(|| budget.room(bytes))
    }

    /// Returns the link for answers.
    fn current(&self) -> Option<Arc<Link>> {
        self.link.as_ref()?.link.upgrade()
    }

    /// Returns true if calls may arrive on `link`: it is the current link, or the newest while there is
    /// nothing to resume.
    pub(crate) fn takes_calls_of(&mut self, link: &Arc<Link>) -> bool {
        if self.link.as_ref().is_some_and(|current| current.key == link.key()) {
            return true;
        }
        let is_first = self.records.is_empty() && self.waiting.is_none() && link.key() == self.newest;
        if is_first {
            self.link = Some(WeakLink::new(link));
        }
        is_first
    }

    /// Answers a resume, and sends the missed answers. Under the lock, so that a call that ends now finds its
    /// id open on the new link.
    pub(crate) fn resume(&mut self, link: &Arc<Link>, resume: &Resume) -> Forgotten<C> {
        self.link = Some(WeakLink::new(link));
        let resumed = self.records.resume(&resume.calls, |kept| kept.message.clone());
        for kept in &resumed.forgotten.kept {
            self.small.release(&kept.room);
        }
        // Fails if this connection has ended too: the next one resumes again.
        let _ = link.answer_resume(resumed.answers, resumed.kept);
        resumed.forgotten
    }
}

/// Returns the outcome of calls that this server never had.
pub(crate) fn unknown(resume: &Resume) -> Vec<(u64, CallAnswer)> {
    resume.calls.iter().map(|(id, _)| (*id, CallAnswer::UnknownSession)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_answers_share_blocks_and_return_them() {
        let budget = KeptBudget::new(64 << 10, Budget::new(u64::MAX));
        let mut small = SmallAnswers::default();
        assert!(small.room(&budget, MAX_SMALL_BYTES + 1).is_none(), "it pays for itself");
        let rooms: Vec<Room> = std::iter::from_fn(|| small.room(&budget, MAX_SMALL_BYTES)).collect();
        // Blocks take a quarter of all.
        assert_eq!((rooms.len(), budget.blocks.used_bytes(), budget.all.used_bytes()), (8, 16 << 10, 0));
        rooms.iter().for_each(|room| small.release(room));
        assert_eq!((small.bytes, budget.blocks.used_bytes()), (0, 2 * BLOCK_BYTES));
        drop(small);
        assert_eq!(budget.blocks.used_bytes(), 0);
        let own = budget.room(1000);
        assert_eq!((budget.used_bytes(), budget.all.used_bytes()), (1000, 1000));
        drop(own);
        assert!(budget.room(49 << 10).is_none() && budget.all.used_bytes() == 0);
    }
}
