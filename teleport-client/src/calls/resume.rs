//! What becomes of calls when their connection ends, and of those that survive when the next one opens.
//!
//! Flow: `lost` -> in_doubt -> `begin` (the next connection is there; what to ask it) -> `settle` (it has answered) ->
//! `opened` (new calls may go out). Until then the connection counts as current for the calls that are on it already.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallAnswer, CallState, ErrorKind, Ran, RemoteError, Resume};

use super::state::{Phase, State};
use crate::calls::in_doubt::InDoubtCall;
use crate::calls::pending::{PendingCall, Place};
use crate::calls::slot::OpenConnection;
use crate::error::call::CallError;

/// What to do with a connection that is there.
#[derive(Debug)]
pub(crate) enum Opening {
    /// The client has been closed.
    TooLate,
    /// Calls may go out.
    Open,
    /// First it is asked for calls of earlier connections.
    Resume(Resume),
}

/// What became of the calls of earlier connections.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The server has them, arguments and all.
    pub(crate) arrived: Vec<Arc<PendingCall>>,
    /// To be sent again, under these ids and in this order.
    pub(crate) again: Vec<(u64, Arc<PendingCall>)>,
    /// To be sent as new calls, and the ids that they had; each has a slot.
    pub(crate) anew: Vec<(u64, InDoubtCall)>,
    pub(crate) failed: Vec<(Arc<PendingCall>, CallError)>,
    /// Whose answer will not come, which the server is to be told that this side knows.
    pub(crate) expired: Vec<u64>,
    /// Withdrawn since the server was asked.
    pub(crate) unwanted: Vec<u64>,
}

impl<L> State<L> {
    /// A connection is over. Gives the calls that fail of it, and whether they ran; none if it is not the current one.
    /// `states` says what the server can have of each.
    pub(crate) fn lost(
        &mut self,
        connection: usize,
        reason: &Arc<Closed>,
        states: &HashMap<u64, CallState>,
        now: Instant,
    ) -> Option<Vec<(Arc<PendingCall>, Ran)>> {
        if !self.is_current(connection) {
            return None;
        }
        if let Phase::Up { door, since } = &self.phase {
            let has_answered = std::mem::take(&mut self.has_answered);
            self.backoff.ended(now.saturating_duration_since(*since), has_answered);
            self.in_doubt.belongs_to(door.server);
            self.phase = Phase::Down { since: now };
        }
        self.resuming = None;
        self.withdrawn = 0;
        self.in_doubt.lost();
        let mut failed = Vec::new();
        for (id, flight) in self.calls.drain() {
            let Some(flight) = flight else { continue };
            let state = states.get(&id).copied().unwrap_or(CallState::Sent);
            let held = InDoubtCall { flight, state, since: now, reason: reason.clone() };
            if held.flight.resumes() && !matches!(self.phase, Phase::Over) {
                self.in_doubt.hold(id, held);
            } else {
                let ran = held.ran();
                failed.push((held.flight, ran));
            }
        }
        Some(failed)
    }

    /// A call was turned away by a server that closes: it waits for the next one, as if it had not been sent.
    pub(crate) fn put_off(&mut self, id: u64, flight: &Arc<PendingCall>, reason: Closed, now: Instant) {
        let (flight, reason) = (flight.clone(), Arc::new(reason));
        self.in_doubt.hold(id, InDoubtCall { flight, state: CallState::Unsent, since: now, reason });
    }

    /// Whether there are, or may be, calls to make: a client that is closing still waits for those that survived their
    /// connection.
    pub(crate) fn wants_connection(&self) -> bool {
        let has_earlier = self.in_doubt.len() > 0 || self.resuming.is_some();
        !matches!(self.phase, Phase::Over) && (!self.closing || has_earlier)
    }

    /// A connection is there.
    pub(crate) fn begin(&mut self, door: &Arc<OpenConnection<L>>, now: Instant) -> Opening {
        if !self.wants_connection() {
            return Opening::TooLate;
        }
        if self.in_doubt.is_used() {
            self.resuming = Some(door.clone());
            return Opening::Resume(self.in_doubt.list());
        }
        self.opened(door.clone(), now);
        Opening::Open
    }

    /// The last id that the session has used.
    pub(crate) fn last_id(&self) -> u64 {
        self.in_doubt.last_id()
    }

    /// A connection has told what became of earlier calls; none if it is over.
    pub(crate) fn settle(&mut self, connection: usize, answers: &[(u64, CallAnswer)]) -> Option<Settled> {
        let door = self.resuming.clone().filter(|door| door.connection == connection)?;
        let mut settled = Settled::default();
        for (id, answer) in answers {
            match self.in_doubt.take(*id) {
                Some(held) => self.settle_one(&door, *id, held, *answer, &mut settled),
                None if matches!(answer, CallAnswer::Done | CallAnswer::Running) => {
                    self.calls.insert(*id, None);
                    self.withdrawn += 1;
                    self.in_doubt.unwanted(*id);
                    settled.unwanted.push(*id);
                }
                None if *answer == CallAnswer::Expired => settled.expired.push(*id),
                None => {}
            }
        }
        self.in_doubt.belongs_to(door.server);
        Some(settled)
    }

    fn settle_one(
        &mut self,
        door: &OpenConnection<L>,
        id: u64,
        held: InDoubtCall,
        answer: CallAnswer,
        settled: &mut Settled,
    ) {
        let (ran, flight, reason) = (held.ran(), held.flight.clone(), held.reason.clone());
        let goes_on = |state: &mut Self, flight: &Arc<PendingCall>| {
            flight.set_place(Place { connection: door.connection, id });
            state.calls.insert(id, Some(flight.clone()));
        };
        match answer {
            CallAnswer::Done | CallAnswer::Running => {
                goes_on(self, &flight);
                settled.arrived.push(flight);
            }
            CallAnswer::Missing => {
                goes_on(self, &flight);
                settled.again.push((id, flight));
            }
            CallAnswer::Expired => {
                settled.expired.push(id);
                let text = "the server dropped the result before it could be delivered";
                let error = RemoteError::new(ErrorKind::Expired, Ran::Yes, text);
                let error = CallError::remote(flight.method.clone(), error);
                settled.failed.push((flight, error));
            }
            CallAnswer::UnknownSession if flight.is_idempotent() || ran == Ran::No => {
                self.given += 1;
                settled.anew.push((id, held));
            }
            CallAnswer::UnknownSession => {
                let error = CallError::lost(flight.method.clone(), &reason, ran);
                settled.failed.push((flight, error));
            }
        }
    }

    /// What was to be sent anew was not, since this connection has ended too: it waits for the next one. Gives it back if
    /// there will be none.
    pub(crate) fn hold_again(&mut self, id: u64, held: InDoubtCall) -> Option<InDoubtCall> {
        self.given -= 1;
        if matches!(self.phase, Phase::Over) {
            return Some(held);
        }
        self.in_doubt.hold(id, held);
        None
    }

    /// All calls of earlier connections have gone on: new ones may go out, unless this connection has ended meanwhile.
    pub(crate) fn resumed(&mut self, connection: usize, now: Instant) {
        if let Some(door) = self.resuming.clone().filter(|door| door.connection == connection) {
            self.opened(door, now);
        }
    }

    /// Calls may go out on a connection; false if it comes too late. [`admit`](State::admit) lets the waiting ones use it.
    pub(crate) fn opened(&mut self, door: Arc<OpenConnection<L>>, now: Instant) -> bool {
        if !self.wants_connection() {
            return false;
        }
        self.resuming = None;
        self.phase = Phase::Up { door, since: now };
        self.attempts = 0;
        true
    }
}
