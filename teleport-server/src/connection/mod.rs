//! Connections: from the accepted socket to calls for the dispatcher.

pub(crate) mod accept;
pub(crate) mod credit;
pub(crate) mod dispatch;
mod gate;
