//! One run of a function: from its arguments to the answer and the logs.
//!
//! Flow: give the memory of the arguments to the function -> run it -> encode the result -> answer -> leave
//! the logs. Panics are caught up to the answer. All that may run a user's code is inside [`run_function`],
//! for inline calls, calls of a pool and batches alike. Never waits for a client: the poller sends what the
//! socket does not take at once.

use std::cell::{Cell, OnceCell};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{RemoteError, Tree};
use teleport_transport::{Lease, Measured, TurnClock};

use crate::api::functions::context::Context;
use crate::api::functions::method::{Body, Purpose};
use crate::call::caller::Caller;
use crate::call::open_call::OpenCall;
use crate::call::refusal::{late, unsendable};
use crate::call::reply_to::ReplyTo;
use crate::call::route::MethodInfo;
use crate::exec::done::{LogSlot, Logs};
use crate::exec::failures::function_failed;
use crate::exec::panic::catch;
use crate::runtime::counters::{Counted, Counters, CountersHere};

/// The log warns of inline calls that take longer, alone or together with the quick ones that are measured
/// with them, since they hold up every connection of their poller.
const MAX_INLINE_TIME: Duration = Duration::from_millis(10);

/// A call that is about to run.
pub(crate) struct Starting<'a> {
    reply: &'a ReplyTo<'a>,
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
    pub(crate) fn at_once(reply: &'a ReplyTo<'a>, deadline: Option<Instant>) -> Starting<'a> {
        Starting { reply, deadline, known: None, created: OnceCell::new(), logs: Cell::new(None) }
    }

    /// Returns a call that has waited.
    pub(crate) fn known(call: &'a Arc<OpenCall>, reply: &'a ReplyTo<'a>) -> Starting<'a> {
        Starting { known: Some(call), ..Starting::at_once(reply, call.deadline) }
    }

    fn fail(&self, error: RemoteError) {
        let knows_cancelled = self.known.or(self.created.get()).is_some_and(|call| call.knows_cancelled());
        function_failed(self.reply, knows_cancelled, error);
    }
}

impl Purpose for Starting<'_> {
    fn context(&self) -> Context {
        let create = || OpenCall::new(self.reply, self.deadline);
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
    let ReplyTo { link, method, caller, .. } = call.reply;
    // Earlier answers must not wait for a slow function. If a quick function is slow this time, they wait
    // anyway: only another thread could send them, and inline methods must not block.
    let is_quick = method.run_time.is_quick();
    if !is_quick {
        link.release_answers();
    }
    note_time(caller, clock.begin(method.slot));
    // Quick functions that ran since then have hardly made the call later.
    let start = clock.start();
    run(function, call, arguments, lease, || start);
    if !is_quick {
        note_time(caller, clock.end());
    }
}

/// Notes how long inline calls took, whose kind is the slot of their method.
#[inline]
pub(crate) fn note_time(caller: &Caller, measured: Option<Measured>) {
    if let Some(Measured { kind, pieces, time }) = measured {
        let method = &caller.methods[kind as usize];
        method.run_time.note(pieces, time);
        if time > MAX_INLINE_TIME {
            log_slow(caller, method, time);
        }
    }
}

#[cold]
fn log_slow(caller: &Caller, method: &MethodInfo, time: Duration) {
    if caller.shared.log_limit.allows() {
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
    let outcome = run_function(&call.reply.shared().counters, 1, |running| {
        let reply = function(mem::take(arguments), call)?;
        // First, so that a caller that has the answer finds that nothing runs.
        drop(running);
        call.reply.result(&reply).map_err(|error| unsendable(&error))
    });
    if let Err(error) = outcome {
        call.fail(error);
    }
}

/// Counts calls whose function runs, until it is dropped.
pub(crate) struct Running<'a> {
    counters: CountersHere<'a>,
    calls: usize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counters.take_back_many(Counted::Running, self.calls);
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
    function: impl FnOnce(Running<'_>) -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let counters = counters.here();
    counters.add_many(Counted::Running, calls);
    let running = Running { counters, calls };
    // Set in place: what `catch` returns is moved several times.
    let mut outcome = None;
    let caught = catch(|| outcome = Some(function(running)));
    match (outcome, caught) {
        (Some(outcome), _) => outcome,
        (None, Err(panic)) => Err(panic.remote()),
        (None, Ok(())) => unreachable!("a function that did not panic has returned"),
    }
}
