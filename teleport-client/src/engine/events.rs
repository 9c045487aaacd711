//! Events of a client: those of its connection, and those of its alarm.
//!
//! Called by the thread that reads the connection, and by the timer. Never blocks.

use std::sync::Arc;
use std::time::Instant;

use teleport_transport::protocol::{Closed, Gate};
use teleport_transport::wire::{CallAnswer, ErrorKind, Hello, Ran, RemoteError};
use teleport_transport::{Answer, Answers, Handler, Link, Wakers};

use crate::calls::pending::Released;
use crate::calls::resume::Opening;
use crate::calls::state::{earliest, expiry_error};
use crate::connect::status::OpenConnection;
use crate::engine::closing::GOODBYE_TIME;
use crate::engine::resume::Resuming;
use crate::engine::shared::{Engine, Locked};
use crate::engine::timer::Alarm;

/// Answers that the server keeps are acknowledged in groups of this size.
const MAX_KEPT: usize = 16;

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
        let (opening, last_id) = self.with(|client| {
            let opening = client.begin(connection, Instant::now());
            client.counters.connects += u64::from(!matches!(opening, Opening::TooLate));
            (opening, client.table.last_id())
        });
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
        self.with(|client| client.table.has_waiter() || !client.slots.line().is_empty())
    }

    /// Notes that the server has these calls with their arguments.
    fn acknowledged(&self, link: &Arc<Link>, ids: &[u64]) {
        let mut released = Released::new();
        self.with(|client| {
            if client.connection.is_current(link.key()) {
                ids.iter().for_each(|id| client.arrived(*id, &mut released));
            }
        });
        self.dispose(released);
    }

    fn resumed(&self, link: &Arc<Link>, calls: Vec<(u64, CallAnswer)>, wakers: &mut Wakers) {
        Resuming::go_on(self, link, &calls, wakers);
    }

    fn is_awaited(&self, link: &Arc<Link>, id: u64) -> bool {
        let mut state = self.state.lock();
        // Closing waits for all results.
        let is_closing = state.client.is_closing;
        let call = state.client.pending(link.key(), id);
        let is_awaited = is_closing || call.is_none_or(|call| call.demand.accepts());
        if !is_awaited {
            // Under the lock: the alarm may be running, and the budget learns of the result only after this.
            let at = state.client.deferred.defer(Instant::now());
            state.alarm.ring_by(at);
        }
        is_awaited
    }

    fn answered(&self, link: &Arc<Link>, mut answers: Answers<'_, '_>, wakers: &mut Wakers) {
        let mut released = Released::new();
        let is_closing = loop {
            let (mut kept, mut count) = ([0; MAX_KEPT], 0);
            let mut state = self.state.lock();
            while count < MAX_KEPT
                && let Some((id, answer)) = answers.next()
            {
                if state.answered(link.key(), id, &mut Some(answer), wakers, &mut released) {
                    kept[count] = id;
                    count += 1;
                }
            }
            state.client.admit(wakers);
            let is_closing = state.client.is_closing;
            drop(state);
            if count > 0 {
                link.acknowledge(&kept[..count]);
            }
            if count < MAX_KEPT {
                break is_closing;
            }
        };
        self.dispose(released);
        if is_closing {
            self.end_if_idle(wakers);
        }
    }

    fn closed(&self, link: &Arc<Link>, reason: &Arc<Closed>, wakers: &mut Wakers) {
        self.lose(link, reason, wakers);
    }
}

impl Locked {
    /// Handles one answer. Returns true if the server keeps it until it is acknowledged.
    #[inline]
    fn answered(
        &mut self,
        connection: usize,
        id: u64,
        answer: &mut Option<Answer>,
        wakers: &mut Wakers,
        released: &mut Released,
    ) -> bool {
        if let Some(Err(error)) = answer
            && let Some(reason) = put_off_reason(error)
            && self.put_off(connection, id, reason)
        {
            return true;
        }
        self.client.answered(connection, id, answer, wakers, released)
    }

    #[cold]
    fn put_off(&mut self, connection: usize, id: u64, reason: Closed) -> bool {
        let is_put_off = self.client.put_off(connection, id, reason, Instant::now());
        if is_put_off {
            self.client.counters.received(0);
            self.ring_at_next_expiry();
        }
        is_put_off
    }
}

/// If a closing server refused a call that had not started, returns the reason why the call waits for the
/// next server.
fn put_off_reason(error: &RemoteError) -> Option<Closed> {
    match error {
        RemoteError { kind: kind @ ErrorKind::Closing, ran: Ran::No, message, .. } => {
            Some(Closed::Goodbye { kind: Some(*kind), reason: message.clone() })
        }
        _ => None,
    }
}

impl Alarm for Engine {
    fn ring(&self, now: Instant) {
        let mut wakers = Wakers::default();
        let has_deferred = self.budget.waiting() > 0;
        let (overdue, deferred, dials, warns) = {
            let mut state = self.state.lock();
            let client = &mut state.client;
            let overdue = client.expire(now, &mut wakers);
            let deferred = if has_deferred { client.table.ask_before_awaited() } else { Vec::new() };
            let warns = has_deferred && !client.slots.line().is_empty() && client.deferred.warns();
            client.deferred.checked(now, has_deferred);
            let (next, dials) =
                (earliest(client.next_expiry_after(now), client.deferred.check_at()), client.needs_dial());
            state.alarm.set(next);
            (overdue, deferred, dials, warns)
        };
        if warns {
            warn_of_slots(&self.settings.address, self.settings.max_memory);
        }
        if dials {
            self.dial();
        }
        self.fetch(deferred);
        for id in overdue {
            self.give_up(id, |call, ran| expiry_error(call, ran, now), &mut wakers);
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
