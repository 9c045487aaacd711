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

use crate::api::context::Context;
use crate::api::error::failed;
use crate::api::method::{Body, NoOutput, Output};
use crate::batch::execute;
use crate::call::{Arguments, OpenCall};
use crate::exec::done::{LogSlot, Logs};
use crate::exec::job::Job;
use crate::exec::panic::{Panic, catch};
use crate::exec::queue::Work;
use crate::refusal::unsendable;
use crate::runtime::shared::Shared;

/// An inline method that takes longer holds up every connection of its poller; the log says so.
const MAX_INLINE_TIME: Duration = Duration::from_millis(10);

/// A thread that runs functions of one pool.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) thread: JoinHandle<()>,
    /// What it works on.
    pub(crate) current_job: Arc<Mutex<Option<Job>>>,
}

/// Counts a thread for as long as it lives.
#[derive(Debug)]
pub(crate) struct RunningThread {
    shared: Arc<Shared>,
    threads: Arc<AtomicUsize>,
}

impl RunningThread {
    pub(crate) fn new(shared: &Arc<Shared>, threads: &Arc<AtomicUsize>) -> RunningThread {
        threads.fetch_add(1, Ordering::SeqCst);
        RunningThread { shared: shared.clone(), threads: threads.clone() }
    }
}

impl Drop for RunningThread {
    fn drop(&mut self) {
        self.threads.fetch_sub(1, Ordering::SeqCst);
        self.shared.lifecycle.notify();
    }
}

impl Worker {
    /// Starts worker `index` of a pool; it is counted in `threads` while it lives.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        pool: usize,
        index: usize,
        threads: &Arc<AtomicUsize>,
    ) -> io::Result<Worker> {
        let name = match &shared.registry.pools[pool].method {
            // The system takes no zero bytes in a thread's name.
            Some(method) => format!("teleport-worker-{}-{index}", method.replace('\0', "?")),
            None => format!("teleport-worker-{index}"),
        };
        let current_job = Arc::new(Mutex::new(None));
        let (running, own_job) = (RunningThread::new(shared, threads), current_job.clone());
        let work = move || {
            running.shared.lifecycle.own_this_thread();
            work(&running.shared, pool, &own_job);
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        Ok(Worker { thread, current_job })
    }
}

fn work(shared: &Arc<Shared>, pool: usize, current_job: &Mutex<Option<Job>>) {
    while let Some(work) = shared.pools[pool].take(|| shared.ledger.reserve()) {
        // Functions' panics are caught inside; those here are for what a result's memory does when it is dropped.
        match work {
            Work::Call(call, _) if call.connection.keeps(&call) => {}
            Work::Call(call, slot) => {
                *current_job.lock() = Some(Job::Call(call.clone()));
                if let Err(panic) = catch(|| run(shared, &call, slot)) {
                    shared.function_failed(&call, panic.remote());
                }
            }
            Work::Batch(number, slot) => {
                let batcher = shared.batcher_in(pool, number);
                if let Err(panic) = catch(|| execute::run(shared, batcher, slot, current_job)) {
                    let job = current_job.lock().take();
                    shared.batch_failed(job.as_ref().map_or(&[], Job::calls), panic.remote());
                }
            }
        }
        *current_job.lock() = None;
    }
}

/// Runs a call on the poller's thread.
pub(crate) fn run_inline(shared: &Arc<Shared>, call: &Arc<OpenCall>) {
    // What waits for this one's answer would wait too long. One that was quick so far and blocks now keeps it all the same:
    // only another thread could send it, and inline methods must not block.
    if !call.method.run_time.is_quick() {
        call.link.release_answers();
    }
    let start = Instant::now();
    if let Err(panic) = catch(|| run(shared, call, None)) {
        shared.function_failed(call, panic.remote());
    }
    let time = start.elapsed();
    call.method.run_time.note(time);
    if time > MAX_INLINE_TIME && shared.log_limit.allows() {
        let method = &*call.method.name;
        tracing::warn!(method, ?time, "an inline method holds up its poller: register it with `Method::new`");
    }
}

/// A run's end: a message or why there is none, and the logs.
type Run = Result<(Result<Message, EncodeError>, Option<Tree>), NoOutput>;

fn run(shared: &Shared, call: &Arc<OpenCall>, slot: Option<LogSlot>) {
    // Withdrawn meanwhile.
    let Some(Arguments { tree, lease }) = call.claim() else { return };
    if call.deadline.is_some() && call.is_late(Instant::now()) {
        return call.refuse_late();
    }
    // From here on the memory is the function's: its caller may send more.
    drop(lease);
    shared.counters.running.add();
    let Body::Tree(function) = &call.method.function else {
        unreachable!("the registry gives list functions to batched methods alone")
    };
    let run = catch(|| -> Run {
        let Output { reply, logs } = function(tree, Context::new(call.clone()))?;
        Ok((Message::result(&reply, &call.connection.limits()), logs))
    });
    shared.counters.running.take_back();
    answer(shared, call, run, slot);
}

fn answer(shared: &Shared, call: &Arc<OpenCall>, run: Result<Run, Panic>, slot: Option<LogSlot>) {
    match run {
        Ok(Ok((message, logs))) => {
            match message {
                Ok(message) => call.answer(message),
                Err(error) => shared.function_failed(call, unsendable(&error)),
            }
            if let (Some(slot), Some(done), Some(tree)) = (slot, call.method.done, logs) {
                slot.fill(Logs { done, tree });
            }
        }
        Ok(Err(NoOutput::Arguments(error))) => {
            shared
                .function_failed(call, RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string()));
        }
        Ok(Err(NoOutput::Failed(error))) => shared.function_failed(call, failed(&error)),
        Err(panic) => shared.function_failed(call, panic.remote()),
    }
}
