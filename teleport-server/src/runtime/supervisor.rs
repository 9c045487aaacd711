//! The threads of a running server, and the one that ends them in order.
//!
//! Flow: `Threads::spawn` starts pollers, workers and the done thread -> the supervisor sleeps until somebody asks for the
//! server to close -> no new connections, no new calls, the waiting ones refused -> the running ones end, or are given up
//! when the time is over -> goodbyes -> pollers. All steps share the time to close; one that has none left has `GRACE`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use teleport_transport::wire::{ErrorKind, Ran, RemoteError};
use teleport_transport::{Listener, Listening, PollerThread};

use crate::accept::ConnectionAcceptor;
use crate::api::error::{ServeError, full_text};
use crate::api::options::DoneFunction;
use crate::connection::dispatch::{refuse_all, withdraw};
use crate::exec::panic::catch;
use crate::exec::worker::{RunningThread, Worker};
use crate::refusal::closing;
use crate::runtime::shared::{Attached, Shared};

/// What functions have to notice that they are cancelled, done functions to take the last logs, clients to read a goodbye
/// and pollers to end, each, when the time to close is over.
const GRACE: Duration = Duration::from_secs(1);

/// Where closing may take for ever, results still leave within this time.
const MAX_GOODBYE: Duration = Duration::from_secs(3600);

/// All threads of a server but the supervisor.
#[derive(Debug)]
pub(crate) struct Threads {
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
    /// Starts all threads; clients are let in last.
    pub(crate) fn spawn(
        shared: &Arc<Shared>,
        listener: Listener,
        pollers: Vec<PollerThread>,
        done: Vec<(String, DoneFunction)>,
    ) -> Result<Threads, ServeError> {
        let hired = Threads::try_spawn(shared, listener, pollers, done);
        if hired.is_err() {
            dismiss(shared);
        }
        hired
    }

    fn try_spawn(
        shared: &Arc<Shared>,
        listener: Listener,
        pollers: Vec<PollerThread>,
        functions: Vec<(String, DoneFunction)>,
    ) -> Result<Threads, ServeError> {
        let (working, done_working) = (Arc::default(), Arc::default());
        let mut workers = Vec::new();
        for (pool, plan) in shared.registry.pools.iter().enumerate() {
            for index in 0..plan.workers {
                workers
                    .push(Worker::start(shared, pool, index, &working).map_err(cannot("a worker thread"))?);
            }
        }
        let mut done = None;
        if !functions.is_empty() {
            let started = start_done(shared, functions, &done_working);
            done = Some(started.map_err(cannot("the thread of the done functions"))?);
        }
        // The caller passes at least one poller.
        let listening = pollers[0].poller().listen(listener, Arc::new(ConnectionAcceptor(shared.clone())));
        let listening = listening.map_err(cannot("listening"))?;
        Ok(Threads { listening, pollers, workers, done, working, done_working })
    }
}

/// Ends the threads of a server that does not start: they find nothing to do.
fn dismiss(shared: &Shared) {
    shared.pools.iter().for_each(|pool| drop(pool.close()));
    shared.ledger.abandon();
}

fn cannot(what: &str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Io { what: what.to_owned(), source }
}

/// Starts as many pollers as asked for, at least one.
pub(crate) fn start_pollers(count: usize) -> Result<Vec<PollerThread>, ServeError> {
    let start = |index| PollerThread::start(&format!("teleport-io-{index}"));
    (0..count.max(1)).map(start).collect::<io::Result<_>>().map_err(cannot("an I/O thread"))
}

fn start_done(
    shared: &Arc<Shared>,
    mut functions: Vec<(String, DoneFunction)>,
    threads: &Arc<AtomicUsize>,
) -> io::Result<JoinHandle<()>> {
    let (running, shared) = (RunningThread::new(shared, threads), shared.clone());
    let run = move || {
        let _on_duty = running;
        shared.lifecycle.own_this_thread();
        let freed = || shared.pools.iter().for_each(|pool| pool.try_again());
        while let Some(logs) = shared.ledger.next(freed) {
            let (method, function) = &mut functions[logs.done];
            match catch(|| function(logs.tree)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => shared.done_failed(method, full_text(&*error)),
                Err(panic) => shared.done_failed(method, panic.to_string()),
            }
        }
    };
    std::thread::Builder::new().name("teleport-done".to_owned()).spawn(run)
}

/// Starts the thread that ends the server when it is asked to.
pub(crate) fn supervise(shared: &Arc<Shared>, threads: Threads) -> Result<(), ServeError> {
    let name = "teleport-server".to_owned();
    // Nobody joins it: who waits for the server waits for its lifecycle, which is the last that the thread touches.
    supervise_on(shared, threads, |run| std::thread::Builder::new().name(name).spawn(run).map(drop))
}

fn supervise_on(
    shared: &Arc<Shared>,
    threads: Threads,
    start: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) -> Result<(), ServeError> {
    let own = shared.clone();
    let run = move || {
        let shared = own;
        let next = || shared.sessions.next_expiry().into_iter().chain(shared.deadlines.next()).min();
        while !shared.lifecycle.wait_for_request(next) {
            withdraw(shared.sessions.expire(Instant::now()));
            shared.expire_calls(Instant::now());
        }
        let running = shut_down(&shared, threads);
        if !running.is_empty() {
            tracing::error!("closed, but these did not return in time: {}", running.join(", "));
        }
        shared.log_limit.finish();
        shared.lifecycle.finish(running);
    };
    // Where there is no thread, the listener and the pollers have gone with what it was to run; the rest ends here.
    start(Box::new(run)).map_err(cannot("the supervisor thread")).inspect_err(|_| dismiss(shared))
}

