//! What a connection holds of a row while it receives its call.

use std::fmt;
use std::sync::Arc;

use super::Row;

/// Who gave rows away, and wants to know of those that will not be whole.
pub trait Rows: Send + Sync {
    /// The call of the row `key` will not come: it was withdrawn, refused, or its connection ended. Called with the receiving
    /// half of the link locked: it must not use the link, nor wait. [`Row::vacate`] gives the row's memory back.
    fn abandoned(&self, key: u64);
}

/// A call's row. Who drops it without having [completed](Ticket::complete) it abandons the row.
///
/// One pointer, so that calls without a row are no larger for it.
#[derive(Debug)]
pub struct Ticket(Box<Held>);

struct Held {
    row: Arc<Row>,
    key: u64,
    rows: Arc<dyn Rows>,
    is_complete: bool,
}

impl Ticket {
    /// A ticket for `row`, which `rows` knows as `key`.
    pub fn new(row: Arc<Row>, key: u64, rows: Arc<dyn Rows>) -> Ticket {
        Ticket(Box::new(Held { row, key, rows, is_complete: false }))
    }

    /// What its row is called.
    pub fn key(&self) -> u64 {
        self.0.key
    }

    /// Its row.
    pub fn row(&self) -> &Arc<Row> {
        &self.0.row
    }

    /// The call has come whole; gives the key.
    pub fn complete(mut self) -> u64 {
        self.0.is_complete = true;
        self.0.key
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_complete {
            self.rows.abandoned(self.key);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("key", &self.key).field("row", &self.row).finish_non_exhaustive()
    }
}
