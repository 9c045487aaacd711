//! The end of a connection, and the calls that continue on the next one.
//!
//! Flow: `lost` (calls are in doubt) -> `begin` (the next connection is there, and its server is asked) ->
//! `resumed` (the server has answered) -> `opened` (new calls may be sent).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallAnswer, CallState, Limits, Ran, Resume};

use crate::calls::in_doubt::InDoubtCall;
use crate::calls::pending::PendingCall;
use crate::calls::state::ClientState;
use crate::calls::table::Entry;
use crate::connect::status::OpenConnection;

/// The next step with a new connection.
#[derive(Debug)]
pub(crate) enum Opening {
    /// The client was closed.
    TooLate,
    /// Calls may be sent.
    Open,
    /// The server must first be asked for calls of earlier connections.
    Resume(Resume),
}

/// The next step with a call of an earlier connection.
#[derive(Debug)]
pub(crate) enum Resumed {
    /// The server has it with its arguments.
    Arrived(Arc<PendingCall>),
    /// It must be sent again under its id.
    Again(Arc<PendingCall>),
    /// It must be sent as a new call. It has a slot.
    Anew(InDoubtCall),
    /// The server does not know it, and it may not run twice.
    Lost(InDoubtCall),
    /// The server dropped its result, and needs an acknowledgement. `None` if it was withdrawn meanwhile.
    Expired(Option<Arc<PendingCall>>),
    /// It was withdrawn since the server was asked.
    Unwanted,
}

impl<L: Clone> ClientState<L> {
    /// Ends a connection. Returns the calls that fail with it and whether they ran, or `None` if it was not
    /// the current connection. `states` holds what the server may have received of each call.
    pub(crate) fn lost(
        &mut self,
        connection: usize,
        reason: &Arc<Closed>,
        states: &HashMap<u64, CallState>,
        now: Instant,
    ) -> Option<Vec<(Arc<PendingCall>, Ran)>> {
        if !self.connection.is_current(connection) {
            return None;
        }
        if let Some(server) = self.connection.lost(now) {
            self.table.server = server;
        }
        let mut failed = Vec::new();
        for (id, call) in self.table.take_sent() {
            let state = states.get(&id).copied().unwrap_or(CallState::Sent);
            let in_doubt = InDoubtCall { call, state, since: now, reason: reason.clone() };
            if in_doubt.call.resumes {
                self.table.put_in_doubt(id, in_doubt);
            } else {
                let ran = in_doubt.ran();
                failed.push((in_doubt.call, ran));
            }
        }
        Some(failed)
    }

    /// Handles the refusal of a call by a closing server before it started. A call that survives then waits
    /// for the next connection, as if it had not been sent. Returns true in that case.
    pub(crate) fn put_off(&mut self, connection: usize, id: u64, reason: Closed, now: Instant) -> bool {
        let call = self.pending(connection, id).filter(|call| call.arguments().is_some()).cloned();
        let Some(call) = call else { return false };
        let (state, reason) = (CallState::Unsent, Arc::new(reason));
        self.table.put_in_doubt(id, InDoubtCall { call, state, since: now, reason });
        self.connection.answered();
        true
    }

    /// Begins with a new connection.
    pub(crate) fn begin(&mut self, connection: OpenConnection<L>, now: Instant) -> Opening {
        if !self.wants_connection() {
            return Opening::TooLate;
        }
        if let Some(resume) = self.table.resume() {
            self.connection.set_resuming(connection, now);
            return Opening::Resume(resume);
        }
        self.connection.set_open(connection, now);
        Opening::Open
    }

    /// Handles the server's answer for the calls of earlier connections. Returns the limits of the server, or
    /// `None` if the connection is over.
    pub(crate) fn resumed(
        &mut self,
        connection: usize,
        answers: &[(u64, CallAnswer)],
    ) -> Option<(Limits, Vec<(u64, Resumed)>)> {
        let connection = self.resuming(connection)?;
        let resume = |(id, answer): &(u64, CallAnswer)| Some((*id, self.resume_one(*id, *answer)?));
        let resumed = answers.iter().filter_map(resume).collect();
        self.table.server = connection.server;
        Some((connection.limits, resumed))
    }

    fn resume_one(&mut self, id: u64, answer: CallAnswer) -> Option<Resumed> {
        let Some(in_doubt) = self.table.take_in_doubt(id) else {
            return match answer {
                CallAnswer::Done | CallAnswer::Running => {
                    self.table.put(id, Entry::Withdrawn { is_kept: true });
                    Some(Resumed::Unwanted)
                }
                CallAnswer::Expired => Some(Resumed::Expired(None)),
                CallAnswer::Missing | CallAnswer::UnknownSession => None,
            };
        };
        let call = in_doubt.call.clone();
        Some(match answer {
            CallAnswer::Done | CallAnswer::Running => {
                self.table.put(id, Entry::Sent(call.clone()));
                Resumed::Arrived(call)
            }
            CallAnswer::Missing => {
                self.table.put(id, Entry::Sent(call.clone()));
                Resumed::Again(call)
            }
            CallAnswer::Expired => Resumed::Expired(Some(call)),
            CallAnswer::UnknownSession if call.is_idempotent || in_doubt.ran() == Ran::No => {
                self.slots.given += 1;
                Resumed::Anew(in_doubt)
            }
            CallAnswer::UnknownSession => Resumed::Lost(in_doubt),
        })
    }

    /// Keeps a call that should have been sent as a new one for the next connection, because this connection
    /// has ended too. Returns the call if the client has ended.
    pub(crate) fn hold_again(&mut self, id: u64, in_doubt: InDoubtCall) -> Option<InDoubtCall> {
        self.slots.given -= 1;
        if self.connection.is_over() {
            return Some(in_doubt);
        }
        self.table.put_in_doubt(id, in_doubt);
        None
    }

    /// Allows new calls, because calls of earlier connections have continued. Does nothing if this connection
    /// has ended meanwhile.
    pub(crate) fn opened(&mut self, connection: usize, now: Instant) {
        if let Some(connection) = self.resuming(connection) {
            self.connection.set_open(connection, now);
        }
    }

    /// Returns the connection, if its server was asked for earlier calls.
    fn resuming(&self, connection: usize) -> Option<OpenConnection<L>> {
        let is_resuming = self.connection.is_resuming() && self.connection.is_current(connection);
        self.connection.current().filter(|_| is_resuming).cloned()
    }
}
