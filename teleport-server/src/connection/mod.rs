//! One connected client: its calls from arrival to a queue, and what it may make the server keep.

pub(crate) mod credit;
pub(crate) mod dispatch;
mod gate;
pub(crate) mod list;
pub(crate) mod slow_reader;