/// Ends everything, in order. Gives what did not end in time.
fn shut_down(shared: &Arc<Shared>, threads: Threads) -> Vec<String> {
    let Threads { listening, pollers, workers, done, working, done_working } = threads;
    let mut running = Vec::new();
    // The poller closes the listener, which it cannot do while an inline method runs on it.
    in_time(shared, move || drop(listening));
    // Before the workers go, so that whoever comes now is told.
    for call in shared.batchers.iter().flat_map(|batcher| batcher.close()) {
        call.refuse(&closing());
    }
    let queued = shared.pools.iter().flat_map(|pool| pool.close());
    let throttled = shared.peers().into_iter().flat_map(|peer| peer.close_throttled());
    refuse_all(queued.chain(throttled));
    if !shared.lifecycle.wait_to_close(Duration::ZERO, || working.load(Ordering::SeqCst) == 0) {
        shared.lifecycle.cancel_running();
        shared.lifecycle.wait_to_close(GRACE, || working.load(Ordering::SeqCst) == 0);
    }
    for worker in workers {
        running.extend(end_worker(worker));
    }
    running.extend(end_done(shared, done, &done_working, running.is_empty()));
    say_goodbye(shared);
    withdraw(shared.sessions.end());
    if !in_time(shared, move || drop(pollers)) {
        running.push("an inline method on teleport-io".to_owned());
    }
    running
}

/// Joins a worker, or gives up its call and tells which one that is.
fn end_worker(worker: Worker) -> Option<String> {
    let busy = worker.current_job.lock().clone();
    let name = worker.thread.thread().name().unwrap_or_default().to_owned();
    let Some(job) = busy else {
        // It is on its way out; a panic of its own was printed by the hook.
        let _ = worker.thread.join();
        return None;
    };
    let text = "the server closed while the function was still running";
    let error = RemoteError::new(ErrorKind::Closing, Ran::Yes, text);
    job.calls().iter().for_each(|call| call.refuse(&error));
    Some(format!("{:?} on {name}", job.method()))
}

/// Lets the done functions have what is left, and ends their thread.
fn end_done(
    shared: &Shared,
    done: Option<JoinHandle<()>>,
    threads: &AtomicUsize,
    all_returned: bool,
) -> Option<String> {
    let done = done?;
    if all_returned {
        shared.ledger.close();
    } else {
        shared.ledger.abandon();
    }
    if shared.lifecycle.wait_to_close(GRACE, || threads.load(Ordering::SeqCst) == 0) {
        let _ = done.join();
        return None;
    }
    Some("a done function on teleport-done".to_owned())
}

/// Tells every client that the server closes, and waits until they have gone.
fn say_goodbye(shared: &Shared) {
    // Of the time to close, the last is for goodbyes that waited for results which nobody took.
    let left = shared.lifecycle.time_to_close().unwrap_or(MAX_GOODBYE);
    let within = left.saturating_sub(GRACE).clamp(GRACE, MAX_GOODBYE);
    for Attached { link, peer } in shared.connections() {
        if peer.is_introduced() {
            link.close(Some(ErrorKind::Closing), "the server closes", within);
        } else {
            link.abort();
        }
    }
    // Those that have not gone then go with their poller.
    shared.lifecycle.wait_to_close(2 * GRACE, || shared.connection_count() == 0);
}

/// Does what may have to wait for a poller, on a thread of its own, so that a poller that never comes back holds up
/// nobody. True if it was done in time.
fn in_time(shared: &Arc<Shared>, action: impl FnOnce() + Send + 'static) -> bool {
    let done = Arc::new(AtomicBool::new(false));
    let act = {
        let (shared, done) = (shared.clone(), done.clone());
        move || {
            action();
            done.store(true, Ordering::SeqCst);
            shared.lifecycle.notify();
        }
    };
    let thread = std::thread::Builder::new().name("teleport-end".to_owned()).spawn(act);
    // Without a thread the action was dropped, and with it what it was to end: that waits, but does the same.
    thread.is_err() || shared.lifecycle.wait_to_close(GRACE, || done.load(Ordering::SeqCst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::methods::Methods;
    use crate::api::options::Options;
    use crate::registry::Registry;
    use crate::runtime::lifecycle::Lifecycle;

    #[test]
    fn a_server_without_a_supervisor_leaves_no_thread_behind() {
        let options = Options::new();
        let registry = Registry::build(Methods::new().register("echo", |x: u64| x), 3, &[]).unwrap();
        let pollers = start_pollers(1).unwrap();
        let handles = pollers.iter().map(|thread| thread.poller().clone()).collect();
        let shared = Shared::new(&options, registry, handles, Arc::<Lifecycle>::default());
        let listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().clone();
        let threads = Threads::spawn(&shared, listener, pollers, Vec::new()).unwrap();
        let working = threads.working.clone();
        let none_left = |_| Err(io::Error::other("no thread is left"));
        let error = supervise_on(&shared, threads, none_left).unwrap_err();
        assert!(matches!(error, ServeError::Io { what, .. } if what == "the supervisor thread"));
        assert!(teleport_transport::Socket::connect(&address, None).is_err(), "nobody listens");
        // Hangs if a worker waits for ever.
        shared.lifecycle.wait_to_close(Duration::ZERO, || working.load(Ordering::SeqCst) == 0);
    }
}
