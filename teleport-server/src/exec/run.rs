//! One run of a function: from its arguments to the answer and the logs.
//!
//! Flow: give the memory of the arguments to the function -> run it, with panics caught -> encode the result
//! -> answer -> leave the logs. All that may run a user's code is inside [`run_function`], for inline calls,
//! calls of a pool and batches alike. Never waits for a client: the poller sends what the socket does not
//! take at once.

use std::cell::{Cell, OnceCell};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{Message, RemoteError, Tree};
use teleport_transport::{Lease, TurnClock};

use crate::api::functions::context::Context;
use crate::api::functions::method::{Body, Purpose};
use crate::call::open_call::OpenCall;
use crate::call::refusal::{late, unsendable};
use crate::call::reply_to::ReplyTo;
use crate::exec::done::{LogSlot, Logs};
use crate::exec::failures::function_failed;
use crate::exec::panic::catch;
use crate::runtime::counters::{Counted, Counters};

/// The log warns of inline calls that take longer, since they hold up every connection of their poller.
const MAX_INLINE_TIME: Duration = Duration::from_millis(10);

/// A call that is about to run.
pub(crate) struct Starting<'a> {
    reply: ReplyTo<'a>,
    deadline: Option<Instant>,
    /// The call, if other threads know it.
    known: Option<&'a Arc<OpenCall>>,
    /// Created when the function asks for the context of a call that only this thread knows.
    created: OnceCell<Arc<OpenCall>>,
    /// Left by the function, if its method is logged.
    logs: Cell<Option<Tree>>,
}

impl<'a> Starting<'a> {
    /// Returns a call that runs as soon as it has arrived.
    pub(crate) fn at_once(reply: ReplyTo<'a>, deadline: Option<Instant>) -> Starting<'a> {
        Starting { reply, deadline, known: None, created: OnceCell::new(), logs: Cell::new(None) }
    }

    /// Returns a call that has waited.
    pub(crate) fn known(call: &'a Arc<OpenCall>) -> Starting<'a> {
        Starting { known: Some(call), ..Starting::at_once(call.reply(), call.deadline) }
    }

    fn fail(&self, error: RemoteError) {
        let knows_cancelled = self.known.or(self.created.get()).is_some_and(|call| call.knows_cancelled());
        function_failed(&self.reply, knows_cancelled, error);
    }
}

impl Purpose for Starting<'_> {
    fn context(&self) -> Context {
        let create = || OpenCall::new(&self.reply, self.deadline);
        Context::new(self.known.unwrap_or_else(|| self.created.get_or_init(create)).clone())
    }

    fn keep_logs(&self, logs: Tree) {
        self.logs.set(Some(logs));
    }
}

/// Runs a call on the poller's thread. Takes the `arguments`.
pub(crate) fn run_inline(
    function: &Body,
    call: &Starting<'_>,
    arguments: &mut Tree,
    lease: Lease,
    clock: &mut TurnClock,
) {
    let ReplyTo { link, method, .. } = call.reply;
    // Earlier answers must not wait for a slow function. If a quick function is slow this time, they wait
    // anyway: only another thread could send them, and inline methods must not block.
    if !method.run_time.is_quick() {
        link.release_answers();
    }
    let start = clock.start();
    run(function, call, arguments, lease, || start);
    let time = clock.end().saturating_duration_since(start);
    method.run_time.note(time);
    if time > MAX_INLINE_TIME && call.reply.shared().log_limit.allows() {
        let method = &*method.name;
        tracing::warn!(method, ?time, "an inline method holds up its poller: register it with `Method::new`");
    }
}

/// Runs a call on a worker, and leaves its logs in its `slot`, if it has one. Takes the `arguments`.
pub(crate) fn run_on_worker(
    function: &Body,
    call: &Starting<'_>,
    arguments: &mut Tree,
    lease: Lease,
    slot: Option<LogSlot>,
) {
    run(function, call, arguments, lease, Instant::now);
    if let (Some(slot), Some(done), Some(tree)) = (slot, call.reply.method.done, call.logs.take()) {
        slot.fill(Logs { done, tree });
    }
}

/// Runs a call, and answers it.
///
/// The arguments and the result stay where they are: each move of them costs as much as all counters.
#[inline]
fn run(
    function: &Body,
    call: &Starting<'_>,
    arguments: &mut Tree,
    lease: Lease,
    now: impl FnOnce() -> Instant,
) {
    if call.deadline.is_some_and(|deadline| deadline <= now()) {
        return call.reply.refuse(&late());
    }
    // From now on the memory belongs to the function, and the client may send more.
    drop(lease);
    let Body::Tree(function) = function else {
        unreachable!("the registry gives list functions to batched methods only")
    };
    let outcome = run_function(&call.reply.shared().counters, 1, || {
        let reply = function(mem::take(arguments), call)?;
        Message::result(&reply, &call.reply.caller.limits).map_err(|error| unsendable(&error))
    });
    match outcome {
        Ok(message) => call.reply.answer(message),
        Err(error) => call.fail(error),
    }
}

/// Runs `function` for this many calls, and catches its panic.
///
/// # Errors
/// Returns the error for the callers: the function's own, or its panic.
#[inline]
pub(crate) fn run_function<T>(
    counters: &Counters,
    calls: usize,
    function: impl FnOnce() -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let counters = counters.here();
    // Set in place: what `catch` returns is moved several times.
    let mut outcome = None;
    counters.add_many(Counted::Running, calls);
    let caught = catch(|| outcome = Some(function()));
    counters.take_back_many(Counted::Running, calls);
    match (outcome, caught) {
        (Some(outcome), _) => outcome,
        (None, Err(panic)) => Err(panic.remote()),
        (None, Ok(())) => unreachable!("a function that did not panic has returned"),
    }
}
