//! Memory of many calls side by side, each received by its connection while others arrange who gets which place.
//!
//! Flow: a [`Slab`] is memory for some calls of one signature -> [`Slab::claim`] gives the right to one row of it, a
//! [`RowMemory`] -> a [`Row`] holds that for a call, and a [`Ticket`] tells the connection of it, by
//! [`Gate::place`](crate::protocol::Gate::place) -> payload is read into the row, wherever it lies by then -> the call
//! arrives with its ticket -> [`Slab::into_tree`] gives all rows as one tree.
//!
//! The connection holds a row's lock for one read that does not block, and looks its memory up each time. So whoever
//! arranges the rows can [move](Row::move_to) one that is half received to another slab, or [take its
//! memory away](Row::vacate), without telling the connection. Never decides which call gets which row, and copies only what
//! is moved.

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
