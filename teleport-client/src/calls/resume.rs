//! What becomes of calls when their connection ends, and of those that survive when the next one opens.
//!
//! Flow: `lost` (calls are in doubt) -> `begin` (the next connection is there, with what to ask it) -> `resumed` (the server
//! has answered) -> `opened` (new calls may go out).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallAnswer, CallState, ErrorKind, Ran, RemoteError, Resume};

use crate::calls::in_doubt::InDoubtCall;
use crate::calls::pending::PendingCall;
use crate::calls::state::ClientState;
use crate::calls::table::Entry;
use crate::connect::status::OpenConnection;
use crate::error::call::CallError;

/// What to do with a new connection.
#[derive(Debug)]
pub(crate) enum Opening {
    /// The client was closed.
    TooLate,
    /// Calls may go out.
    Open,
    /// The server is asked for calls of earlier connections first.
    Resume(Resume),
}

/// What became of the calls of earlier connections.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    /// The server has these, with their arguments.
    pub(crate) arrived: Vec<Arc<PendingCall>>,
    /// To send again, under these ids and in this order.
    pub(crate) again: Vec<(u64, Arc<PendingCall>)>,
    /// To send as new calls, and the ids that they had. Each has a slot.
    pub(crate) anew: Vec<(u64, InDoubtCall)>,
    pub(crate) failed: Vec<(Arc<PendingCall>, CallError)>,
    /// No answer will come to these. The server learns that this side knows.
    pub(crate) expired: Vec<u64>,
    /// Withdrawn since the server was asked.
    pub(crate) unwanted: Vec<u64>,
}

impl<L: Clone> ClientState<L> {
    /// A connection is over. Returns the calls that fail with it and whether they ran, or `None` if it was not the current
    /// connection. `states` tells what the server can have of each call.
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
                self.table.hold(id, in_doubt);
            } else {
                let ran = in_doubt.ran();
                failed.push((in_doubt.call, ran));
            }
        }
        Some(failed)
    }

    /// A closing server refused a call before it started. If the call survives, it waits for the next connection, as if it
    /// had not been sent. Returns true then.
    pub(crate) fn put_off(&mut self, connection: usize, id: u64, reason: Closed, now: Instant) -> bool {
        let call = self.pending(connection, id).filter(|call| call.arguments().is_some()).cloned();
        let Some(call) = call else { return false };
        let (state, reason) = (CallState::Unsent, Arc::new(reason));
        self.table.hold(id, InDoubtCall { call, state, since: now, reason });
        self.connection.answered();
        true
    }

    /// A connection is there.
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

    /// The server told what became of earlier calls. Returns `None` if the connection is over.
    pub(crate) fn resumed(
        &mut self,
        connection: usize,
        answers: &[(u64, CallAnswer)],
    ) -> Option<(OpenConnection<L>, Resumed)> {
        let connection = self.resuming(connection)?;
        let mut resumed = Resumed::default();
        for (id, answer) in answers {
            match self.table.take_in_doubt(*id) {
                Some(in_doubt) => self.resume_one(*id, in_doubt, *answer, &mut resumed),
                None if matches!(answer, CallAnswer::Done | CallAnswer::Running) => {
                    self.table.put(*id, Entry::Withdrawn { is_kept: true });
                    resumed.unwanted.push(*id);
                }
                None if *answer == CallAnswer::Expired => resumed.expired.push(*id),
                None => {}
            }
        }
        self.table.server = connection.server;
        Some((connection, resumed))
    }

    fn resume_one(&mut self, id: u64, in_doubt: InDoubtCall, answer: CallAnswer, resumed: &mut Resumed) {
        let call = in_doubt.call.clone();
        match answer {
            CallAnswer::Done | CallAnswer::Running => {
                self.table.put(id, Entry::Sent(call.clone()));
                resumed.arrived.push(call);
            }
            CallAnswer::Missing => {
                self.table.put(id, Entry::Sent(call.clone()));
                resumed.again.push((id, call));
            }
            CallAnswer::Expired => {
                resumed.expired.push(id);
                let text = "the server dropped the result before it could be delivered";
                let error = RemoteError::new(ErrorKind::Expired, Ran::Yes, text);
                let error = CallError::remote(call.method.clone(), error);
                resumed.failed.push((call, error));
            }
            CallAnswer::UnknownSession if call.is_idempotent || in_doubt.ran() == Ran::No => {
                self.slots.given += 1;
                resumed.anew.push((id, in_doubt));
            }
            CallAnswer::UnknownSession => resumed.failed.push((call, in_doubt.error())),
        }
    }

    /// A call was to be sent anew, and this connection has ended too: it waits for the next one. Returns the call if the
    /// client has ended.
    pub(crate) fn hold_again(&mut self, id: u64, in_doubt: InDoubtCall) -> Option<InDoubtCall> {
        self.slots.given -= 1;
        if self.connection.is_over() {
            return Some(in_doubt);
        }
        self.table.hold(id, in_doubt);
        None
    }

    /// Calls of earlier connections have gone on: new ones may go out, unless this connection has ended meanwhile.
    pub(crate) fn opened(&mut self, connection: usize, now: Instant) {
        if let Some(connection) = self.resuming(connection) {
            self.connection.set_open(connection, now);
        }
    }

    /// The connection, if its server was asked for earlier calls.
    fn resuming(&self, connection: usize) -> Option<OpenConnection<L>> {
        let is_resuming = self.connection.is_resuming() && self.connection.is_current(connection);
        self.connection.current().filter(|_| is_resuming).cloned()
    }
}
