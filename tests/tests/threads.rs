//! Threads that are killed while they wait for a call, for a client or for a server.

use std::future::IntoFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use teleport::proc::is_killed;
use teleport::{
    BoxError, CallError, CallFuture, Client, Context, Methods, ProcError, Server, ServerHandle, Thread, Tree,
    as_completed, checkpoint, tree, wait_all,
};
use teleport_tests::{abstract_address, until, watched};

const FOREVER: Duration = Duration::from_secs(3600);

/// A server whose function `hold` returns when the test says so.
struct Holding {
    server: ServerHandle,
    address: String,
    /// Receives a value when a call has started.
    started: mpsc::Receiver<()>,
    /// Receives whether a call was cancelled when it ended.
    ended: mpsc::Receiver<bool>,
    is_let_go: Arc<AtomicBool>,
}

impl Holding {
    fn start() -> Holding {
        let ((sender, started), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let is_let_go = Arc::new(AtomicBool::new(false));
        let may_end = is_let_go.clone();
        let methods = Methods::new().register("hold", move |(): (), cx: Context| {
            // The test does not wait for every call.
            let _ = sender.send(());
            until("it is let go", || may_end.load(Ordering::SeqCst));
            let _ = end.send(cx.is_cancelled());
        });
        let server = Server::bind("tcp://127.0.0.1:0").and_then(|server| server.start(methods));
        let server = server.expect("it starts");
        Holding { address: server.address().to_string(), server, started, ended, is_let_go }
    }

    fn has_started(&self) {
        self.started.recv().expect("the call comes");
    }

    fn let_go(&self) {
        self.is_let_go.store(true, Ordering::SeqCst);
    }
}

/// Starts a thread that runs `body`, with an endless grace.
fn start(body: impl FnOnce() + Send + 'static) -> Thread {
    let mut body = Some(body);
    let thread = Thread::new("killed", move |_stop| body.take().expect("it is started once")());
    let thread = thread.grace(FOREVER);
    thread.start().expect("there are threads");
    thread
}

fn kill(thread: &Thread) {
    thread.kill().expect("it ends");
    assert!(matches!(thread.join(), Err(ProcError::Killed { .. })));
}

fn connect(address: &str) -> Client {
    Client::connect(address).expect("it listens")
}

/// Kills a thread that waits, by `wait`, for a call that ends only later.
fn is_killed_from(wait: impl Fn(&Client) + Send + 'static) {
    watched(move || {
        let holding = Holding::start();
        let address = holding.address.clone();
        let thread = start(move || wait(&connect(&address)));
        holding.has_started();
        kill(&thread);
        holding.let_go();
    });
}

/// Sends a call that is cancelled when the thread unwinds.
fn held(client: &Client) -> CallFuture<Tree> {
    client.call("hold", tree!(null)).send().expect("it is sent").cancel_on_drop()
}

#[test]
fn waiting_for_one_result() {
    is_killed_from(|client| drop(held(client).wait()));
}

#[test]
fn awaiting_one_result_on_an_executor() {
    is_killed_from(|client| drop(pollster::block_on(held(client))));
    is_killed_from(|client| drop(pollster::block_on(client.call("hold", tree!(null)).into_future())));
    is_killed_from(|client| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("there are descriptors");
        drop(runtime.block_on(held(client)));
    });
}

#[test]
fn waiting_for_all_and_for_the_next() {
    is_killed_from(|client| drop(wait_all([held(client)])));
    is_killed_from(|client| as_completed([held(client)]).for_each(drop));
}

#[test]
fn waiting_for_a_slot() {
    is_killed_from(|client| {
        let mut calls = Vec::new();
        loop {
            calls.push(held(client));
        }
    });
}

#[test]
fn connecting_to_nobody() {
    watched(|| {
        let (sender, asked) = mpsc::channel();
        let nobody = abstract_address();
        let builder = Client::builder("nobody").no_connect_timeout().resolver("nobody", move |_| {
            sender.send(()).expect("the test waits");
            Ok::<_, BoxError>(nobody.clone())
        });
        let thread = start(move || drop(builder.connect()));
        // It waits between attempts.
        (0..2).for_each(|_| asked.recv().expect("it tries again"));
        kill(&thread);
        // This ends when the client has dropped its resolver.
        asked.iter().for_each(drop);
    });
}

#[test]
fn connecting_while_a_resolver_blocks() {
    watched(|| {
        let ((sender, asked), (let_go, blocks)) = (mpsc::channel(), mpsc::channel::<()>());
        let blocks = Mutex::new(blocks);
        let builder = Client::builder("nobody").no_connect_timeout().resolver("nobody", move |_| {
            sender.send(()).expect("the test waits");
            let _ = blocks.lock().expect("nobody panics").recv();
            Err::<String, _>("there is nobody")
        });
        let thread = start(move || drop(builder.connect()));
        asked.recv().expect("it is asked");
        kill(&thread);
        drop(let_go);
        assert!(asked.recv().is_err(), "the resolver is dropped and not asked again");
    });
}

