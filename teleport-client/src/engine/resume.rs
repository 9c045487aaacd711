//! Continues calls that survived their connection on the next one.
//!
//! Flow: a new connection -> [`Resuming::ask`] lists the calls -> [`Resuming::go_on`] with the server's
//! answer: calls that it has are waited for, calls that it never got are sent again, the others fail -> new
//! calls may be sent. Runs on the thread that reads the connection. Never waits.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::{Closed, SendError};
use teleport_transport::wire::{CallAnswer, Limits, Message, Ran, Resume};
use teleport_transport::{Link, Wakers, drop_later};

use crate::calls::pending::{PendingCall, Released};
use crate::calls::resume::Resumed;
use crate::engine::shared::Engine;
use crate::error::call::CallError;

/// A connection on which earlier calls continue.
pub(crate) struct Resuming<'a> {
    engine: &'a Engine,
    link: &'a Arc<Link>,
    limits: Limits,
    wakers: &'a mut Wakers,
}

impl<'a> Resuming<'a> {
    /// Asks the server for the state of calls of earlier connections.
    pub(crate) fn ask(engine: &Engine, link: &Arc<Link>, resume: &Resume) {
        if link.resume(resume).is_ok() {
            return;
        }
        // The server keeps nothing, so it cannot know them.
        let unknown: Vec<_> = resume.calls.iter().map(|(id, _)| (*id, CallAnswer::UnknownSession)).collect();
        let mut wakers = Wakers::default();
        Resuming::go_on(engine, link, &unknown, &mut wakers);
        wakers.wake_all();
    }

    /// Continues earlier calls by the server's answer.
    pub(crate) fn go_on(
        engine: &'a Engine,
        link: &'a Arc<Link>,
        answers: &[(u64, CallAnswer)],
        wakers: &'a mut Wakers,
    ) {
        let mut released = Released::new();
        let resumed = engine.with(|client| client.resumed(link.key(), answers, wakers, &mut released));
        engine.dispose(released);
        let Some((limits, resumed)) = resumed else { return };
        tracing::info!(
            server = link.peer_address(),
            calls = answers.len(),
            "calls of earlier connections go on"
        );
        let mut resuming = Resuming { engine, link, limits, wakers };
        for (id, resumed) in resumed {
            match resumed {
                Resumed::Again => resuming.send_again(id),
                Resumed::Anew => resuming.send_anew(id),
                Resumed::Expired => link.acknowledge(&[id]),
                Resumed::Unwanted => engine.withdraw_unwanted(link, id, resuming.wakers),
            }
        }
        engine.with(|client| client.opened(link.key(), Instant::now()));
        engine.notify();
        engine.end_if_idle(resuming.wakers);
    }

    /// Sends a call that the server does not have again, under its id.
    fn send_again(&mut self, id: u64) {
        let Some(message) = self.message(id) else { return };
        // Fails if this connection has ended too. Then the next one asks again.
        let _ = self.link.call_again(id, message);
        // If it was given up before it was sent, there was nothing to withdraw.
        if self.engine.with(|client| client.pending(self.link.key(), id).is_none()) {
            self.engine.withdraw_unwanted(self.link, id, self.wakers);
        }
    }

    /// Sends a call that no server knows to a new server, as a new call with its slot.
    fn send_anew(&mut self, id: u64) {
        let Some(message) = self.message(id) else { return };
        let sent = self.link.call(message, |new_id| {
            self.engine.with(|client| {
                client.connection.is_current(self.link.key()) && client.table.move_to(id, new_id)
            })
        });
        // If the call has ended, there is nothing to do. If this connection has ended too, the call is still
        // in doubt, and waits for the next one.
        if let Err(SendError::TooManyCalls { max_open_calls }) = sent {
            let max_inflight = max_open_calls as usize;
            self.fail(id, |call| CallError::Full { method: call.method.clone(), max_inflight });
        }
    }

    /// Encodes a call that is sent again. If that fails, so does the call.
    fn message(&mut self, id: u64) -> Option<Message> {
        let call = self.engine.with(|client| Some(client.table.in_flight_call(id)?.request()))?;
        let Some(request) = call else {
            // The server said first that it has them, and now that it does not: it is unknown whether the
            // call ran.
            let reason = Arc::new(Closed::Lost { error: None });
            self.fail(id, |call| CallError::lost(call.method.clone(), &reason, Ran::Maybe));
            return None;
        };
        let message = request.encode(request.left(), &self.limits);
        // They may own memory of the user.
        drop_later(request.tree);
        message.map_err(|error| self.fail(id, |_| (*error).clone())).ok()
    }

    /// Fails a call that is not sent again.
    fn fail(&mut self, id: u64, error: impl Fn(&PendingCall) -> CallError) {
        let mut released = Released::new();
        self.engine.with(|client| client.fail(id, error, self.wakers, &mut released));
        self.engine.dispose(released);
    }
}
