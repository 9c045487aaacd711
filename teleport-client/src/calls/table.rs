//! The one table of a client's calls: every call that was sent and has no outcome, by its id.
//!
//! Flow of an entry: `insert` (sent) -> `take_answered`, `give_up` (withdrawn) or `take_sent` and
//! `put_in_doubt` (the connection is over). A client never reuses an id, not even on later connections.
//! Bound: the client's slots, and withdrawn calls up to the server's limit.

use std::collections::hash_map;
use std::sync::Arc;

use teleport_transport::IdMap;
use teleport_transport::wire::{Id128, Resume};

use crate::calls::in_doubt::InDoubtCall;
use crate::calls::pending::PendingCall;

/// One call.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Sent on the current connection, and not answered.
    Sent(Arc<PendingCall>),
    /// Given up. It holds no slot, but its answer will still arrive. If the server keeps the answer for later
    /// connections (`is_kept`), it gets an acknowledgement then.
    Withdrawn { is_kept: bool },
    /// Waits for a connection that reports its state.
    InDoubt(Box<InDoubtCall>),
}

/// The place of a call that is given up.
#[derive(Debug)]
pub(crate) enum GivenUp {
    /// It was sent under this id on the current connection, which must withdraw it.
    Sent(u64, Arc<PendingCall>),
    InDoubt(InDoubtCall),
}

#[derive(Debug, Default)]
pub(crate) struct CallTable {
    entries: IdMap<Entry>,
    /// Invariant: the number of withdrawn entries.
    withdrawn: usize,
    /// Invariant: the number of entries in doubt.
    in_doubt: usize,
    /// The newest id of the client. Ids on the next connection are larger.
    last_id: u64,
    /// A call that survives its connection was sent, so the server may keep state of this client's session.
    has_session: bool,
    /// The server that the calls in doubt were sent to.
    pub(crate) server: Id128,
}

impl CallTable {
    /// Adds a call that is sent on the current connection.
    pub(crate) fn insert(&mut self, id: u64, call: Arc<PendingCall>) {
        self.last_id = self.last_id.max(id);
        self.has_session |= call.resumes;
        self.put(id, Entry::Sent(call));
    }

    pub(crate) fn put(&mut self, id: u64, entry: Entry) {
        self.count(&entry, 1);
        let before = self.entries.insert(id, entry);
        if let Some(before) = before {
            self.count(&before, -1);
        }
    }

    fn take_if(&mut self, id: u64, takes: fn(&Entry) -> bool) -> Option<Entry> {
        let hash_map::Entry::Occupied(entry) = self.entries.entry(id) else { return None };
        let entry = takes(entry.get()).then(|| entry.remove())?;
        self.count(&entry, -1);
        Some(entry)
    }

    /// Takes a call that was answered.
    pub(crate) fn take_answered(&mut self, id: u64) -> Option<Entry> {
        self.take_if(id, |entry| !matches!(entry, Entry::InDoubt(_)))
    }

    fn count(&mut self, entry: &Entry, change: isize) {
        let count = match entry {
            Entry::Sent(_) => return,
            Entry::Withdrawn { .. } => &mut self.withdrawn,
            Entry::InDoubt(_) => &mut self.in_doubt,
        };
        *count = count.wrapping_add_signed(change);
    }

    /// Returns the call `id`, if it was sent on the current connection and its outcome is wanted.
    pub(crate) fn get(&self, id: u64) -> Option<&Arc<PendingCall>> {
        match self.entries.get(&id) {
            Some(Entry::Sent(call)) => Some(call),
            _ => None,
        }
    }

    /// Gives up a call, which may be waited for.
    pub(crate) fn give_up(&mut self, id: u64) -> Option<GivenUp> {
        match self.entries.get(&id)? {
            Entry::Sent(call) => {
                let call = call.clone();
                self.put(id, Entry::Withdrawn { is_kept: call.resumes });
                Some(GivenUp::Sent(id, call))
            }
            Entry::InDoubt(_) => self.take_in_doubt(id).map(GivenUp::InDoubt),
            Entry::Withdrawn { .. } => None,
        }
    }

