//! The threads of a running server, and the supervisor that ends them in order.
//!
//! Flow: `Threads::spawn` starts pollers, workers and the done thread -> the supervisor sleeps until a call's
//! deadline passes, a session expires, or the server must close -> no new connections and no new calls ->
//! queued calls are refused -> running calls end, or are given up when the time is over -> goodbyes ->
//! pollers end. All steps share the time to close. A step without time left gets `GRACE`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use teleport_transport::wire::{ErrorKind, Ran, RemoteError};
use teleport_transport::{Listener, Listening, PollerThread};

use crate::api::error::{ServeError, full_text};
use crate::api::options::DoneFunction;
use crate::call::refusal::closing;
use crate::connection::accept::ConnectionAcceptor;
use crate::dispatcher::{Dispatcher, Queues};
use crate::exec::failures::done_failed;
use crate::exec::panic::catch;
use crate::threads::worker::{Pool, RunningThread, Worker};

/// The extra time after the time to close for each of these: functions that notice that they are cancelled,
/// done functions that take the last logs, clients that read a goodbye, and pollers that end.
const GRACE: Duration = Duration::from_secs(1);

/// The time for results to be sent if closing has no time limit.
const MAX_GOODBYE: Duration = Duration::from_secs(3600);

/// All threads of a server except the supervisor.
#[derive(Debug)]
pub(crate) struct Threads {
    dispatcher: Arc<Dispatcher>,
    queues: Arc<Queues>,
    listening: Listening,
    pollers: Vec<PollerThread>,
    workers: Vec<Worker>,
    done: Option<JoinHandle<()>>,
    /// Workers that have not ended.
    working: Arc<AtomicUsize>,
    /// 1 while the done thread has not ended.
    done_working: Arc<AtomicUsize>,
}

impl Threads {
    /// Starts all threads. Clients can connect when the last has started.
    pub(crate) fn spawn(
        dispatcher: &Arc<Dispatcher>,
        queues: &Arc<Queues>,
        acceptor: ConnectionAcceptor,
        listener: Listener,
        pollers: Vec<PollerThread>,
        done: Vec<DoneFunction>,
    ) -> Result<Threads, ServeError> {
        let threads = Threads::try_spawn(dispatcher, queues, acceptor, listener, pollers, done);
        threads.inspect_err(|_| dismiss(dispatcher, queues))
    }

    fn try_spawn(
        dispatcher: &Arc<Dispatcher>,
        queues: &Arc<Queues>,
        acceptor: ConnectionAcceptor,
        listener: Listener,
        pollers: Vec<PollerThread>,
        functions: Vec<DoneFunction>,
    ) -> Result<Threads, ServeError> {
        let (working, done_working) = (Arc::default(), Arc::default());
        let mut workers = Vec::new();
        for (index, plan) in dispatcher.registry.pools.iter().enumerate() {
            let pool = Pool::new(dispatcher, queues, index, &working);
            for index in 0..plan.workers {
                workers.push(pool.start(index).map_err(cannot("a worker thread"))?);
            }
        }
        let mut done = None;
        if !functions.is_empty() {
            let started = start_done(dispatcher, queues, functions, &done_working);
            done = Some(started.map_err(cannot("the thread of the done functions"))?);
        }
        // There is at least one poller.
        let listening = pollers[0].poller().listen(listener, Arc::new(acceptor));
        let listening = listening.map_err(cannot("listening"))?;
        let (dispatcher, queues) = (dispatcher.clone(), queues.clone());
        Ok(Threads { dispatcher, queues, listening, pollers, workers, done, working, done_working })
    }
}

/// Ends the threads of a server that fails to start: they have no work.
fn dismiss(dispatcher: &Dispatcher, queues: &Queues) {
    queues.pools.iter().for_each(|pool| drop(pool.close()));
    dispatcher.log_order.abandon();
}

fn cannot(what: &str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Io { what: what.to_owned(), source }
}

/// Starts this many pollers, at least one.
pub(crate) fn start_pollers(count: usize) -> Result<Vec<PollerThread>, ServeError> {
    let start = |index| PollerThread::start(&format!("teleport-io-{index}"));
    (0..count.max(1)).map(start).collect::<io::Result<_>>().map_err(cannot("an I/O thread"))
}

