//! The hold of a connection on a row while it receives the row's call.

use std::sync::Arc;

use super::{Row, RowMemory};

/// The owner of rows, which is notified of rows that will never be complete.
pub trait Rows: Send + Sync {
    /// Called when the call of row `key` will not arrive: it was withdrawn or refused, or its connection
    /// ended. The link's receiving half is locked: this must not use the link and must not block.
    /// [`Row::vacate`] returns the row's memory.
    fn abandoned(&self, key: u64);
}

/// The row of a call. Dropping it without [completing](Ticket::complete) it abandons the row.
///
/// A single pointer, so that calls without a row stay small.
#[derive(Debug)]
pub struct Ticket {
    /// `None` once the call is complete.
    row: Option<Arc<Row>>,
}

impl Ticket {
    /// Creates a row without payload, as [`Row::new`] does, that `rows` knows as `key`.
    ///
    /// The row refers to `rows`, which must not keep it for ever.
    pub fn new(memory: Option<RowMemory>, key: u64, rows: Arc<dyn Rows>) -> Ticket {
        Ticket { row: Some(Arc::new(Row::owned(memory, Some((rows, key))))) }
    }

    /// Returns its row.
    pub fn row(&self) -> &Arc<Row> {
        self.row.as_ref().expect("a ticket that is complete is gone")
    }

    /// Returns the key of its row.
    pub fn key(&self) -> u64 {
        self.row().owner().map_or(0, |(_, key)| *key)
    }

    /// Marks the call as complete. Returns the key.
    pub fn complete(mut self) -> u64 {
        let key = self.key();
        self.row = None;
        key
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((rows, key)) = self.row.as_deref().and_then(Row::owner) {
            rows.abandoned(*key);
        }
    }
}
