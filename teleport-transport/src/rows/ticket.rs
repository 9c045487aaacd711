//! What a connection holds of a row while it receives its call.

use std::fmt;
use std::sync::Arc;

use super::Row;

/// Who gave rows away, and wants to know of those that will not be whole.
pub trait Rows: Send + Sync {
    /// The call of the row `key` will not come: it was withdrawn, refused, or its connection ended. Called with the receiving
    /// half of the link locked: it must not use the link, nor wait.
    fn abandoned(&self, key: u64);
}

/// A call's row. Who drops it without having [completed](Ticket::complete) it abandons the row.
pub struct Ticket {
    row: Arc<Row>,
    key: u64,
    /// None once it is completed.
    rows: Option<Arc<dyn Rows>>,
}

impl Ticket {
    /// A ticket for `row`, which `rows` knows as `key`.
    pub fn new(row: Arc<Row>, key: u64, rows: Arc<dyn Rows>) -> Ticket {
        Ticket { row, key, rows: Some(rows) }
    }

    /// What its row is called.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Its row.
    pub fn row(&self) -> &Arc<Row> {
        &self.row
    }

    /// The call has come whole; gives the key.
    pub fn complete(mut self) -> u64 {
        self.rows = None;
        self.key
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(rows) = self.rows.take() {
            rows.abandoned(self.key);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("key", &self.key).field("row", &self.row).finish_non_exhaustive()
    }
}
