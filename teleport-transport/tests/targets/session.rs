//! Calls that survive their connection: the state that a client and a server keep of them.

use std::collections::BTreeMap;

use teleport_transport::protocol::SendError;
use teleport_transport::wire::{CallAnswer, CallState, Id128, Message, Resume, Tree};

use super::end::End;

/// The state that both sides keep beyond one connection.
#[derive(Default)]
pub(super) struct Session {
    /// The client's calls without an answer, while it has no connection on which to wait for them.
    pub(super) kept: BTreeMap<u64, (Tree, CallState)>,
    /// The newest id of the client's calls.
    pub(super) last_id: u64,
    /// The client has had a connection before.
    was_connected: bool,
    /// The server's calls without an answer, and its answers that were not acknowledged.
    records: BTreeMap<u64, Record>,
}

enum Record {
    Open,
    Kept(Message),
    Expired,
}

impl Session {
    // ---- The client ----

    /// Handles an open connection of the client, which resumes the calls of the last one.
    pub(super) fn opened(&mut self, client: &End) {
        let mut outbound = client.outbound.borrow_mut();
        outbound.number_after(self.last_id);
        if std::mem::replace(&mut self.was_connected, true) && outbound.resumes() {
            let calls = self.kept.iter().map(|(id, (_, state))| (*id, *state)).collect();
            let asked = outbound.send_resume(&Resume { server: Id128::NONE, calls });
            assert!(matches!(asked, Ok(()) | Err(SendError::Closed)), "nothing was sent yet: {asked:?}");
        }
    }

    /// Handles the server's answer for one call. Returns the arguments of a call that goes on.
    pub(super) fn resumed(&mut self, id: u64, answer: CallAnswer, client: &End) -> Option<Tree> {
        let (tree, _) = self.kept.remove(&id).expect("it was asked for");
        let mut outbound = client.outbound.borrow_mut();
        match answer {
            CallAnswer::Done | CallAnswer::Running => {}
            CallAnswer::Missing => {
                let message = super::call_of("echo", &tree, None);
                // Nothing can be sent after a goodbye.
                outbound.send_call_again(id, message).ok()?;
            }
            CallAnswer::Expired => {
                outbound.send_ack(id);
                return None;
            }
            CallAnswer::UnknownSession => panic!("the server forgets nothing"),
        }
        Some(tree)
    }

    // ---- The server ----

    /// Notes a call that arrived whole, which happens only once.
    pub(super) fn arrived(&mut self, id: u64, server: &End) {
        assert!(self.records.insert(id, Record::Open).is_none(), "call {id} arrived twice");
        server.outbound.borrow_mut().send_ack(id);
    }

    /// Keeps the answer of a call. Returns false if its client has given it up.
    pub(super) fn answered(&mut self, id: u64, message: &Message) -> bool {
        let record = self.records.get_mut(&id);
        record.map(|record| *record = Record::Kept(message.clone())).is_some()
    }

    pub(super) fn acknowledged(&mut self, ids: &[u64]) {
        self.records.retain(|id, record| matches!(record, Record::Open) || !ids.contains(id));
    }

    /// Expires the oldest kept answer.
    pub(super) fn expire(&mut self) {
        if let Some(record) = self.records.values_mut().find(|record| matches!(record, Record::Kept(_))) {
            *record = Record::Expired;
        }
    }

    pub(super) fn resume(&mut self, resume: &Resume, server: &End) {
        let listed = |id: &u64| resume.calls.iter().any(|(listed, _)| listed == id);
        self.records.retain(|id, _| listed(id));
        let answer = |id: &u64| match self.records.get(id) {
            None => CallAnswer::Missing,
            Some(Record::Open) => CallAnswer::Running,
            Some(Record::Kept(_)) => CallAnswer::Done,
            Some(Record::Expired) => CallAnswer::Expired,
        };
        let answers = resume.calls.iter().map(|(id, _)| (*id, answer(id))).collect();
        let mut outbound = server.outbound.borrow_mut();
        // This fails after a goodbye, when the client no longer waits for the answer.
        if outbound.send_resume_answer(answers).is_ok() {
            for (id, record) in &self.records {
                if let Record::Kept(message) = record {
                    outbound.send_answer(*id, message.clone()).expect("it was said to be done");
                }
            }
        }
    }

    /// Returns true if neither side keeps anything.
    pub(super) fn is_settled(&self) -> bool {
        self.kept.is_empty() && self.records.is_empty()
    }
}
