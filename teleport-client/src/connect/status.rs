//! The status of a client's connection: down, resuming, open or over.
//!
//! Pure: `L` is the type of an open connection, and callers pass the time. The thread that connects reads and
//! writes this under the lock of the client's state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Id128, Key, Limits};

use crate::connect::backoff::Backoff;
use crate::error::call::CallError;
use crate::error::connect::AttemptError;

/// A connection, and the limits of its server.
#[derive(Clone, Debug)]
pub(crate) struct OpenConnection<L> {
    pub(crate) link: L,
    /// The link's key, which no other connection of this process has.
    pub(crate) key: usize,
    pub(crate) limits: Limits,
    pub(crate) max_open_calls: usize,
    /// Distinguishes this server from another one at the same address.
    pub(crate) server: Id128,
}

#[derive(Debug)]
enum Phase<L> {
    Down {
        since: Instant,
    },
    /// The server was asked for calls of earlier connections. New calls wait for its answer.
    Resuming {
        connection: OpenConnection<L>,
        down_since: Instant,
    },
    Open {
        connection: OpenConnection<L>,
        since: Instant,
        has_answered: bool,
    },
    /// The client has ended.
    Over,
}

#[derive(Debug)]
pub(crate) struct Status<L> {
    address: Arc<str>,
    /// The time for which calls wait for a connection.
    connect_timeout: Option<Duration>,
    phase: Phase<L>,
    /// True while a thread connects.
    pub(crate) is_dialing: bool,
    /// Failed attempts since the last connection.
    pub(crate) attempts: u64,
    /// The reason for the failure of the last attempt.
    pub(crate) last_error: Option<Arc<AttemptError>>,
    backoff: Backoff,
}

impl<L> Status<L> {
    pub(crate) fn new(address: Arc<str>, connect_timeout: Option<Duration>, now: Instant) -> Status<L> {
        Status {
            address,
            connect_timeout,
            phase: Phase::Down { since: now },
            is_dialing: false,
            attempts: 0,
            last_error: None,
            backoff: Backoff::default(),
        }
    }

    /// Returns the connection, if new calls may be sent on it.
    pub(crate) fn open(&self) -> Option<&OpenConnection<L>> {
        match &self.phase {
            Phase::Open { connection, .. } => Some(connection),
            _ => None,
        }
    }

    /// Returns the connection, if it is open or resuming.
    pub(crate) fn current(&self) -> Option<&OpenConnection<L>> {
        match &self.phase {
            Phase::Open { connection, .. } | Phase::Resuming { connection, .. } => Some(connection),
            Phase::Down { .. } | Phase::Over => None,
        }
    }

    pub(crate) fn is_current(&self, key: usize) -> bool {
        self.current().is_some_and(|connection| connection.key == key)
    }

    pub(crate) fn is_resuming(&self) -> bool {
        matches!(self.phase, Phase::Resuming { .. })
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn down_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down { since } | Phase::Resuming { down_since: since, .. } => Some(since),
            Phase::Open { .. } | Phase::Over => None,
        }
    }

    /// Returns the time at which a call gives up that has waited for a connection since `since`.
    pub(crate) fn gives_up_at(&self, since: Instant) -> Option<Instant> {
        self.down_since().map_or(since, |down_since| since.max(down_since)).checked_add(self.connect_timeout?)
    }

    /// Returns the error of a call that has waited for a connection for this time.
    pub(crate) fn not_connected(&self, method: &Key, waited: Duration) -> CallError {
        let (address, last) = (self.address.clone(), self.last_error.clone());
        CallError::Connect { method: method.clone(), address, waited, last }
    }

    /// Returns true if the caller must start the thread that connects.
    pub(crate) fn start_dialing(&mut self) -> bool {
        let starts = matches!(self.phase, Phase::Down { .. }) && !self.is_dialing;
        self.is_dialing |= starts;
        starts
    }

    pub(crate) fn attempt_failed(&mut self, error: AttemptError) {
        self.backoff.failed();
        self.attempts += 1;
        self.last_error = Some(Arc::new(error));
    }

    /// Returns the wait before the next attempt.
    pub(crate) fn pause(&self, random: u32) -> Duration {
        self.backoff.wait(random)
    }

    /// Sets the status after the server was asked for calls of earlier connections.
    pub(crate) fn set_resuming(&mut self, connection: OpenConnection<L>, now: Instant) {
        let down_since = self.down_since().unwrap_or(now);
        self.phase = Phase::Resuming { connection, down_since };
    }

    /// Allows new calls.
    pub(crate) fn set_open(&mut self, connection: OpenConnection<L>, now: Instant) {
        self.phase = Phase::Open { connection, since: now, has_answered: false };
        self.attempts = 0;
    }

    /// Notes that the server has answered a call.
    pub(crate) fn answered(&mut self) {
        if let Phase::Open { has_answered, .. } = &mut self.phase {
            *has_answered = true;
        }
    }

    /// Ends the connection. Returns the server's id if the connection was open.
    pub(crate) fn lost(&mut self, now: Instant) -> Option<Id128> {
        match &self.phase {
            Phase::Open { connection, since, has_answered } => {
                let server = connection.server;
                self.backoff.ended(now.saturating_duration_since(*since), *has_answered);
                self.phase = Phase::Down { since: now };
                Some(server)
            }
            Phase::Resuming { down_since, .. } => {
                self.phase = Phase::Down { since: *down_since };
                None
            }
            Phase::Down { .. } | Phase::Over => None,
        }
    }

    /// Ends the client. Returns the connection, if there is one.
    pub(crate) fn end(&mut self) -> Option<OpenConnection<L>> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Open { connection, .. } | Phase::Resuming { connection, .. } => Some(connection),
            Phase::Down { .. } | Phase::Over => None,
        }
    }
}
