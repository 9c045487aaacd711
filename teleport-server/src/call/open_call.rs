//! A call from its arrival to its answer.
//!
//! Flow: `OpenCall::new` (the call arrived) -> a queue -> `claim`, by a worker or by the thread that
//! withdraws the call -> `answer`. Only one thread can claim the arguments, and that thread decides whether
//! the function runs. So a withdrawn call frees its memory at once, wherever it is queued.
//!
//! A call refers to what its answer needs, and to nothing that owns calls: neither a queue nor the server.
//! Never waits. Bound: the calls that a client may have open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use teleport_transport::wire::{Message, RemoteError, Tree};
use teleport_transport::{Lease, Link};

use crate::call::caller::Caller;
use crate::call::refusal::late;
use crate::call::route::MethodInfo;
use crate::queue::fair_queue::{QueueMark, Queueable};
use crate::runtime::counters::Counter;
use crate::runtime::shared::Shared;
use crate::session::session::Session;

/// The arguments of a call, with the lease that pays for their memory until the function runs.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) tree: Tree,
    pub(crate) lease: Lease,
}

/// The destination of a call's answer.
#[derive(Debug)]
pub(crate) struct ReplyTo {
    /// The link on which the call arrived.
    pub(crate) link: Arc<Link>,
    pub(crate) caller: Arc<Caller>,
    /// The session that keeps the answer, if the call survives its connection.
    pub(crate) session: Option<Arc<Session<OpenCall>>>,
}

impl ReplyTo {
    /// Calls `function` with the link for the answer. Returns `None` while the client has no connection.
    pub(crate) fn with_link<T>(&self, function: impl FnOnce(&Arc<Link>) -> T) -> Option<T> {
        match &self.session {
            None => Some(function(&self.link)),
            Some(session) => session.link().map(|link| function(&link)),
        }
    }

    /// Returns true if the answer would wait for a long time before it is sent.
    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        // Without a connection the answer is kept for the next one.
        self.with_link(|link| self.caller.slow_reader.is_slow(link, now)).unwrap_or(true)
    }

    /// Returns true if the client has left too many results unfetched for another call to start.
    ///
    /// A client without a connection fetches nothing, and answers that are kept for it have their own bound.
    pub(crate) fn is_past_quota(&self) -> bool {
        let unsent = self.with_link(|link| link.unsent_bytes());
        self.caller.shared.is_past_quota(unsent.unwrap_or_default())
    }

    /// Returns the key of the client's link if [`is_past_quota`](ReplyTo::is_past_quota).
    ///
    /// `Dispatcher::release` is called for this link when half of the quota is free, so that not each sent
    /// chunk starts one call, or when the link ends.
    pub(crate) fn throttled_by(&self) -> Option<usize> {
        let throttled_by = self.with_link(|link| {
            let (shared, unsent) = (&self.caller.shared, link.unsent_bytes());
            if !shared.is_past_quota(unsent) {
                return None;
            }
            link.await_drain(shared.quota(unsent).half());
            link.closed().is_none().then(|| link.key())
        });
        throttled_by.flatten()
    }
}

/// A call without an answer.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) id: u64,
    pub(crate) reply: ReplyTo,
    pub(crate) method: Arc<MethodInfo>,
    pub(crate) deadline: Option<Instant>,
    /// `CANCELLED`, `FUNCTION_KNOWS` and `IN_TABLE`.
    flags: AtomicU8,
    /// Present until the call starts or is withdrawn.
    arguments: Mutex<Option<Arguments>>,
    /// Set while the call is in its pool's queue.
    queue_mark: QueueMark,
    /// The call's number in its batcher; written before another thread can find the call there.
    key: AtomicU64,
}

/// The caller is gone, or wants no answer.
const CANCELLED: u8 = 1;

/// The function asked whether the call is cancelled, and got the answer yes.
const FUNCTION_KNOWS: u8 = 2;

