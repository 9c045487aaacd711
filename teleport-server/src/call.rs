//! One call that a server owes an answer, from its arrival to that answer.
//!
//! Flow: `OpenCall::new` (it arrived) -> a pool's queue -> `claim` by a worker or `withdraw` by its caller, whichever
//! comes first -> `answer`. Who takes the arguments out decides whether the function runs; so a call that was withdrawn
//! gives its memory back at once, wherever in a queue it stands. Its session, where it has one, keeps the answer until the
//! caller has it. Never waits. Bound: the client's open calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::wire::{Message, RemoteError, Tree};
use teleport_transport::{Lease, Link};

use crate::connection::dispatch::Connection;
use crate::exec::fair_queue::{Seat, Waiting};
use crate::refusal::late;
use crate::registry::MethodInfo;
use crate::route::Route;
use crate::runtime::counters::Counter;
use crate::session::session::Session;

/// What a function is called with, and what pays for its memory until then.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) tree: Tree,
    pub(crate) lease: Lease,
}

/// A call without an answer.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) connection: Arc<Connection>,
    pub(crate) link: Arc<Link>,
    pub(crate) id: u64,
    pub(crate) method: Arc<MethodInfo>,
    pub(crate) deadline: Option<Instant>,
    /// Of a call that survives its connection.
    session: Option<Arc<Session>>,
    cancelled: AtomicBool,
    /// Its function asked and was told that it was cancelled.
    knows_cancelled: AtomicBool,
    /// Until the call starts or is withdrawn.
    arguments: Mutex<Option<Arguments>>,
    /// Where in its pool's queue it stands.
    seat: Seat,
    /// Its number among the calls of a batched method; written before anybody else knows the call there.
    key: AtomicU64,
}

impl OpenCall {
    pub(crate) fn new(
        connection: &Arc<Connection>,
        link: &Arc<Link>,
        id: u64,
        method: &Arc<MethodInfo>,
        deadline: Option<Instant>,
        session: Option<Arc<Session>>,
        arguments: Arguments,
    ) -> OpenCall {
        OpenCall {
            connection: connection.clone(),
            link: link.clone(),
            id,
            method: method.clone(),
            deadline,
            session,
            cancelled: AtomicBool::new(false),
            knows_cancelled: AtomicBool::new(false),
            arguments: Mutex::new(Some(arguments)),
            seat: Seat::default(),
            key: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Relaxed);
    }

    pub(crate) fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// Takes the arguments, once: whoever gets them decides what becomes of the call.
    pub(crate) fn claim(&self) -> Option<Arguments> {
        self.arguments.lock().take()
    }

    /// Has it not run, if it has not started: true then. Gives its memory back.
    pub(crate) fn give_up(&self) -> bool {
        match self.method.route {
            Route::Batch(batcher) => self.connection.shared.batchers[batcher].withdraw(self).is_some(),
            Route::Inline | Route::Pool(_) => self.claim().is_some(),
        }
    }

    /// Whether the call still waits for a worker.
    pub(crate) fn waits(&self) -> bool {
        self.arguments.lock().is_some()
    }

    /// Tells a running function that its caller has gone or wants no answer.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it survives its connection.
    pub(crate) fn survives(&self) -> bool {
        self.session.is_some()
    }

    /// The connection that its answer goes to; none while its client has none.
    pub(crate) fn way(&self) -> Option<Arc<Link>> {
        self.session.as_ref().map_or_else(|| Some(self.link.clone()), |session| session.way())
    }

    /// Whether the answer is wanted no more, for the function to know.
    pub(crate) fn tell_cancelled(&self) -> bool {
        let is_cancelled =
            self.cancelled.load(Ordering::Relaxed) || self.connection.shared.lifecycle.is_cancelling();
        if is_cancelled {
            self.knows_cancelled.store(true, Ordering::Relaxed);
        }
        is_cancelled
    }

    /// Whether the function was told that its answer is wanted no more.
    pub(crate) fn knows_cancelled(&self) -> bool {
        self.knows_cancelled.load(Ordering::Relaxed)
    }

    /// Whether the caller has stopped waiting by `now`.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Refuses a call that did not start in time.
    pub(crate) fn refuse_late(&self) {
        self.refuse(&late());
    }

    /// Sends a result. Only the first answer of a call goes out.
    pub(crate) fn answer(&self, message: Message) {
        self.send(message, &self.connection.shared.counters.answered);
    }

    /// Sends an error. Only the first answer of a call goes out.
    pub(crate) fn refuse(&self, error: &RemoteError) {
        self.send(Message::error(error), &self.connection.shared.counters.failed);
    }

    fn send(&self, message: Message, counter: &Counter) {
        // First, so that who has the answer finds it counted.
        counter.add();
        let is_wanted = match &self.session {
            Some(session) => {
                session.ended(self.id, message, |bytes| self.connection.shared.sessions.room(bytes))
            }
            None => {
                self.connection.forget(self.id);
                self.link.closed().is_none() && self.link.answer(self.id, message).is_ok()
            }
        };
        // The connection is over, the call was answered at closing, or it was given up.
        if !is_wanted {
            counter.take_back();
        }
    }
}

impl Waiting for OpenCall {
    fn connection(&self) -> usize {
        self.link.key()
    }

    /// In the order of logs, where a done function is to have some.
    fn needs_place(&self) -> bool {
        self.method.done.is_some()
    }

    fn is_alive(&self) -> bool {
        self.waits()
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn seat(&self) -> &Seat {
        &self.seat
    }
}
