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
use teleport_transport::wire::{RemoteError, Tree};
use teleport_transport::{Lease, Link};

use crate::call::caller::Caller;
use crate::call::reply_to::ReplyTo;
use crate::call::route::MethodInfo;
use crate::queue::fair_queue::{QueueMark, Queueable};
use crate::runtime::shared::Shared;
use crate::session::session::Session;

/// The arguments of a call, with the lease that pays for their memory until the function runs.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) tree: Tree,
    pub(crate) lease: Lease,
}

/// A call without an answer.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) id: u64,
    /// The link on which the call arrived.
    pub(crate) link: Arc<Link>,
    pub(crate) caller: Arc<Caller>,
    /// The session that keeps the answer, if the call survives its connection.
    pub(crate) session: Option<Arc<Session<OpenCall>>>,
    pub(crate) method: Arc<MethodInfo>,
    pub(crate) deadline: Option<Instant>,
    /// `CANCELLED` and `FUNCTION_KNOWS`.
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

impl OpenCall {
    /// Creates a call. One that runs at once has no `arguments`: it has started.
    pub(crate) fn new(
        reply: &ReplyTo<'_>,
        deadline: Option<Instant>,
        arguments: Option<Arguments>,
    ) -> Arc<OpenCall> {
        Arc::new(OpenCall {
            id: reply.id,
            link: reply.link.clone(),
            caller: reply.caller.clone(),
            session: reply.session.cloned(),
            method: reply.method.clone(),
            deadline,
            flags: AtomicU8::new(0),
            arguments: Mutex::new(arguments),
            queue_mark: QueueMark::default(),
            key: AtomicU64::new(0),
        })
    }

    /// Returns the destination of the answer.
    pub(crate) fn reply(&self) -> ReplyTo<'_> {
        let OpenCall { id, link, caller, session, method, .. } = self;
        ReplyTo { id: *id, link, caller, session: session.as_ref(), method }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.caller.shared
    }

    pub(crate) fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Relaxed);
    }

    pub(crate) fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
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

    /// Sends an error. Only the first answer of a call is sent.
    pub(crate) fn refuse(&self, error: &RemoteError) {
        self.reply().refuse(error);
    }
}

impl Queueable for OpenCall {
    fn connection(&self) -> usize {
        self.link.key()
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
        self.reply().throttled_by()
    }

    fn mark(&self) -> &QueueMark {
        &self.queue_mark
    }
}