/// The call is in the caller's table of open calls.
const IN_TABLE: u8 = 4;

impl OpenCall {
    pub(crate) fn new(
        id: u64,
        reply: ReplyTo,
        method: Arc<MethodInfo>,
        deadline: Option<Instant>,
        arguments: Arguments,
    ) -> OpenCall {
        OpenCall {
            id,
            reply,
            method,
            deadline,
            flags: AtomicU8::new(0),
            arguments: Mutex::new(Some(arguments)),
            queue_mark: QueueMark::default(),
            key: AtomicU64::new(0),
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.reply.caller.shared
    }

    pub(crate) fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Relaxed);
    }

    pub(crate) fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// Adds the call to the caller's table, where the client can cancel it and the end of the connection
    /// finds it. A session keeps its own calls.
    ///
    /// An inline call is added only if it is throttled. Otherwise it is answered before anything else
    /// happens on its connection.
    pub(crate) fn add_to_table(self: &Arc<Self>) {
        if self.reply.session.is_none() {
            // No other thread has the call yet.
            self.flags.store(IN_TABLE, Ordering::Relaxed);
            self.reply.caller.opened(self);
        }
    }

    /// Takes the arguments. Only the first caller gets them, and decides whether the function runs.
    pub(crate) fn claim(&self) -> Option<Arguments> {
        self.arguments.lock().take()
    }

    /// Returns true if the call has neither started nor been withdrawn.
    pub(crate) fn is_unclaimed(&self) -> bool {
        self.arguments.lock().is_some()
    }

    /// Marks the call as cancelled, for its running function.
    pub(crate) fn cancel(&self) {
        self.flags.fetch_or(CANCELLED, Ordering::Relaxed);
    }

    /// Returns true if the function should give up, and remembers that it knows.
    pub(crate) fn tell_cancelled(&self) -> bool {
        let is_cancelled =
            self.flags.load(Ordering::Relaxed) & CANCELLED != 0 || self.shared().lifecycle.is_cancelling();
        if is_cancelled {
            self.flags.fetch_or(FUNCTION_KNOWS, Ordering::Relaxed);
        }
        is_cancelled
    }

    /// Returns true if the function knows that it should give up.
    pub(crate) fn knows_cancelled(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & FUNCTION_KNOWS != 0
    }

    /// Returns true if the caller has stopped waiting by `now`.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Refuses a call that did not start in time.
    pub(crate) fn refuse_late(&self) {
        self.refuse(&late());
    }

    /// Sends a result. Only the first answer of a call is sent.
    pub(crate) fn answer(&self, message: Message) {
        self.send(message, &self.shared().counters.answered);
    }

    /// Sends an error. Only the first answer of a call is sent.
    pub(crate) fn refuse(&self, error: &RemoteError) {
        self.send(Message::error(error), &self.shared().counters.failed);
    }

    fn send(&self, message: Message, counter: &Counter) {
        // Before the answer, so that it is counted when the caller gets it.
        counter.add();
        let ReplyTo { link, caller, session } = &self.reply;
        if self.flags.load(Ordering::Relaxed) & IN_TABLE != 0 {
            caller.answered(self.id);
        }
        let is_wanted = match session {
            Some(session) => session.ended(self.id, message),
            None => link.closed().is_none() && link.answer(self.id, message).is_ok(),
        };
        // The connection is over, or the call was answered or withdrawn before.
        if !is_wanted {
            counter.take_back();
        }
    }
}

impl Queueable for OpenCall {
    fn connection(&self) -> usize {
        self.reply.link.key()
    }

    fn needs_slot(&self) -> bool {
        self.method.done.is_some()
    }

    fn is_alive(&self) -> bool {
        self.is_unclaimed()
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn throttled_by(&self) -> Option<usize> {
        self.reply.throttled_by()
    }

    fn mark(&self) -> &QueueMark {
        &self.queue_mark
    }
}
