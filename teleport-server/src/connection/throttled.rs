//! Inline calls that may not start yet, since too many results of their client wait to be fetched.
//!
//! Other throttled calls stay in their queue or batcher; inline calls have none.
//!
//! Flow: `add` -> `take` (the link has sent enough, or is over), after which the calls run in the order in
//! which they were made. `expire` removes calls that are out of time, and `close` removes all. A withdrawn
//! call gives its memory back at once, and its entry stays until then. Never runs or answers a call. Bound:
//! the open calls of all connections.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use crate::call::OpenCall;

#[derive(Debug, Default)]
pub(crate) struct Throttled {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By the key of the link whose results are to be fetched.
    lines: HashMap<usize, Line>,
    is_closed: bool,
}

/// Calls by the key of the link on which they came and by id, which is the order in which they were made.
type Line = BTreeMap<(usize, u64), Arc<OpenCall>>;

impl Throttled {
    /// Adds a call if it is `throttled_by` a link, or if earlier ones wait for its link. Returns false if the
    /// call may start.
    ///
    /// # Errors
    /// The server is closing.
    pub(crate) fn add(
        &self,
        call: &Arc<OpenCall>,
        throttled_by: impl FnOnce() -> Option<usize>,
    ) -> Result<bool, Closing> {
        let mut table = self.table.lock();
        // Earlier calls that wait for the same link go first.
        let current = call.reply.with_link(|link| link.key());
        let earlier = current.filter(|link| table.lines.contains_key(link));
        let Some(link) = earlier.or_else(throttled_by) else { return Ok(false) };
        if table.is_closed {
            return Err(Closing);
        }
        table.lines.entry(link).or_default().insert((call.reply.link.key(), call.id), call.clone());
        call.reply.caller.is_throttled.store(true, Ordering::SeqCst);
        Ok(true)
    }

    /// Takes the calls that wait for a link, in their order.
    pub(crate) fn take(&self, link: usize) -> impl Iterator<Item = Arc<OpenCall>> + use<> {
        let mut table = self.table.lock();
        let line = table.lines.remove(&link).unwrap_or_default();
        line.values().for_each(|call| call.reply.caller.is_throttled.store(false, Ordering::SeqCst));
        line.into_values()
    }

    /// Returns the call with this id that came on a link and waits for the same link.
    pub(crate) fn find(&self, link: usize, id: u64) -> Option<Arc<OpenCall>> {
        self.table.lock().lines.get(&link)?.get(&(link, id)).cloned()
    }

    /// Removes the calls that are out of time at `now`. Returns them and the earliest deadline of the others.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<Arc<OpenCall>>, Option<Instant>) {
        let mut table = self.table.lock();
        let calls = table.lines.values().flat_map(Line::values);
        let late: Vec<Arc<OpenCall>> = calls.filter(|call| call.is_late(now)).cloned().collect();
        table.lines.values_mut().for_each(|line| line.retain(|_, call| !call.is_late(now)));
        (late, table.lines.values().flat_map(Line::values).filter_map(|call| call.deadline).min())
    }

    /// Removes all calls, and takes no more.
    pub(crate) fn close(&self) -> Vec<Arc<OpenCall>> {
        let mut table = self.table.lock();
        table.is_closed = true;
        mem::take(&mut table.lines).into_values().flat_map(Line::into_values).collect()
    }

    pub(crate) fn len(&self) -> usize {
        let table = self.table.lock();
        table.lines.values().flat_map(Line::values).filter(|call| call.is_unclaimed()).count()
    }
}

/// The server is closing: no call starts any more.
#[derive(Debug)]
pub(crate) struct Closing;
