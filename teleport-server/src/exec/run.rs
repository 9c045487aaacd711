//! One run of a function: from its arguments to the answer and the logs.
//!
//! Flow: claim the arguments -> give their memory to the function -> run it, with panics caught -> encode the
//! result -> answer -> leave the logs. Batches run in `batch::execute`. Never waits for a client: the poller
//! sends what the socket does not take at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_transport::wire::{EncodeError, ErrorKind, Message, Ran, RemoteError, Tree};

use crate::api::error::failed;
use crate::api::functions::context::Context;
use crate::api::functions::method::{Body, NoOutput, Output};
use crate::call::open_call::{Arguments, OpenCall};
use crate::call::refusal::unsendable;
use crate::exec::done::{LogSlot, Logs};
use crate::exec::failures::function_failed;
use crate::exec::panic::{Panic, catch};

/// The log warns of inline calls that take longer, since they hold up every connection of their poller.
const MAX_INLINE_TIME: Duration = Duration::from_millis(10);

/// Runs a call on the poller's thread.
pub(crate) fn run_inline(function: &Body, call: &Arc<OpenCall>) {
    let method = &call.method;
    // Earlier answers must not wait for a slow function. If a quick function is slow this time, they wait
    // anyway: only another thread could send them, and inline methods must not block.
    if !method.run_time.is_quick() {
        call.reply.link.release_answers();
    }
    let start = Instant::now();
    run(function, call, None);
    let time = start.elapsed();
    method.run_time.note(time);
    if time > MAX_INLINE_TIME && call.shared().log_limit.allows() {
        let method = &*method.name;
        tracing::warn!(method, ?time, "an inline method holds up its poller: register it with `Method::new`");
    }
}

/// Runs a call. Answers it even if dropping the memory of its arguments or result panics.
pub(crate) fn run(function: &Body, call: &Arc<OpenCall>, slot: Option<LogSlot>) {
    if let Err(panic) = catch(|| try_run(function, call, slot)) {
        function_failed(call, panic.remote());
    }
}

/// A message or the error of its encoding, and the logs.
type Run = Result<(Result<Message, EncodeError>, Option<Tree>), NoOutput>;

fn try_run(function: &Body, call: &Arc<OpenCall>, slot: Option<LogSlot>) {
    // Withdrawn calls have no arguments.
    let Some(Arguments { tree, lease }) = call.claim() else { return };
    if call.deadline.is_some() && call.is_late(Instant::now()) {
        return call.refuse_late();
    }
    // From now on the memory belongs to the function, and the client may send more.
    drop(lease);
    let counters = &call.shared().counters;
    counters.running.add();
    let Body::Tree(function) = function else {
        unreachable!("the registry gives list functions to batched methods only")
    };
    let run = catch(|| -> Run {
        let Output { reply, logs } = function(tree, Context::new(call.clone()))?;
        Ok((Message::result(&reply, &call.reply.caller.limits), logs))
    });
    counters.running.take_back();
    answer(call, run, slot);
}

fn answer(call: &OpenCall, run: Result<Run, Panic>, slot: Option<LogSlot>) {
    match run {
        Ok(Ok((message, logs))) => {
            match message {
                Ok(message) => call.answer(message),
                Err(error) => function_failed(call, unsendable(&error)),
            }
            if let (Some(slot), Some(done), Some(tree)) = (slot, call.method.done, logs) {
                slot.fill(Logs { done, tree });
            }
        }
        Ok(Err(NoOutput::Arguments(error))) => {
            function_failed(call, RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string()));
        }
        Ok(Err(NoOutput::Failed(error))) => function_failed(call, failed(&error)),
        Err(panic) => function_failed(call, panic.remote()),
    }
}
