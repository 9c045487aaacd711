//! The end of a connection, and the calls that continue on the next one.
//!
//! Flow: `lost` (calls are in doubt) -> `begin` (the next connection is there, and its server is asked) ->
//! `resumed` (the server has answered) -> `opened` (new calls may be sent).

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::Wakers;
use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallAnswer, CallState, ErrorKind, Limits, Ran, RemoteError, Resume};

use crate::calls::in_doubt::InDoubt;
use crate::calls::pending::{PendingCall, Released, Stage};
use crate::calls::state::ClientState;
use crate::connect::status::OpenConnection;
use crate::error::call::CallError;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// It must be sent again under its id.
    Again,
    /// It must be sent as a new call, with the slot that it has.
    Anew,
    /// The server dropped its result, and needs an acknowledgement.
    Expired,
    /// It was given up since the server was asked, and must be withdrawn.
    Unwanted,
}

impl<L: Clone> ClientState<L> {
    /// Ends a connection. The calls that do not survive it fail. Returns their number, or `None` if it was
    /// not the current connection. `states` holds what the server may have received of each call, by id.
    pub(crate) fn lost(
        &mut self,
        connection: usize,
        reason: &Arc<Closed>,
        states: &[(u64, CallState)],
        now: Instant,
        wakers: &mut Wakers,
        released: &mut Released,
    ) -> Option<usize> {
        if !self.connection.is_current(connection) {
            return None;
        }
        if let Some(server) = self.connection.lost(now) {
            self.table.server = server;
        }
        self.table.forget_withdrawn(released);
        let is_sent = |call: &PendingCall| matches!(call.stage, Stage::Sent);
        let sent = self.table.in_flight_calls().filter(|(_, call)| is_sent(call));
        let sent: Vec<_> =
            sent.map(|(id, call)| (id, (!call.resumes).then(|| call.method.clone()))).collect();
        let mut failed = 0;
        for (id, fails) in sent {
            let state =
                states.binary_search_by_key(&id, |(id, _)| *id).map_or(CallState::Sent, |at| states[at].1);
            let in_doubt = InDoubt { state, since: now, reason: reason.clone() };
            match fails {
                Some(method) => {
                    failed += 1;
                    self.table.end(id, Stage::Over, Err(in_doubt.error(&method)), wakers, released);
                }
                None => self.table.put_in_doubt(id, in_doubt),
            }
        }
        Some(failed)
    }

    /// Handles the refusal of a call by a closing server before it started. A call that survives then waits
    /// for the next connection, as if it had not been sent. Returns true in that case.
    pub(crate) fn put_off(&mut self, connection: usize, id: u64, reason: Closed, now: Instant) -> bool {
        let can_wait = self.pending(connection, id).is_some_and(|call| call.arguments.is_some());
        if can_wait {
            let (state, reason) = (CallState::Unsent, Arc::new(reason));
            self.table.put_in_doubt(id, InDoubt { state, since: now, reason });
            self.connection.answered();
        }
        can_wait
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

    /// Handles the server's answer for the calls of earlier connections. Returns the limits of the server,
    /// and the calls for which there is something left to do, or `None` if the connection is over.
    pub(crate) fn resumed(
        &mut self,
        connection: usize,
        answers: &[(u64, CallAnswer)],
        wakers: &mut Wakers,
        released: &mut Released,
    ) -> Option<(Limits, Vec<(u64, Resumed)>)> {
        let connection = self.resuming(connection)?;
        let mut resume = |(id, answer): &(u64, CallAnswer)| {
            let resumed = match self.table.in_doubt(*id).is_some() {
                true => self.resume_one(*id, *answer, wakers, released),
                false => self.resume_unwanted(*id, *answer),
            };
            Some((*id, resumed?))
        };
        let resumed = answers.iter().filter_map(&mut resume).collect();
        self.table.server = connection.server;
        Some((connection.limits, resumed))
    }

    fn resume_one(
        &mut self,
        id: u64,
        answer: CallAnswer,
        wakers: &mut Wakers,
        released: &mut Released,
    ) -> Option<Resumed> {
        let (call, in_doubt) = self.table.in_doubt(id)?;
        let (method, is_repeatable) = (call.method.clone(), call.is_idempotent || in_doubt.ran() == Ran::No);
        let lost = in_doubt.error(&method);
        match answer {
            CallAnswer::Done | CallAnswer::Running => {
                self.table.go_on(id);
                self.arrived(id, released);
                None
            }
            CallAnswer::Missing => {
                self.table.go_on(id);
                Some(Resumed::Again)
            }
            CallAnswer::Expired => {
                let text = "the server dropped the result before it could be delivered";
                let error = CallError::remote(method, RemoteError::new(ErrorKind::Expired, Ran::Yes, text));
                self.table.end(id, Stage::Over, Err(error), wakers, released);
                Some(Resumed::Expired)
            }
            CallAnswer::UnknownSession if is_repeatable => Some(Resumed::Anew),
            CallAnswer::UnknownSession => {
                self.table.end(id, Stage::Over, Err(lost), wakers, released);
                None
            }
        }
    }

    /// Handles the answer for a call that was given up since the server was asked.
    fn resume_unwanted(&mut self, id: u64, answer: CallAnswer) -> Option<Resumed> {
        match answer {
            CallAnswer::Done | CallAnswer::Running => {
                self.table.expect_unwanted(id);
                Some(Resumed::Unwanted)
            }
            CallAnswer::Expired => Some(Resumed::Expired),
            CallAnswer::Missing | CallAnswer::UnknownSession => None,
        }
    }

    /// Releases the arguments of a call, because the server has them. An idempotent call keeps them, for
    /// another server.
    pub(crate) fn arrived(&mut self, id: u64, released: &mut Released) {
        if let Some(call) = self.table.sent_mut(id).filter(|call| !call.is_idempotent) {
            released.drop_arguments(&mut call.arguments);
        }
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
