//! Memory for the arguments of many calls side by side: connections receive rows while a batcher arranges
//! them.
//!
//! Flow: a [`Slab`] is memory for calls of one signature -> [`Slab::claim`] returns exclusive access to one
//! row, a [`RowMemory`] -> a [`Row`] holds it for a call, and [`Gate::place`](crate::protocol::Gate::place)
//! passes the row to the connection as a [`Ticket`] -> payload is read into the row -> the call arrives with
//! its ticket -> [`Slab::into_tree`] returns all rows as one tree.
//!
//! A connection holds a row's lock for one non-blocking read and looks up its memory each time. So the
//! batcher can [move](Row::move_to) a half-received row to another slab, or [take its memory
//! away](Row::vacate), without telling the connection. This module never decides which call gets which row.
//! It copies only rows that move.

mod row;
mod slab;
mod sync;
mod ticket;

pub use row::Row;
pub(crate) use row::RowGuard;
pub use slab::{Pages, RowMemory, Slab};
pub use ticket::{Rows, Ticket};

#[cfg(test)]
mod tests;
