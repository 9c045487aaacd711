//! The threads of a pool, which run functions.
//!
//! Each takes a call or a batch from the pool's queue and runs it, until the queue is closed. Bound: the
//! configured number of threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::batch::batcher::Batcher;
use crate::batch::execute;
use crate::call::job::PoolQueue;
use crate::call::open_call::Arguments;
use crate::dispatcher::{Dispatcher, Queues};
use crate::exec::failures::batch_failed;
use crate::exec::panic::catch;
use crate::exec::run::{Starting, run_on_worker};
use crate::queue::pool::Work;
use crate::runtime::shared::Shared;

/// A thread that runs functions of one pool.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) thread: JoinHandle<()>,
    pub(crate) queue: Arc<PoolQueue>,
    /// The number of the worker in its pool.
    pub(crate) index: usize,
}

/// The state that the threads of one pool share.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    name: String,
    queue: Arc<PoolQueue>,
    /// The batchers of the pool, by their numbers in its queue.
    batchers: Vec<Arc<Batcher>>,
    dispatcher: Arc<Dispatcher>,
    /// Workers of all pools that have not ended.
    running: Arc<AtomicUsize>,
}

/// Counts a thread while it lives.
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

impl Pool {
    pub(crate) fn new(
        dispatcher: &Arc<Dispatcher>,
        queues: &Queues,
        pool: usize,
        running: &Arc<AtomicUsize>,
    ) -> Pool {
        let name = match &dispatcher.registry.pools[pool].method {
            // The system refuses zero bytes in a thread's name.
            Some(method) => format!("teleport-worker-{}", method.replace('\0', "?")),
            None => "teleport-worker".to_owned(),
        };
        // In the order of the registry, which determines their numbers.
        let batches = dispatcher.registry.batches.iter().zip(&queues.batchers);
        let batchers = batches.filter(|(plan, _)| plan.pool == pool).map(|(_, batcher)| batcher.clone());
        Pool {
            name,
            queue: queues.pools[pool].clone(),
            batchers: batchers.collect(),
            dispatcher: dispatcher.clone(),
            running: running.clone(),
        }
    }

    /// Starts worker `index` of the pool.
    pub(crate) fn start(&self, index: usize) -> io::Result<Worker> {
        let pool = self.clone();
        let running = RunningThread::new(&self.dispatcher.shared, &self.running);
        let work = move || {
            let _running = running;
            pool.dispatcher.shared.lifecycle.own_this_thread();
            pool.work(index);
        };
        let thread = thread::Builder::new().name(format!("{}-{index}", self.name)).spawn(work)?;
        Ok(Worker { thread, queue: self.queue.clone(), index })
    }

    fn work(&self, index: usize) {
        let Dispatcher { log_order, registry, .. } = &*self.dispatcher;
        while let Some(work) = self.queue.take(index, || log_order.reserve()) {
            match work {
                Work::Call(call, Arguments { mut tree, lease }, slot) => {
                    let function = registry.function(call.method());
                    let reply = call.reply();
                    run_on_worker(function, &Starting::known(&call, &reply), &mut tree, lease, slot);
                }
                Work::Batch(number, slot) => {
                    let batcher = &self.batchers[number];
                    let running = |calls: &_| self.queue.runs_batch(index, calls);
                    if let Err(panic) = catch(|| execute::run(registry, batcher, slot, running)) {
                        let job = self.queue.take_job(index);
                        batch_failed(&job.map(|job| job.calls()).unwrap_or_default(), panic.remote());
                    }
                }
            }
        }
    }
}
