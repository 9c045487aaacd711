//! Where a connection stands with the calls of earlier connections of its session.
//!
//! Flow on a client: `ask` (the list is queued) -> `answered` (the server's list must fit it). On a server: `asked` (the
//! list arrived) -> `answer`. On both, the list stands before all calls, and calls wait for its answer.
//! Knows no frames, messages or clocks. Bound: one list of at most `MAX_OPEN_CALLS` ids a connection.

use teleport_wire::{CallAnswer, CallState, Kind};

use super::error::{ProtocolError, SendError};

#[derive(Debug, Default)]
pub(super) enum Resuming {
    /// No call was made, and nothing resumed.
    #[default]
    Fresh,
    /// The calls that are asked for, and not answered.
    Asked(Vec<u64>),
    /// Calls may be made.
    Done,
}

impl Resuming {
    /// A client asks for what became of `calls`.
    pub(super) fn ask(&mut self, calls: &[(u64, CallState)]) -> Result<(), SendError> {
        match self {
            Resuming::Fresh => {
                *self = Resuming::Asked(ids(calls));
                Ok(())
            }
            _ => Err(SendError::NotReady),
        }
    }

    /// Whether calls have to wait for an answer.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self, Resuming::Asked(_))
    }

    /// The server answered: with the same ids, or against the rules.
    pub(super) fn answered(&mut self, calls: &[(u64, CallAnswer)]) -> Result<(), ProtocolError> {
        match self {
            Resuming::Asked(asked) if *asked == ids(calls) => {
                *self = Resuming::Done;
                Ok(())
            }
            _ => Err(ProtocolError::OutOfTurn { kind: Kind::ResumeAnswer }),
        }
    }

    /// A client's list arrived.
    pub(super) fn asked(&mut self, calls: &[(u64, CallState)]) -> Result<(), ProtocolError> {
        self.ask(calls).map_err(|_| ProtocolError::OutOfTurn { kind: Kind::Resume })
    }

    /// The server's answer goes out.
    pub(super) fn answer(&mut self, calls: &[(u64, CallAnswer)]) -> Result<(), SendError> {
        self.answered(calls).map_err(|_| SendError::NotReady)
    }

    /// A call is made, or arrives: from now on nothing can be resumed. False if it is too early.
    pub(super) fn call(&mut self) -> bool {
        let may = !self.is_asked();
        if may {
            *self = Resuming::Done;
        }
        may
    }
}

fn ids<T>(calls: &[(u64, T)]) -> Vec<u64> {
    calls.iter().map(|(id, _)| *id).collect()
}
