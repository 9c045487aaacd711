//! Events of a client: those of its connection, and those of its alarm.
//!
//! Called by the thread that reads the connection, and by the timer. Never blocks.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::{Closed, Gate};
use teleport_transport::wire::{CallAnswer, ErrorKind, Hello, Ran, RemoteError};
use teleport_transport::{Answer, Handler, Link, Wakers};

use crate::calls::counters::answer_bytes;
use crate::calls::resume::Opening;
use crate::calls::state::earliest;
use crate::calls::table::GivenUp;
use crate::connect::status::OpenConnection;
use crate::engine::closing::GOODBYE_TIME;
use crate::engine::resume::Resuming;
use crate::engine::shared::Engine;
use crate::engine::timer::Alarm;
use crate::error::call::CallError;

impl Gate for Engine {
    /// A client answers no calls. The link refuses them before it calls this.
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        let text = format!("a client has no methods, and so no {method:?}");
        Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, text))
    }
}

impl Handler for Engine {
    fn opened(&self, link: &Arc<Link>, peer: &Hello) {
        let connection = OpenConnection {
            link: Arc::downgrade(link),
            key: link.key(),
            limits: peer.limits,
            max_open_calls: peer.max_open_calls as usize,
            server: peer.instance,
        };
        let (opening, last_id) = {
            let client = &mut self.state.lock().client;
            let opening = client.begin(connection, Instant::now());
            client.counters.connects += u64::from(!matches!(opening, Opening::TooLate));
            (opening, client.table.last_id())
        };
        link.number_after(last_id);
        // Wakes the thread that connects, which lets the waiting calls be sent.
        self.notify();
        if let Opening::TooLate = opening {
            return link.close(None, "", GOODBYE_TIME);
        }
        tracing::info!(server = link.peer_address(), name = peer.name, "connected");
        if let Opening::Resume(resume) = opening {
            Resuming::ask(self, link, &resume);
        }
    }

    fn is_waited_for(&self) -> bool {
        self.waiters.any()
    }

    /// Notes that the server has these calls with their arguments.
    fn acknowledged(&self, link: &Arc<Link>, ids: &[u64]) {
        let calls: Vec<_> = {
            let client = &self.state.lock().client;
            ids.iter().filter_map(|id| client.pending(link.key(), *id).cloned()).collect()
        };
        calls.iter().for_each(|call| call.arrived());
    }

    fn resumed(&self, link: &Arc<Link>, calls: Vec<(u64, CallAnswer)>, wakers: &mut Wakers) {
        Resuming::go_on(self, link, &calls, wakers);
    }

    fn is_awaited(&self, link: &Arc<Link>, id: u64) -> bool {
        let mut state = self.state.lock();
        let call = state.client.pending(link.key(), id);
        // Closing waits for all results.
        let is_awaited = state.client.is_closing || call.is_none_or(|call| call.accepts());
        if !is_awaited {
            // Under the lock: the alarm may be running, and the budget learns of the result only after this.
            let at = state.client.deferred.defer(Instant::now());
            state.alarm.ring_by(at);
        }
        is_awaited
    }

    fn answered(&self, link: &Arc<Link>, answers: &mut Vec<(u64, Answer)>, wakers: &mut Wakers) {
        answers.drain(..).for_each(|(id, answer)| self.answered_one(link, id, answer, wakers));
    }

    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers) {
        self.lose(link, reason, wakers);
    }
}

impl Engine {
    fn answered_one(&self, link: &Arc<Link>, id: u64, answer: Answer, wakers: &mut Wakers) {
        let bytes = answer_bytes(&answer);
        let (call, is_kept, is_closing) = {
            let mut state = self.state.lock();
            let client = &mut state.client;
            client.counters.received(bytes);
            if let Some(reason) = put_off_reason(&answer)
                && client.put_off(link.key(), id, reason, Instant::now())
            {
                client.admit(wakers);
                state.ring_at_next_expiry();
                (None, true, false)
            } else {
                let (call, is_kept) = client.answered(link.key(), id, wakers);
                (call, is_kept, client.is_closing)
            }
        };
        if is_kept {
            link.acknowledge(&[id]);
        }
        if let Some(call) = call {
            let outcome = answer.map_err(|error| CallError::remote(call.method.clone(), error));
            self.complete(&call, outcome, wakers);
        }
        if is_closing {
            self.end_if_idle(wakers);
        }
    }
}

/// If a closing server refused a call that had not started, returns the reason why the call waits for the
/// next server.
fn put_off_reason(answer: &Answer) -> Option<Closed> {
    match answer {
        Err(RemoteError { kind: kind @ ErrorKind::Closing, ran: Ran::No, message, .. }) => {
            Some(Closed::Goodbye { kind: Some(*kind), reason: message.clone() })
        }
        _ => None,
    }
}

impl Alarm for Engine {
    fn ring(&self, now: Instant) {
        let mut wakers = Wakers::default();
        let has_deferred = self.budget.waiting() > 0;
        let (overdue, deferred, dials) = {
            let mut state = self.state.lock();
            let client = &mut state.client;
            let overdue = client.expire(now, &mut wakers);
            let deferred = if has_deferred { client.table.deferred_before_awaited() } else { Vec::new() };
            if has_deferred && !client.slots.line().is_empty() && client.deferred.warns() {
                warn_of_slots(&self.settings.address, self.settings.max_memory);
            }
            client.deferred.checked(now, has_deferred);
            let (next, dials) =
                (earliest(client.next_expiry(), client.deferred.check_at()), client.needs_dial());
            state.alarm.set(next);
            (overdue, deferred, dials)
        };
        if dials {
            self.dial();
        }
        deferred.iter().for_each(|call| self.fetch_now(call));
        for given_up in overdue {
            let ran = self.give_up(&given_up, &mut wakers);
            let (call, lost) = match given_up {
                GivenUp::Sent(_, call) => (call, None),
                GivenUp::InDoubt(in_doubt) => (in_doubt.call.clone(), Some(in_doubt.error())),
            };
            let deadline = call.deadline.filter(|deadline| deadline.at <= now);
            if let Some(error) = deadline.map(|deadline| deadline.error(&call.method, ran)).or(lost) {
                self.complete(&call, Err(error), &mut wakers);
            }
        }
        self.end_if_idle(&mut wakers);
        wakers.wake_all();
    }
}

/// Warns that calls wait for slots of unread results: a thread that both sends and reads would wait for
/// itself.
fn warn_of_slots(address: &str, max_memory: u64) {
    tracing::warn!(
        address,
        max_memory,
        "calls wait for slots that unread results hold: read those results, or raise `max_memory`"
    );
}
