//! Decides which calls run together and when. Pure: without memory, threads or a clock.
//!
//! `scheduler` holds the calls of one method. A call has a seat in a slab (`seats`); the slabs of one
//! signature are a group (`group`), and `groups` holds all of them. `close` decides when a batch of a group
//! is due, by the `policy` of the method, and `select` which calls it has. `estimate` predicts arrivals and
//! run times. `starvation` finds calls that have waited for too long.

pub(crate) mod close;
pub(crate) mod estimate;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod ids;
pub(crate) mod policy;
pub(crate) mod scheduler;
pub(crate) mod seats;
pub(crate) mod select;
pub(crate) mod starvation;
#[cfg(test)]
mod tests;
