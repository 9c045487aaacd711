//! Threads that run functions, and what happens around one run.
//!
//! Flow: take a call from the pool's queue (a batch is run in `batch`) -> give its memory to the function -> run it, with its panic caught -> encode
//! the result -> answer -> leave the logs. A worker never waits for a client: what the socket does not take at once, the
//! poller sends. Bound: as many threads as were asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::wire::{EncodeError, ErrorKind, Message, Ran, RemoteError, Tree};

use crate::batch::{self, run::BatchCalls};
use crate::call::{Arguments, OpenCall};
use crate::context::Context;
use crate::core::Core;
use crate::done::{Logs, Place};
use crate::failure::{Panic, catch, failed};
use crate::method::{Body, NoOutput, Output};
use crate::queue::Work;

/// An inline method that takes longer holds up every connection of its poller; the log says so.
const MAX_INLINE_TIME: Duration = Duration::from_millis(10);

/// A thread that runs functions of one pool.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) thread: JoinHandle<()>,
    /// What it works on.
    pub(crate) desk: Arc<Mutex<Option<Job>>>,
}

/// What a worker works on.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Call(Arc<OpenCall>),
    Batch(Arc<BatchCalls>),
}

impl Job {
    pub(crate) fn calls(&self) -> &[Arc<OpenCall>] {
        match self {
            Job::Call(call) => std::slice::from_ref(call),
            Job::Batch(batch) => &batch.calls,
        }
    }

    pub(crate) fn method(&self) -> &str {
        self.calls().first().map_or("", |call| &call.entry.name)
    }
}

/// Counts a thread for as long as it lives.
#[derive(Debug)]
pub(crate) struct OnDuty {
    core: Arc<Core>,
    threads: Arc<AtomicUsize>,
}

impl OnDuty {
    pub(crate) fn new(core: &Arc<Core>, threads: &Arc<AtomicUsize>) -> OnDuty {
        threads.fetch_add(1, Ordering::SeqCst);
        OnDuty { core: core.clone(), threads: threads.clone() }
    }
}

impl Drop for OnDuty {
    fn drop(&mut self) {
        self.threads.fetch_sub(1, Ordering::SeqCst);
        self.core.lifecycle.notify();
    }
}

impl Worker {
    /// Starts worker `index` of a pool; it is counted in `threads` while it lives.
    pub(crate) fn start(
        core: &Arc<Core>,
        pool: usize,
        index: usize,
        threads: &Arc<AtomicUsize>,
    ) -> io::Result<Worker> {
        let name = match &core.table.pools[pool].method {
            // The system takes no zero bytes in a thread's name.
            Some(method) => format!("teleport-worker-{}-{index}", method.replace('\0', "?")),
            None => format!("teleport-worker-{index}"),
        };
        let desk = Arc::new(Mutex::new(None));
        let (on_duty, own_desk) = (OnDuty::new(core, threads), desk.clone());
        let work = move || {
            on_duty.core.lifecycle.own_this_thread();
            work(&on_duty.core, pool, &own_desk);
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Worker { thread, desk })
    }
}

fn work(core: &Arc<Core>, pool: usize, desk: &Mutex<Option<Job>>) {
    while let Some(work) = core.pools[pool].take(|| core.ledger.reserve()) {
        // Functions' panics are caught inside; those here are for what a result's memory does when it is dropped.
        match work {
            Work::Call(call, _) if call.peer.keeps(&call) => {}
            Work::Call(call, place) => {
                *desk.lock() = Some(Job::Call(call.clone()));
                if let Err(panic) = catch(|| run(core, &call, place)) {
                    core.function_failed(&call, panic.remote());
                }
            }
            Work::Batch(number, place) => {
                let batcher = core.batcher_in(pool, number);
                if let Err(panic) = catch(|| batch::run::run(core, batcher, place, desk)) {
                    let job = desk.lock().take();
                    core.batch_failed(job.as_ref().map_or(&[], Job::calls), panic.remote());
                }
            }
        }
        *desk.lock() = None;
    }
}

/// Runs a call on the poller's thread.
pub(crate) fn run_inline(core: &Arc<Core>, call: &Arc<OpenCall>) {
    // What waits for this one's answer would wait too long. One that was quick so far and blocks now keeps it all the same:
    // only another thread could send it, and inline methods must not block.
    if !call.entry.usual.is_quick() {
        call.link.release_answers();
    }
    let start = Instant::now();
    if let Err(panic) = catch(|| run(core, call, None)) {
        core.function_failed(call, panic.remote());
    }
    let time = start.elapsed();
    call.entry.usual.note(time);
    if time > MAX_INLINE_TIME && core.log_limit.allows() {
        let method = &*call.entry.name;
        tracing::warn!(method, ?time, "an inline method holds up its poller: register it with `Method::new`");
    }
}

/// A run's end: a message or why there is none, and the logs.
type Run = Result<(Result<Message, EncodeError>, Option<Tree>), NoOutput>;

fn run(core: &Core, call: &Arc<OpenCall>, place: Option<Place>) {
    // Withdrawn meanwhile.
    let Some(Arguments { tree, lease }) = call.claim() else { return };
    if call.deadline.is_some() && call.is_late(Instant::now()) {
        return call.refuse_late();
    }
    // From here on the memory is the function's: its caller may send more.
    drop(lease);
    core.counters.running.add();
    let Body::Tree(function) = &call.entry.function else {
        unreachable!("the table gives list functions to batched methods alone")
    };
    let run = catch(|| -> Run {
        let Output { reply, logs } = function(tree, Context::new(call.clone()))?;
        Ok((Message::result(&reply, &call.peer.limits()), logs))
    });
    core.counters.running.take_back();
    answer(core, call, run, place);
}

fn answer(core: &Core, call: &Arc<OpenCall>, run: Result<Run, Panic>, place: Option<Place>) {
    match run {
        Ok(Ok((message, logs))) => {
            match message {
                Ok(message) => call.answer(message),
                Err(error) => core.function_failed(call, unsendable(&error)),
            }
            if let (Some(place), Some(done), Some(tree)) = (place, call.entry.done, logs) {
                place.fill(Logs { done, tree });
            }
        }
        Ok(Err(NoOutput::Arguments(error))) => {
            core.function_failed(call, RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string()));
        }
        Ok(Err(NoOutput::Failed(error))) => core.function_failed(call, failed(&error)),
        Err(panic) => core.function_failed(call, panic.remote()),
    }
}

/// The function ran, but its caller does not accept the result.
pub(crate) fn unsendable(error: &EncodeError) -> RemoteError {
    let kind = match error {
        EncodeError::TooLarge { .. } | EncodeError::MetadataTooLarge { .. } => ErrorKind::TooLarge,
        _ => ErrorKind::Failed,
    };
    RemoteError::new(kind, Ran::Yes, format!("the result cannot be sent: {error}"))
}