fn start_done(
    dispatcher: &Arc<Dispatcher>,
    queues: &Arc<Queues>,
    mut functions: Vec<DoneFunction>,
    threads: &Arc<AtomicUsize>,
) -> io::Result<JoinHandle<()>> {
    let running = RunningThread::new(&dispatcher.shared, threads);
    let (dispatcher, queues) = (dispatcher.clone(), queues.clone());
    let run = move || {
        let _running = running;
        let shared = &dispatcher.shared;
        shared.lifecycle.own_this_thread();
        let freed = || queues.pools.iter().for_each(|pool| pool.slots_freed());
        while let Some(logs) = dispatcher.log_order.next(freed) {
            let DoneFunction { method, function } = &mut functions[logs.done];
            match catch(|| function(logs.tree)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => done_failed(shared, method, full_text(&*error)),
                Err(panic) => done_failed(shared, method, panic.to_string()),
            }
        }
    };
    thread::Builder::new().name("teleport-done".to_owned()).spawn(run)
}

/// Starts the supervisor's thread.
pub(crate) fn supervise(threads: Threads) -> Result<(), ServeError> {
    let name = "teleport-server".to_owned();
    // No thread joins it. Owners wait for the lifecycle, which it uses last.
    supervise_on(threads, |run| thread::Builder::new().name(name).spawn(run).map(drop))
}

fn supervise_on(
    threads: Threads,
    start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) -> Result<(), ServeError> {
    let (dispatcher, queues) = (threads.dispatcher.clone(), threads.queues.clone());
    let run = move || {
        let dispatcher = threads.dispatcher.clone();
        let Dispatcher { shared, sessions, .. } = &*dispatcher;
        let next = || sessions.next_expiry().into_iter().chain(shared.deadlines.next()).min();
        while !shared.lifecycle.wait_for_request(next) {
            dispatcher.withdraw_all(sessions.expire(Instant::now()));
            dispatcher.expire(Instant::now());
        }
        let running = shut_down(threads);
        if !running.is_empty() {
            tracing::error!("closed, but these did not return in time: {}", running.join(", "));
        }
        shared.log_limit.finish();
        shared.lifecycle.finish(running);
    };
    // If the thread does not start, the listener and the pollers were dropped with `run`. The rest ends here.
    start(Box::new(run))
        .map_err(cannot("the supervisor thread"))
        .inspect_err(|_| dismiss(&dispatcher, &queues))
}

/// Ends everything, in order. Returns the functions that did not end in time.
fn shut_down(threads: Threads) -> Vec<String> {
    let Threads { dispatcher, queues, listening, pollers, workers, done, working, done_working } = threads;
    let lifecycle = &dispatcher.shared.lifecycle;
    let mut running = Vec::new();
    // The poller closes the listener, which it cannot do while an inline method runs on it.
    in_time(&dispatcher, move || drop(listening));
    // Before the workers end, so that calls that arrive now are refused.
    let batched = queues.batchers.iter().flat_map(|batcher| batcher.close());
    for (call, _) in batched.chain(queues.pools.iter().flat_map(|pool| pool.close())) {
        call.refuse(&closing());
    }
    let all_ended = || working.load(Ordering::SeqCst) == 0;
    if !lifecycle.wait_to_close(Duration::ZERO, all_ended) {
        lifecycle.cancel_running();
        lifecycle.wait_to_close(GRACE, all_ended);
    }
    for worker in workers {
        running.extend(end_worker(worker));
    }
    running.extend(end_done(&dispatcher, done, &done_working, running.is_empty()));
    say_goodbye(&dispatcher);
    dispatcher.withdraw_all(dispatcher.sessions.end());
    // Of all functions, only inline methods may still run.
    lifecycle.cancel_running();
    if !in_time(&dispatcher, move || drop(pollers)) {
        running.push("an inline method on teleport-io".to_owned());
    }
    running
}

