//! Peer processes that are stopped, killed, or busy for a long time. Dead ones cause typed errors, living
//! ones are kept.
//!
//! Timeouts are as short as a busy machine allows: a living peer must answer a ping within [`MAX_SILENCE`].
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::Signal;
use teleport::wire::{CallHead, Header, Kind, Limits, Message, Preface, encode_frame};
use teleport::{
    CallError, CallFuture, Client, Context, Method, Methods, Ran, Server, ServerHandle, Tree, tree,
};
use teleport_tests::{Program, Raw, Scratch, Serve, abstract_address, until, watched};

const PING_INTERVAL: Duration = Duration::from_millis(100);
const MAX_SILENCE: Duration = Duration::from_millis(1500);

/// Returns a client that gives up a silent server soon.
fn impatient(address: &str) -> Client {
    let builder = Client::builder(address).name("impatient");
    builder.ping_interval(PING_INTERVAL).max_silence(MAX_SILENCE).connect().unwrap()
}

/// Starts a server in this process that gives up silent clients soon. Its method `hold` reports that it began
/// and runs until its caller is gone.
fn impatient_server(address: &str) -> (ServerHandle, mpsc::Receiver<String>) {
    let (sender, began) = mpsc::channel();
    let hold = move |_: Tree, cx: Context| {
        sender.send(cx.caller().to_owned()).unwrap();
        until("the caller is gone", || cx.is_cancelled());
    };
    let methods = Methods::new().register("hold", Method::new(hold).workers(4)).register("echo", |x: Tree| x);
    let server = Server::bind(address).unwrap().ping_interval(PING_INTERVAL).max_silence(MAX_SILENCE);
    (server.start(methods).unwrap(), began)
}

fn for_each_address(check: impl Fn(&str) + Send + 'static) {
    watched(move || {
        check("tcp://127.0.0.1:0");
        check(&abstract_address());
    });
}

/// Makes a call that never ends, and returns once the server runs it.
fn endless(client: &Client) -> CallFuture {
    let endless = client.call("sleep", tree!({"seconds": 1e6})).send().unwrap();
    // The same pool takes calls in order, so the endless call has begun when this one ends.
    client.call("sleep", tree!({"seconds": 0.0})).wait().unwrap();
    endless
}

fn is_not_alive(error: &CallError) -> bool {
    matches!(error, CallError::NotAlive { silence, max_silence, .. }
        if silence >= max_silence && *max_silence == MAX_SILENCE)
}

#[test]
fn a_stopped_server_fails_calls_and_a_continued_one_answers() {
    for_each_address(|address| {
        let serve = Serve::start(address);
        let client = impatient(serve.address());
        let before = endless(&client);

        serve.program().stop();
        let error = before.wait().unwrap_err();
        assert!(is_not_alive(&error), "{error:?}");
        assert_eq!(error.ran(), Ran::Maybe);

        serve.program().go_on();
        assert_eq!(client.call("echo", tree!("again")).wait().unwrap(), tree!("again"));
        assert_eq!(client.stats().connects, 2);
        serve.interrupt();
    });
}

#[test]
fn a_call_to_a_stopped_server_fails() {
    for_each_address(|address| {
        let serve = Serve::start(address);
        let client = impatient(serve.address());
        has_been_answered(&client);
        serve.program().stop();
        let error = client.call("echo", tree!(1)).wait().unwrap_err();
        assert!(is_not_alive(&error), "{error:?}");
        serve.program().go_on();
        has_been_answered(&client);
        serve.log();
    });
}

fn has_been_answered(client: &Client) {
    assert_eq!(client.call("echo", tree!("text")).wait().unwrap(), tree!("text"));
}

#[test]
fn a_client_detects_a_stopped_server_without_calls() {
    for_each_address(|address| {
        let serve = Serve::start(address);
        let client = impatient(serve.address());
        assert!(client.stats().server.is_some());
        serve.program().stop();
        until("the client gives up the connection", || client.stats().server.is_none());
        serve.program().go_on();
        has_been_answered(&client);
        serve.log();
    });
}

#[test]
fn a_call_may_take_longer_than_max_silence() {
    for_each_address(|address| {
        let serve = Serve::start(address);
        let client = impatient(serve.address());
        let seconds = 2.0 * MAX_SILENCE.as_secs_f64();
        client.call("sleep", tree!({"seconds": seconds})).wait().unwrap();
        assert_eq!(client.stats().connects, 1);
        client.close().unwrap();
        assert_eq!(serve.log(), [""; 0]);
    });
}

