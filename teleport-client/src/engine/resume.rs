//! Calls that outlive their connection: what a client does about them on the next one.
//!
//! Flow: a connection is there -> [`Engine::ask`] lists the calls -> [`Engine::go_on`] with the answer: those that the server
//! has are waited for, those that it never got are sent again, the others fail -> new calls may go out. While they run,
//! `server_has` lets go of arguments. Called by the thread that reads the connection; never waits.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::{Closed, SendError, Withdrawn};
use teleport_transport::wire::{CallAnswer, ErrorKind, Message, Ran, RemoteError, Resume};
use teleport_transport::{Link, Reply, Wakers};

use crate::calls::in_doubt::InDoubtCall;
use crate::calls::pending::{PendingCall, Place};
use crate::calls::resume::Settled;
use crate::calls::slot::OpenConnection;
use crate::calls::state::State;
use crate::engine::shared::{Engine, encode};
use crate::error::call::CallError;

impl Engine {
    /// Asks what became of the calls of earlier connections.
    pub(crate) fn ask(&self, link: &Arc<Link>, resume: Resume) {
        if link.resume(&resume).is_ok() {
            return;
        }
        // A server that keeps nothing: it cannot know them.
        let unknown: Vec<_> = resume.calls.iter().map(|(id, _)| (*id, CallAnswer::UnknownSession)).collect();
        let mut wakers = Wakers::default();
        self.go_on(link, &unknown, &mut wakers);
        wakers.wake_all();
    }

    /// The server has these calls whole.
    pub(crate) fn server_has(&self, link: &Link, ids: &[u64]) {
        let flights: Vec<Arc<PendingCall>> = {
            let state = self.state.lock();
            let place = |id: &u64| Place { connection: link.key(), id: *id };
            ids.iter().filter_map(|id| state.flight(place(id))).collect()
        };
        flights.iter().for_each(|flight| flight.arrived());
    }

    /// The server said what became of the calls of earlier connections.
    pub(crate) fn go_on(&self, link: &Arc<Link>, answers: &[(u64, CallAnswer)], wakers: &mut Wakers) {
        let (settled, door) = {
            let mut state = self.state.lock();
            let door = state.resuming_door().cloned();
            (state.settle(link.key(), answers), door)
        };
        let (Some(settled), Some(door)) = (settled, door) else { return };
        let Settled { arrived, again, anew, failed, expired, unwanted } = settled;
        tracing::info!(
            server = link.peer_address(),
            arrived = arrived.len(),
            sent_again = again.len() + anew.len(),
            failed = failed.len(),
            "calls of the connection before go on"
        );
        arrived.iter().for_each(|flight| flight.arrived());
        expired.iter().for_each(|id| link.acknowledge(*id));
        for (id, flight) in again {
            self.send_again(&door, id, &flight, wakers);
        }
        for (id, held) in anew {
            self.send_anew(&door, id, held, wakers);
        }
        for id in unwanted {
            self.withdraw_from(link, Place { connection: door.connection, id }, wakers);
        }
        for (flight, error) in failed {
            self.complete(&flight, Err(error), wakers);
        }
        self.state.lock().resumed(door.connection, Instant::now());
        self.notify();
        self.end_if_idle(wakers);
    }

    /// A call that the server does not have: once more, under its id.
    fn send_again(
        &self,
        door: &OpenConnection<Arc<Link>>,
        id: u64,
        flight: &Arc<PendingCall>,
        wakers: &mut Wakers,
    ) {
        let place = Place { connection: door.connection, id };
        match self.message(door, flight) {
            Ok(message) => {
                // Fails when this connection has ended too: then the next one asks again.
                let _ = door.link.call_again(id, message);
                // Whoever withdrew it before it went out found nothing to withdraw.
                if self.state.lock().flight(place).is_none() {
                    self.withdraw_from(&door.link, place, wakers);
                }
            }
            Err(error) => {
                let _ = self.state.lock().answered(place, wakers);
                self.complete(flight, Err(error), wakers);
            }
        }
    }

    /// A call that no server knows, to a server that is new: as a new call, with the slot that it has.
    fn send_anew(&self, door: &OpenConnection<Arc<Link>>, id: u64, held: InDoubtCall, wakers: &mut Wakers) {
        let flight = held.flight.clone();
        let message = match self.message(door, &flight) {
            Ok(message) => message,
            Err(error) => {
                self.state.lock().give_back(wakers);
                return self.complete(&flight, Err(error), wakers);
            }
        };
        let mut current = true;
        let sent = door.link.call(message, |id| {
            let place = Place { connection: door.connection, id };
            flight.set_place(place);
            current = self.state.lock().sent(place, &flight);
        });
        match sent {
            Ok(_) if current => self.arm_for(&flight),
            // The client ended meanwhile, and gave up what it knew of.
            Ok(sent_id) => {
                let ran = match door.link.withdraw(sent_id) {
                    Withdrawn::NeverSent | Withdrawn::Aborted => held.ran(),
                    Withdrawn::Requested | Withdrawn::NotOpen => Ran::Maybe,
                };
                self.state.lock().give_back(wakers);
                let error = CallError::Closed { method: flight.method.clone(), ran };
                self.complete(&flight, Err(error), wakers);
            }
            Err(SendError::TooManyCalls { max_open_calls }) => {
                self.state.lock().give_back(wakers);
                let (method, max_inflight) = (flight.method.clone(), max_open_calls as usize);
                self.complete(&flight, Err(CallError::Full { method, max_inflight }), wakers);
            }
            Err(_) => self.hold_again(id, held, wakers),
        }
    }

    fn hold_again(&self, id: u64, held: InDoubtCall, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        let left = state.hold_again(id, held);
        if let Some(at) = state.next_expiry() {
            self.arm(&mut state, at);
        }
        drop(state);
        if let Some(held) = left {
            let error = CallError::Closed { method: held.flight.method.clone(), ran: held.ran() };
            self.complete(&held.flight, Err(error), wakers);
        }
    }

    fn message(&self, door: &OpenConnection<Arc<Link>>, flight: &PendingCall) -> Result<Message, CallError> {
        let Some(arguments) = flight.arguments() else {
            // It said that it has them, and now that it does not: nobody can tell whether the call ran.
            let reason = Arc::new(Closed::Lost { error: None });
            return Err(CallError::lost(flight.method.clone(), &reason, Ran::Maybe));
        };
        encode(flight, &arguments, &door.limits)
    }

    /// Whether a call that is to survive waits for the next server, since this one is closing and did not start it.
    pub(crate) fn put_off(
        &self,
        state: &mut State<Arc<Link>>,
        id: u64,
        flight: &Arc<PendingCall>,
        answer: &Result<Reply, RemoteError>,
    ) -> bool {
        let Err(RemoteError { kind: ErrorKind::Closing, ran: Ran::No, message, .. }) = answer else {
            return false;
        };
        let is_put_off = flight.resumes() && flight.has_arguments();
        if is_put_off {
            let reason = Closed::Goodbye { kind: Some(ErrorKind::Closing), reason: message.clone() };
            state.put_off(id, flight, reason, Instant::now());
            if let Some(at) = state.next_expiry() {
                self.arm(state, at);
            }
        }
        is_put_off
    }
}
