//! All sessions of a server.
//!
//! Flow: `opened` for each connection with a session -> `closed` -> `expire` when the session has been
//! without a connection for too long. A session whose client says goodbye is forgotten at once. The newest
//! call id of an expired session is remembered, so that none of its calls counts as never arrived. Reads no
//! clock. Bounds: the newest `max_lost` sessions without a connection, and `MAX_REMEMBERED` expired ones.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::wire::Id128;
use teleport_transport::{Budget, Link};

use crate::session::records::Records;
use crate::session::session::{Forgotten, KeptBudget, Session};

/// All sessions, by their ids.
#[derive(Debug)]
pub(crate) struct Sessions<C> {
    /// The time for which a session without a connection is kept.
    timeout: Duration,
    max_lost: usize,
    max_open_calls: u32,
    budget: KeptBudget,
    table: Mutex<Table<C>>,
}

/// Expired sessions whose newest ids are remembered, in some 64 bytes each. When there are more, a new
/// session may be an expired one, and calls that it resumes do not count as never arrived.
const MAX_REMEMBERED: usize = 65_536;

#[derive(Debug)]
struct Table<C> {
    sessions: HashMap<Id128, Arc<Session<C>>>,
    /// The newest id of each expired session.
    remembered: HashMap<Id128, u64>,
    /// Expired sessions, the oldest first.
    forgotten: VecDeque<Id128>,
    /// True if the newest id of any session was forgotten.
    is_unsure: bool,
    /// Sessions without a connection, by when they lost it.
    lost: BTreeSet<(Instant, [u8; 16])>,
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Table {
            sessions: HashMap::new(),
            remembered: HashMap::new(),
            forgotten: VecDeque::new(),
            is_unsure: false,
            lost: BTreeSet::new(),
        }
    }
}

impl<C> Sessions<C> {
    /// Creates an empty table. A session is kept for `timeout` without a connection, at most `max_lost` of
    /// them.
    pub(crate) fn new(
        timeout: Duration,
        max_lost: usize,
        max_open_calls: u32,
        max_kept_bytes: u64,
        memory: Budget,
    ) -> Sessions<C> {
        let budget = KeptBudget::new(max_kept_bytes, memory);
        Sessions { timeout, max_lost: max_lost.max(1), max_open_calls, budget, table: Mutex::default() }
    }

    /// Returns the session of a new connection.
    pub(crate) fn opened(&self, id: Id128, link: &Arc<Link>) -> Arc<Session<C>> {
        let mut table = self.table.lock();
        let records = match table.remembered.get(&id) {
            Some(newest_id) => Records::after(*newest_id),
            None if table.is_unsure => Records::unsure(),
            None => Records::default(),
        };
        let new = || Arc::new(Session::new(id, self.max_open_calls, self.budget.clone(), records));
        let session = table.sessions.entry(id).or_insert_with(new).clone();
        // Under the lock, so that the session does not expire meanwhile.
        if let Some(lost) = session.opened(link) {
            table.lost.remove(&(lost, id.0));
        }
        session
    }

    /// Ends a connection, with a goodbye if its client will not return.
    #[must_use = "open calls are to be withdrawn"]
    pub(crate) fn closed(
        &self,
        session: &Session<C>,
        link: &Link,
        is_goodbye: bool,
        now: Instant,
    ) -> Vec<Forgotten<C>> {
        // Under the lock, so that a session with a new connection does not count as lost.
        let mut table = self.table.lock();
        let (forgotten, is_lost) = session.closed(link, now);
        let mut all = vec![forgotten];
        if !is_lost {
            return all;
        }
        if is_goodbye {
            table.sessions.remove(&session.id);
            all.push(session.end().0);
        } else if table.sessions.contains_key(&session.id) {
            table.lost.insert((now, session.id.0));
        }
        while table.lost.len() > self.max_lost {
            all.extend(table.expire_first());
        }
        all
    }

    /// Forgets the sessions that have been without a connection for too long.
    #[must_use = "open calls are to be withdrawn"]
    pub(crate) fn expire(&self, now: Instant) -> Vec<Forgotten<C>> {
        let mut table = self.table.lock();
        let mut all = Vec::new();
        while table.lost.first().is_some_and(|(lost, _)| now.saturating_duration_since(*lost) >= self.timeout)
        {
            all.extend(table.expire_first());
        }
        all
    }

    /// Returns the time at which `expire` must be called.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.table.lock().lost.first().and_then(|(lost, _)| lost.checked_add(self.timeout))
    }

    /// Forgets all sessions, because the server has ended.
    #[must_use = "open calls are to be withdrawn"]
    pub(crate) fn end(&self) -> Vec<Forgotten<C>> {
        let Table { sessions, .. } = std::mem::take(&mut *self.table.lock());
        sessions.into_values().map(|session| session.end().0).collect()
    }

    /// Returns the bytes of kept answers.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let small: u64 = self.table.lock().sessions.values().map(|session| session.small_bytes()).sum();
        self.budget.used_bytes() + small
    }
}

impl<C> Table<C> {
    /// Forgets the session that has been without a connection for longest.
    fn expire_first(&mut self) -> Option<Forgotten<C>> {
        let (_, id) = self.lost.pop_first()?;
        let session = self.sessions.remove(&Id128(id))?;
        let (forgotten, newest_id) = session.end();
        if newest_id > 0 {
            self.remember(Id128(id), newest_id);
        }
        Some(forgotten)
    }

    fn remember(&mut self, id: Id128, newest_id: u64) {
        if self.remembered.insert(id, newest_id).is_none() {
            self.forgotten.push_back(id);
        }
        if self.forgotten.len() > MAX_REMEMBERED
            && let Some(first) = self.forgotten.pop_front()
        {
            self.remembered.remove(&first);
            self.is_unsure = true;
        }
    }
}
