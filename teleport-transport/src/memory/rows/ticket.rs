//! The hold of a connection on a row while it receives the row's call.

use std::fmt;
use std::sync::Arc;

use super::Row;

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
pub struct Ticket(Box<TicketInner>);

struct TicketInner {
    row: Arc<Row>,
    key: u64,
    rows: Arc<dyn Rows>,
    is_complete: bool,
}

impl Ticket {
    /// Creates a ticket for `row`, which `rows` knows as `key`.
    pub fn new(row: Arc<Row>, key: u64, rows: Arc<dyn Rows>) -> Ticket {
        Ticket(Box::new(TicketInner { row, key, rows, is_complete: false }))
    }

    /// Returns the key of its row.
    pub fn key(&self) -> u64 {
        self.0.key
    }

    /// Returns its row.
    pub fn row(&self) -> &Arc<Row> {
        &self.0.row
    }

    /// Marks the call as complete. Returns the key.
    pub fn complete(mut self) -> u64 {
        self.0.is_complete = true;
        self.0.key
    }
}

impl Drop for TicketInner {
    fn drop(&mut self) {
        if !self.is_complete {
            self.rows.abandoned(self.key);
        }
    }
}

impl fmt::Debug for TicketInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("key", &self.key).field("row", &self.row).finish_non_exhaustive()
    }
}