/// Joins a worker. If it does not end, gives up its calls and returns the method that it runs.
fn end_worker(worker: Worker) -> Option<String> {
    let calls = worker.queue.take_job(worker.index).map(|job| job.calls()).unwrap_or_default();
    let name = worker.thread.thread().name().unwrap_or_default().to_owned();
    let Some(first) = calls.first() else {
        // It is about to end. If it panicked, the panic hook has printed the panic.
        let _ = worker.thread.join();
        return None;
    };
    let text = "the server closed while the function was still running";
    let error = RemoteError::new(ErrorKind::Closing, Ran::Yes, text);
    calls.iter().for_each(|call| call.refuse(&error));
    Some(format!("{:?} on {name}", first.method().name))
}

/// Passes the remaining logs to the done functions, and ends their thread.
fn end_done(
    dispatcher: &Dispatcher,
    done: Option<JoinHandle<()>>,
    threads: &AtomicUsize,
    all_returned: bool,
) -> Option<String> {
    let done = done?;
    if all_returned {
        dispatcher.log_order.close();
    } else {
        dispatcher.log_order.abandon();
    }
    if dispatcher.shared.lifecycle.wait_to_close(GRACE, || threads.load(Ordering::SeqCst) == 0) {
        let _ = done.join();
        return None;
    }
    Some("a done function on teleport-done".to_owned())
}

/// Says goodbye to every client, and waits until they have disconnected.
fn say_goodbye(dispatcher: &Dispatcher) {
    let Dispatcher { shared, connections, .. } = dispatcher;
    // The last part of the time to close is for goodbyes that wait behind unfetched results.
    let left = shared.lifecycle.time_to_close().unwrap_or(MAX_GOODBYE);
    let within = left.saturating_sub(GRACE).clamp(GRACE, MAX_GOODBYE);
    for link in connections.all() {
        if link.peer_limits().is_some() {
            link.close(Some(ErrorKind::Closing), "the server closes", within);
        } else {
            link.abort();
        }
    }
    // Connections that have not ended by then end with their poller.
    shared.lifecycle.wait_to_close(2 * GRACE, || shared.connections.load(Ordering::SeqCst) == 0);
}

/// Runs an action that may have to wait for a poller on a thread of its own, so that a poller that never
/// returns delays nothing. Returns true if the action was done in time.
fn in_time(dispatcher: &Arc<Dispatcher>, action: impl FnOnce() + Send + 'static) -> bool {
    let done = Arc::new(AtomicBool::new(false));
    let act = {
        let (shared, done) = (dispatcher.shared.clone(), done.clone());
        move || {
            action();
            done.store(true, Ordering::SeqCst);
            shared.lifecycle.notify();
        }
    };
    let thread = thread::Builder::new().name("teleport-end".to_owned()).spawn(act);
    // Without a thread, `act` was dropped and with it what the action would have dropped.
    thread.is_err() || dispatcher.shared.lifecycle.wait_to_close(GRACE, || done.load(Ordering::SeqCst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::functions::methods::Methods;
    use crate::api::options::Options;
    use crate::registry::Registry;
    use crate::runtime::lifecycle::Lifecycle;
    use crate::runtime::shared::Shared;

    #[test]
    fn a_server_without_a_supervisor_leaves_no_thread_behind() {
        let options = Options::new();
        let registry = Registry::build(Methods::new().register("echo", |x: u64| x), 3, &[]).unwrap();
        let pollers = start_pollers(1).unwrap();
        let handles = pollers.iter().map(|thread| thread.poller().clone()).collect();
        let shared = Shared::new(&options, Arc::<Lifecycle>::default());
        let queues = Arc::new(Queues::new(&registry, &shared, Duration::ZERO));
        let dispatcher = Dispatcher::new(&options, &shared, registry, &queues);
        let acceptor = ConnectionAcceptor::new(&dispatcher, &options, handles);
        let listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().clone();
        let threads = Threads::spawn(&dispatcher, &queues, acceptor, listener, pollers, Vec::new()).unwrap();
        let working = threads.working.clone();
        let none_left = |_| Err(io::Error::other("no thread is left"));
        let error = supervise_on(threads, none_left).unwrap_err();
        assert!(matches!(error, ServeError::Io { what, .. } if what == "the supervisor thread"));
        assert!(teleport_transport::Socket::connect(&address, None).is_err(), "nobody listens");
        // This hangs if a worker waits forever.
        shared.lifecycle.wait_to_close(Duration::ZERO, || working.load(Ordering::SeqCst) == 0);
    }
}