#[test]
fn a_client_notices_a_killed_server_at_once() {
    for_each_address(|address| {
        let serve = Serve::start(address);
        // With default timeouts, only the end of the stream shows that the server is gone.
        let client = Client::connect(serve.address()).unwrap();
        let before = endless(&client);
        serve.kill();
        let error = before.wait().unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }), "{error:?}");
        assert_eq!(error.ran(), Ran::Maybe);
    });
}

#[test]
fn a_client_connects_to_the_server_that_replaces_a_killed_one() {
    watched(|| {
        let scratch = Scratch::new();
        let first = Serve::start(&scratch.socket());
        let client = Client::connect(first.address()).unwrap();
        first.kill();
        assert_eq!(scratch.files(), ["socket"], "a killed server cannot remove its file");
        let second = Serve::start(&scratch.socket());
        until("the client connects again", || client.stats().connects == 2);
        has_been_answered(&client);
        drop(client);
        second.log();
        assert_eq!(scratch.files(), [""; 0]);
    });
}

#[test]
fn a_server_detects_a_stopped_client() {
    for_each_address(|address| {
        let (server, began) = impatient_server(address);
        let address = server.address().to_string();
        let stopped = Program::start("call", &[&address, "hold"]);
        let mark = stopped.mark();
        assert_eq!(began.recv().unwrap(), "call");
        assert_eq!(server.clients(), 1);
        stopped.stop();
        until("the server gives up its client", || server.clients() == 0);
        until("its call is withdrawn", || server.stats().running == 0);
        stopped.go_on();
        let ended = stopped.wait();
        assert!(!ended.status.success() && !ended.errors.is_empty(), "{ended:?}");
        teleport_tests::until_none_left(&mark);
        server.close().unwrap();
    });
}

#[test]
fn a_server_notices_a_killed_client_at_once() {
    for_each_address(|address| {
        let (server, began) = impatient_server(address);
        let address = server.address().to_string();
        let killed = Program::start("call", &[&address, "hold"]);
        began.recv().unwrap();
        killed.signal(Signal::SIGKILL);
        until("the server notices", || server.clients() == 0);
        until("its call is withdrawn", || server.stats().running == 0);
        server.close().unwrap();
    });
}

#[test]
fn a_client_that_only_waits_is_kept() {
    for_each_address(|address| {
        let (server, began) = impatient_server(address);
        let client = Client::connect(&server.address().to_string()).unwrap();
        let held = client.call("hold", ()).send().unwrap();
        began.recv().unwrap();
        // Others come and go for longer than `max_silence`.
        let start = std::time::Instant::now();
        while start.elapsed() < 2 * MAX_SILENCE {
            has_been_answered(&impatient(&server.address().to_string()));
        }
        assert!(!held.is_done());
        assert_eq!(client.stats().connects, 1);
        held.cancel();
        server.close().unwrap();
    });
}

/// If the end of a stream arrives together with the bytes before it, the kernel reports both in one event.
#[test]
fn the_end_of_a_stream_is_noticed_when_it_arrives_with_the_last_bytes() {
    for_each_address(|address| {
        let hour = Duration::from_secs(3600);
        let (sender, began) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let block = move |_: Tree| {
            sender.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        };
        let methods = Methods::new().register("block", Method::inline(block)).register("echo", |x: Tree| x);
        // With these timeouts, only the end of the stream itself can end the connections.
        let server = Server::bind(address).unwrap();
        let server = server.io_threads(1).ping_interval(hour).max_silence(hour).handshake_timeout(hour);
        let address = server.address().to_string();

        // Everything has arrived before the server reads its socket for the first time.
        let part_of_call = {
            let message = Message::call(&CallHead::new("echo"), &tree!("text"), &Limits::default()).unwrap();
            [&message.header(1, true)[..], message.metadata(), &Header::data(1, 4, None).encode(), b"te"]
                .concat()
        };
        let mut early = Raw::connect(&address);
        early.send(&Preface::BYTES);
        early.send(&encode_frame(Kind::Hello, 0, &Raw::hello().encode()));
        early.send(&part_of_call);
        early.finish();
        let server = server.start(methods).unwrap();
        early.until_silent_end();

        // Everything arrives while the server's only poller is busy.
        let (mut late, _) = Raw::introduced(&address);
        let client = Client::connect(&address).unwrap();
        let blocking = client.call("block", ()).send().unwrap();
        began.recv().unwrap();
        late.send(&part_of_call);
        late.finish();
        release.send(()).unwrap();
        late.until_closed();
        blocking.wait().unwrap();
        until("both raw clients are gone", || server.clients() == 1);
        server.close().unwrap();
    });
}
