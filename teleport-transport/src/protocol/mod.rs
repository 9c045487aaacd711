//! The state of one connection, without a socket and without a clock: bytes and `now` come in, bytes and events go out.
//!
//! Two halves, so that a thread that sends and a thread that receives do not wait for each other: [`Inbound`] judges and
//! places what arrives, [`Outbound`] holds what will be sent and says what goes next. What one learns for the other (a
//! grant, a ping to answer) goes through [`SharedOutbound`]. `link` puts both on a socket; `simulation` drives two of
//! them against each other in virtual time while everything goes wrong, and `fairness` where nothing does.

mod calls;
mod error;
mod event;
pub(crate) mod id_map;
mod keepalive;
mod ledger;
mod min_rate;
mod receive;
mod resume;
mod send;

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod sim;

use std::sync::Arc;
use std::time::Instant;

pub use self::error::{Closed, ProtocolError, SendError};
pub use self::event::{Event, Gate, IncomingCall};
pub use self::ledger::Hold;
pub use self::min_rate::SlowCalls;
pub use self::receive::{Inbound, Received};
pub use self::send::unsent::{Quota, UnsentBytes};
pub use self::send::write_buffer::{MAX_SEGMENTS_PER_WRITE, WriteBuffer};
pub use self::send::{Outbound, SharedOutbound, Withdrawn, WriteProgress};
use crate::config::Config;
pub use crate::role::Role;

/// Both halves of a new connection. Preface and hello wait to be staged.
pub fn halves(role: Role, config: &Arc<Config>, now: Instant) -> (Inbound, Outbound) {
    (Inbound::new(role, config.clone(), now), Outbound::new(role, config))
}