#[test]
fn closing_a_client() {
    watched(|| {
        let holding = Holding::start();
        let client = connect(&holding.address);
        let future = client.call("hold", tree!(null)).send().expect("it is sent");
        holding.has_started();
        let clone = client.clone();
        let thread = start(move || drop(clone.close()));
        let is_closed = || client.call("hold", tree!(null)).try_send();
        until("it closes", || matches!(is_closed(), Err(CallError::Closed { .. })));
        kill(&thread);
        // The call fails as at the end of the close timeout.
        assert!(matches!(future.wait(), Err(CallError::Closed { .. })));
        until("it has disconnected", || holding.server.clients() == 0);
        holding.let_go();
    });
}

#[test]
fn dropping_the_last_client() {
    watched(|| {
        let holding = Holding::start();
        let address = holding.address.clone();
        let ((sender, calls), (report, reported)) = (mpsc::channel(), mpsc::channel());
        let thread = start(move || {
            let client = Client::builder(&address).max_inflight(1).close_timeout(FOREVER).connect();
            let client = client.expect("it listens");
            drop(client.call("hold", tree!(null)).send().expect("it is sent"));
            sender.send(client.call("hold", tree!(null))).expect("the test waits");
            // This waits, and does not unwind.
            drop(client);
            report.send(()).expect("the test waits");
            checkpoint();
        });
        holding.has_started();
        let second = calls.recv().expect("it is made");
        // It waits for a slot until the client closes.
        assert!(matches!(second.wait(), Err(CallError::Closed { .. })));
        kill(&thread);
        reported.recv().expect("it goes on");
        // The call whose future was dropped goes on.
        holding.let_go();
        assert!(!holding.ended.recv().expect("it ends"), "it is cancelled");
        until("it has disconnected", || holding.server.clients() == 0);
    });
}

/// Reports, when it is dropped, whether an address is free.
struct Report(String, mpsc::Sender<bool>);

impl Drop for Report {
    fn drop(&mut self) {
        self.1.send(Server::bind(&self.0).is_ok()).expect("the test waits");
    }
}

#[test]
fn running_a_server() {
    watched(|| {
        let server = Server::bind("tcp://127.0.0.1:0").expect("there are ports");
        let (address, closer) = (server.address().to_string(), server.closer());
        let ((sender, started), (report, reported)) = (mpsc::channel(), mpsc::channel());
        let methods = Methods::new().register("hold", move |(): ()| {
            sender.send(()).expect("the test waits");
            until("the server closes", || closer.is_closing());
            7i64
        });
        let report = Report(address.clone(), report);
        let thread = start(move || {
            let _report = report;
            server.run(methods).expect("it does not return");
        });
        let client = connect(&address);
        let future = client.call("hold", tree!(null)).send().expect("it is sent");
        started.recv().expect("the call comes");
        kill(&thread);
        assert!(reported.recv().expect("it unwound"), "the server closes before older values are dropped");
        assert_eq!(future.wait().expect("a running call is answered when it closes"), tree!(7i64));
    });
}

#[test]
fn closing_a_server_of_others() {
    watched(|| {
        let Holding { server, address, started, is_let_go, .. } = Holding::start();
        let server = Arc::new(server);
        let client = connect(&address);
        let future = client.call("hold", tree!(null)).send().expect("it is sent");
        started.recv().expect("the call comes");
        let closing = server.clone();
        let thread = start(move || closing.close_within(FOREVER).expect("it does not return"));
        until("it closes", || server.closer().is_closing());
        kill(&thread);
        is_let_go.store(true, Ordering::SeqCst);
        future.wait().expect("the server still closes in order");
        server.close().expect("it is closed");
    });
}

#[test]
fn dropping_a_server() {
    watched(|| {
        let server = Server::bind("tcp://127.0.0.1:0").expect("there are ports");
        let (address, closer) = (server.address().to_string(), server.closer());
        let (report, reported) = mpsc::channel();
        let methods = Methods::new().register("hold", |(): ()| ());
        let server = server.start(methods).expect("it starts");
        let thread = start(move || {
            until("it is killed", is_killed);
            // This waits, and does not unwind.
            drop(server);
            report.send(Server::bind(&address).is_ok()).expect("the test waits");
            checkpoint();
        });
        kill(&thread);
        assert!(closer.is_closing() && reported.recv().expect("it goes on"), "the server is closed");
    });
}
