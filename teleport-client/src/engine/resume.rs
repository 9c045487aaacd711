//! Continues calls that survived their connection on the next one.
//!
//! Flow: a new connection -> [`Resuming::ask`] lists the calls -> [`Resuming::go_on`] with the server's
//! answer: calls that it has are waited for, calls that it never got are sent again, the others fail -> new
//! calls may be sent. Runs on the thread that reads the connection. Never waits.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::{Closed, SendError};
use teleport_transport::wire::{CallAnswer, ErrorKind, Limits, Message, Ran, RemoteError, Resume};
use teleport_transport::{Link, Wakers};

use crate::calls::in_doubt::InDoubtCall;
use crate::calls::pending::PendingCall;
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
        let resumed = engine.state.lock().client.resumed(link.key(), answers);
        let Some((limits, resumed)) = resumed else { return };
        tracing::info!(
            server = link.peer_address(),
            calls = resumed.len(),
            "calls of earlier connections go on"
        );
        let mut resuming = Resuming { engine, link, limits, wakers };
        for (id, call) in resumed {
            resuming.resume(id, call);
        }
        engine.state.lock().client.opened(link.key(), Instant::now());
        engine.notify();
        engine.end_if_idle(resuming.wakers);
    }

    fn resume(&mut self, id: u64, resumed: Resumed) {
        match resumed {
            Resumed::Arrived(call) => call.arrived(),
            Resumed::Again(call) => self.send_again(id, &call),
            Resumed::Anew(in_doubt) => self.send_anew(id, in_doubt),
            Resumed::Lost(in_doubt) => self.fail(&in_doubt.call, in_doubt.error()),
            Resumed::Expired(call) => {
                self.link.acknowledge(&[id]);
                if let Some(call) = call {
                    let text = "the server dropped the result before it could be delivered";
                    let error = RemoteError::new(ErrorKind::Expired, Ran::Yes, text);
                    self.fail(&call, CallError::remote(call.method.clone(), error));
                }
            }
            Resumed::Unwanted => {
                self.engine.withdraw_from(self.link, id, self.wakers);
            }
        }
    }

    fn fail(&mut self, call: &PendingCall, error: CallError) {
        self.engine.complete(call, Err(error), self.wakers);
    }

    /// Sends a call that the server does not have again, under its id.
    fn send_again(&mut self, id: u64, call: &Arc<PendingCall>) {
        match self.message(call) {
            Ok(message) => {
                // Fails if this connection has ended too. Then the next one asks again.
                let _ = self.link.call_again(id, message);
                // If it was withdrawn before it was sent, the withdrawal found nothing to withdraw.
                let is_withdrawn = self.engine.state.lock().client.pending(self.link.key(), id).is_none();
                if is_withdrawn {
                    self.engine.withdraw_from(self.link, id, self.wakers);
                }
            }
            Err(error) => {
                let _ = self.engine.state.lock().client.answered(self.link.key(), id, self.wakers);
                self.fail(call, error);
            }
        }
    }

    /// Sends a call that no server knows to a new server, as a new call with its slot.
    fn send_anew(&mut self, id: u64, in_doubt: InDoubtCall) {
        let call = in_doubt.call.clone();
        let message = match self.message(&call) {
            Ok(message) => message,
            Err(error) => return self.give_up(&call, error),
        };
        let sent = self.link.call(message, |id| {
            call.set_id(id);
            self.engine.state.lock().sent(self.link.key(), id, &call)
        });
        match sent {
            Ok(_) => {}
            Err(SendError::TooManyCalls { max_open_calls }) => {
                let (method, max_inflight) = (call.method.clone(), max_open_calls as usize);
                self.give_up(&call, CallError::Full { method, max_inflight });
            }
            // The connection is over, or the client has ended.
            Err(_) => self.hold_again(id, in_doubt),
        }
    }

    /// Fails a call with a slot before it is sent.
    fn give_up(&mut self, call: &PendingCall, error: CallError) {
        self.engine.state.lock().client.give_back(self.wakers);
        self.fail(call, error);
    }

    fn hold_again(&mut self, id: u64, in_doubt: InDoubtCall) {
        let left = {
            let mut state = self.engine.state.lock();
            let left = state.client.hold_again(id, in_doubt);
            state.ring_at_next_expiry();
            left
        };
        if let Some(left) = left {
            let error = CallError::Closed { method: left.call.method.clone(), ran: left.ran() };
            self.fail(&left.call, error);
        }
    }

    fn message(&self, call: &PendingCall) -> Result<Message, CallError> {
        let Some(arguments) = call.arguments() else {
            // The server said first that it has them, and now that it does not: it is unknown whether the
            // call ran.
            let reason = Arc::new(Closed::Lost { error: None });
            return Err(CallError::lost(call.method.clone(), &reason, Ran::Maybe));
        };
        call.encode(&arguments, &self.limits)
    }
}
