//! One run of a function: from its arguments to the answer and the logs.
//!
//! Flow: give the memory of the arguments to the function -> run it, with panics caught -> encode the result
//! -> answer -> leave the logs. All that may run a user's code is inside [`run_function`], for inline calls,
//! calls of a pool and batches alike. Never waits for a client: the poller sends what the socket does not
//! take at once.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::TurnClock;
use teleport_transport::wire::{Message, RemoteError};

use crate::api::functions::context::Context;
use crate::api::functions::method::{Body, Output};
use crate::call::open_call::{Arguments, OpenCall};
use crate::call::refusal::{late, unsendable};
use crate::call::reply_to::ReplyTo;
use crate::exec::done::{LogSlot, Logs};
use crate::exec::failures::function_failed;
use crate::exec::panic::catch;
use crate::runtime::counters::{Counted, Counters};

/// The log warns of inline calls that take longer, since they hold up every connection of their poller.
const MAX_INLINE_TIME: Duration = Duration::from_millis(10);

/// A call that is about to run.
#[derive(Debug)]
pub(crate) struct Starting<'a> {
    reply: ReplyTo<'a>,
    deadline: Option<Instant>,
    /// The call, if other threads know it.
    known: Option<&'a Arc<OpenCall>>,
    /// Created when the function asks for the context of a call that only this thread knows.
    created: OnceCell<Arc<OpenCall>>,
}

impl<'a> Starting<'a> {
    /// Returns a call that runs as soon as it has arrived.
    pub(crate) fn at_once(reply: ReplyTo<'a>, deadline: Option<Instant>) -> Starting<'a> {
        Starting { reply, deadline, known: None, created: OnceCell::new() }
    }

    /// Returns a call that has waited.
    pub(crate) fn known(call: &'a Arc<OpenCall>) -> Starting<'a> {
        let (reply, deadline) = (call.reply(), call.deadline);
        Starting { reply, deadline, known: Some(call), created: OnceCell::new() }
    }

    fn context(&self) -> Context {
        let create = || OpenCall::new(&self.reply, self.deadline);
        Context::new(self.known.unwrap_or_else(|| self.created.get_or_init(create)).clone())
    }

    fn fail(&self, error: RemoteError) {
        let knows_cancelled = self.known.or(self.created.get()).is_some_and(|call| call.knows_cancelled());
        function_failed(&self.reply, knows_cancelled, error);
    }
}

/// Runs a call on the poller's thread.
pub(crate) fn run_inline(function: &Body, call: &Starting<'_>, arguments: Arguments, clock: &mut TurnClock) {
    let ReplyTo { link, method, .. } = call.reply;
    // Earlier answers must not wait for a slow function. If a quick function is slow this time, they wait
    // anyway: only another thread could send them, and inline methods must not block.
    if !method.run_time.is_quick() {
        link.release_answers();
    }
    let start = clock.start();
    run(function, call, arguments, None, || start);
    let time = clock.end().saturating_duration_since(start);
    method.run_time.note(time);
    if time > MAX_INLINE_TIME && call.reply.shared().log_limit.allows() {
        let method = &*method.name;
        tracing::warn!(method, ?time, "an inline method holds up its poller: register it with `Method::new`");
    }
}

/// Runs a call, and answers it.
pub(crate) fn run(
    function: &Body,
    call: &Starting<'_>,
    Arguments { tree, lease }: Arguments,
    slot: Option<LogSlot>,
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
    let is_logged = slot.is_some();
    let outcome = run_function(&call.reply.shared().counters, 1, || {
        let Output { reply, logs } = function(tree, &|| call.context())?;
        Ok((Message::result(&reply, &call.reply.caller.limits), logs.filter(|_| is_logged)))
    });
    match outcome {
        Ok((message, logs)) => {
            match message {
                Ok(message) => call.reply.answer(message),
                Err(error) => call.fail(unsendable(&error)),
            }
            if let (Some(slot), Some(done), Some(tree)) = (slot, call.reply.method.done, logs) {
                slot.fill(Logs { done, tree });
            }
        }
        Err(error) => call.fail(error),
    }
}

/// Runs `function` for this many calls, and catches its panic.
///
/// # Errors
/// Returns the error for the callers: the function's own, or its panic.
pub(crate) fn run_function<T>(
    counters: &Counters,
    calls: usize,
    function: impl FnOnce() -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let counters = counters.here();
    counters.add_many(Counted::Running, calls);
    let outcome = catch(function);
    counters.take_back_many(Counted::Running, calls);
    outcome.unwrap_or_else(|panic| Err(panic.remote()))
}
