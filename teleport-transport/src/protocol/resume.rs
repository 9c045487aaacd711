//! Both sides' agreement on the calls of a session's earlier connections.
//!
//! Flow: the hellos agree -> `ask` (a client's list is sent, or has arrived) -> `answer` (the server's answer
//! is sent, or has arrived). The list precedes all calls, which wait for its answer. Knows no messages and no
//! clock. Bound: one list of at most `MAX_OPEN_CALLS` ids.

use teleport_wire::{CallAnswer, CallState, Hello};

use crate::config::Config;
use crate::role::Role;

#[derive(Debug)]
pub(super) struct Resumption {
    /// This side can resume.
    is_offered: bool,
    /// This side is a client with a session.
    has_session: bool,
    /// Both sides can resume, and the client has a session.
    is_agreed: bool,
    turn: Turn,
}

#[derive(Debug)]
enum Turn {
    /// No call was made and no list was sent.
    First,
    /// The list with these calls was sent, and there is no answer.
    Asked(Vec<u64>),
    /// Calls may be made.
    Calls,
}

impl Resumption {
    pub(super) fn new(role: Role, config: &Config) -> Resumption {
        let has_session = role == Role::Client && !config.session.is_none();
        Resumption { is_offered: config.resume, has_session, is_agreed: false, turn: Turn::First }
    }

    pub(super) fn on_hello(&mut self, hello: &Hello) {
        let has_session = self.has_session || !hello.session.is_none();
        self.is_agreed = self.is_offered && has_session && hello.features & Hello::RESUME != 0;
    }

    pub(super) fn is_agreed(&self) -> bool {
        self.is_agreed
    }

    /// The client sends its list. Returns false if that is not allowed now.
    pub(super) fn ask(&mut self, calls: &[(u64, CallState)]) -> bool {
        let is_turn = matches!(self.turn, Turn::First);
        if is_turn {
            self.turn = Turn::Asked(ids(calls));
        }
        is_turn
    }

    /// The server answers the list. Returns false unless the answer has the same ids.
    pub(super) fn answer(&mut self, calls: &[(u64, CallAnswer)]) -> bool {
        let fits = matches!(&self.turn, Turn::Asked(asked) if *asked == ids(calls));
        if fits {
            self.turn = Turn::Calls;
        }
        fits
    }

    /// A call is made, or arrives: calls can no longer be resumed. Returns false while a list waits for its
    /// answer.
    pub(super) fn begin_call(&mut self) -> bool {
        let is_turn = !matches!(self.turn, Turn::Asked(_));
        if is_turn {
            self.turn = Turn::Calls;
        }
        is_turn
    }
}

fn ids<T>(calls: &[(u64, T)]) -> Vec<u64> {
    calls.iter().map(|(id, _)| *id).collect()
}
