//! The state of one connection, without a socket and without a clock: callers pass bytes and `now`, and get
//! bytes and events.
//!
//! It has two halves, so that a sending thread and a receiving thread do not wait for each other. [`Inbound`]
//! checks and places what arrives. [`Outbound`] holds what will be sent and decides the order; it also owns
//! the table of calls and the ledger of bytes. The receiving half changes the sending half (a grant, a ping
//! to answer) through [`SharedOutbound`]. `link` puts both on a socket. The tests: `sim` runs two connections
//! against each other in virtual time with faults, `fairness` without faults, and `rules` breaks each rule of
//! the format once.

mod calls;
mod charged_results;
mod error;
mod event;
pub(crate) mod id_table;
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
pub use self::event::{Answer, Call, Event, Gate, Ids, Reply};
use self::ledger::ReturnedCredit;
pub use self::ledger::{Lease, Ledger, Quota, UnsentBytes};
pub use self::min_rate::SlowCalls;
pub use self::receive::{Inbound, Received};
pub use self::send::write_buffer::{MAX_SEGMENTS_PER_WRITE, WriteBuffer};
pub use self::send::{NewCall, Outbound, SharedOutbound, Withdrawn};
use crate::config::Config;
use crate::memory::budget::Budget;
pub use crate::role::Role;

/// Creates both halves of a new connection, with preface and hello queued.
///
/// `budget` pays for large results of a server, for unfinished frames, and for calls of many names and
/// shapes. `wake` is called by the thread that drops a [`Lease`], when enough credit is returned for a write
/// of its own.
pub fn halves(
    role: Role,
    config: &Arc<Config>,
    budget: Option<Budget>,
    now: Instant,
    wake: impl Fn() + Send + Sync + 'static,
) -> (Inbound, Outbound) {
    let credit = Arc::new(ReturnedCredit::new(config.eager_credit_bytes, Box::new(wake)));
    (
        Inbound::new(role, config.clone(), budget.clone(), credit.clone(), now),
        Outbound::new(role, config, budget, credit),
    )
}