    /// Forgets a withdrawn call that will get no answer. Returns false if `id` is not one.
    pub(crate) fn forget(&mut self, id: u64) -> bool {
        self.take_if(id, |entry| matches!(entry, Entry::Withdrawn { .. })).is_some()
    }

    /// Keeps a call until the next connection reports its state.
    pub(crate) fn put_in_doubt(&mut self, id: u64, call: InDoubtCall) {
        self.put(id, Entry::InDoubt(Box::new(call)));
    }

    /// Takes a call in doubt.
    pub(crate) fn take_in_doubt(&mut self, id: u64) -> Option<InDoubtCall> {
        match self.take_if(id, |entry| matches!(entry, Entry::InDoubt(_)))? {
            Entry::InDoubt(call) => Some(*call),
            _ => None,
        }
    }

    /// Returns the calls that were sent on the connection, which is over: no answers arrive any more.
    pub(crate) fn take_sent(&mut self) -> Vec<(u64, Arc<PendingCall>)> {
        self.withdrawn = 0;
        let sent = self.entries.extract_if(|_, entry| !matches!(entry, Entry::InDoubt(_)));
        sent.filter_map(|(id, entry)| if let Entry::Sent(call) = entry { Some((id, call)) } else { None })
            .collect()
    }

    /// Takes all calls that may be waited for.
    pub(crate) fn take_all(&mut self) -> Vec<Arc<PendingCall>> {
        let mut calls: Vec<_> = self.take_sent().into_iter().map(|(_, call)| call).collect();
        self.in_doubt = 0;
        calls.extend(self.entries.drain().filter_map(|(_, entry)| match entry {
            Entry::InDoubt(in_doubt) => Some(in_doubt.call),
            _ => None,
        }));
        calls
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// Returns the sent calls whose outcome is wanted.
    pub(crate) fn sent(&self) -> impl Iterator<Item = (u64, &Arc<PendingCall>)> {
        self.entries().filter_map(|(id, entry)| match entry {
            Entry::Sent(call) => Some((id, call)),
            _ => None,
        })
    }

    /// Returns the calls whose results are deferred and that precede a call that has been waited for since
    /// the last check.
    pub(crate) fn deferred_before_awaited(&self) -> Vec<Arc<PendingCall>> {
        // Visits all of them, since each check counts for the next one.
        let newest = self.sent().filter_map(|(id, call)| call.waits_long().then_some(id)).max();
        let is_older = |id| newest.is_some_and(|newest| id < newest);
        let older = self.sent().filter(|(id, call)| is_older(*id) && call.is_deferred());
        older.map(|(_, call)| call.clone()).collect()
    }

    /// Returns the number of calls that a future waits for.
    pub(crate) fn futures(&self) -> usize {
        let has_future = |entry: &&Entry| match entry {
            Entry::Sent(call) => call.has_future(),
            Entry::InDoubt(in_doubt) => in_doubt.call.has_future(),
            Entry::Withdrawn { .. } => false,
        };
        self.entries.values().filter(has_future).count()
    }

    /// Returns the number of calls that hold a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.entries.len() - self.withdrawn
    }

    /// Returns the number of calls that are open at the server.
    pub(crate) fn open_at_server(&self) -> usize {
        self.entries.len() - self.in_doubt
    }

    pub(crate) fn has_in_doubt(&self) -> bool {
        self.in_doubt > 0
    }

    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Returns the first message of the next connection, if the server may keep state of this client.
    pub(crate) fn resume(&self) -> Option<Resume> {
        let in_doubt = |(id, entry): (u64, &Entry)| match entry {
            Entry::InDoubt(in_doubt) => Some((id, in_doubt.state)),
            _ => None,
        };
        let mut calls: Vec<_> = self.entries().filter_map(in_doubt).collect();
        calls.sort_unstable_by_key(|(id, _)| *id);
        self.has_session.then_some(Resume { server: self.server, calls })
    }
}
