//! Connections: from the accepted socket to the calls that go to the dispatcher.

pub(crate) mod accept;
pub(crate) mod credit;
pub(crate) mod dispatch;
mod gate;
