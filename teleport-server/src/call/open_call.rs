//! A call that does not run at once, from its arrival to its answer.
//!
//! Flow: `OpenCall::new` (the call arrived) -> a queue or a batcher, with the call's arguments -> the
//! function -> `reply`. The thread that removes the call from its queue or batcher gets the arguments, and
//! decides whether the function runs. So a withdrawn call frees its memory at once, wherever it is queued.
//!
//! A call refers to what its answer needs, and to nothing that owns calls: neither a queue nor the server.
//! Never waits. Bound: the calls that a client may have open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use teleport_transport::wire::{RemoteError, Tree};
use teleport_transport::{Lease, Link};

use crate::call::caller::Caller;
use crate::call::reply_to::ReplyTo;
use crate::call::route::MethodInfo;
use crate::queue::fair_queue::{QueuePlace, Queueable};
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
    /// The number of its method.
    slot: u32,
    pub(crate) deadline: Option<Instant>,
    /// `CANCELLED` and `FUNCTION_KNOWS`.
    flags: AtomicU8,
    /// Where the call is in its queue or batcher.
    place: QueuePlace,
}

/// The caller is gone, or wants no answer.
const CANCELLED: u8 = 1;

/// The function asked whether the call is cancelled, and got the answer yes.
const FUNCTION_KNOWS: u8 = 2;

impl OpenCall {
    pub(crate) fn new(reply: &ReplyTo<'_>, deadline: Option<Instant>) -> Arc<OpenCall> {
        Arc::new(OpenCall {
            id: reply.id,
            link: reply.link.clone(),
            caller: reply.caller.clone(),
            session: reply.session.cloned(),
            slot: reply.method.slot,
            deadline,
            flags: AtomicU8::new(0),
            place: QueuePlace::default(),
        })
    }

    /// Returns the destination of the answer.
    pub(crate) fn reply(&self) -> ReplyTo<'_> {
        let OpenCall { id, link, caller, session, .. } = self;
        ReplyTo { id: *id, link, caller, session: session.as_ref(), method: self.method() }
    }

    pub(crate) fn method(&self) -> &MethodInfo {
        &self.caller.methods[self.slot as usize]
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.caller.shared
    }

    /// Marks the call as withdrawn: its running function should give up. If it is not queued yet, it will not
    /// be.
    pub(crate) fn cancel(&self) {
        self.flags.fetch_or(CANCELLED, Ordering::Relaxed);
    }

    /// Returns true if the function should give up, and remembers that it knows.
    pub(crate) fn tell_cancelled(&self) -> bool {
        let is_cancelled = self.is_cancelled() || self.shared().lifecycle.is_cancelling();
        if is_cancelled {
            self.flags.fetch_or(FUNCTION_KNOWS, Ordering::Relaxed);
        }
        is_cancelled
    }

    /// Returns true if the function knows that it should give up.
    pub(crate) fn knows_cancelled(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & FUNCTION_KNOWS != 0
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & CANCELLED != 0
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
    type Arguments = Arguments;

    fn connection(&self) -> usize {
        self.link.key()
    }

    fn needs_slot(&self) -> bool {
        self.method().done.is_some()
    }

    fn is_withdrawn(&self) -> bool {
        self.is_cancelled()
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn throttled_by(&self) -> Option<usize> {
        self.reply().throttled_by()
    }

    fn place(&self) -> &QueuePlace {
        &self.place
    }
}
