//! Tests that run for every kind of socket: TCP over IPv4 and IPv6, a Unix socket file, and an abstract
//! Unix socket.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Closed, Gate, Quota, Role, Withdrawn};
use teleport_transport::wire::{
    Array, CallHead, ErrorKind, Hello, Limits, Message, Ran, RemoteError, Tree, tree,
};
use teleport_transport::{
    AcceptError, Acceptor, Address, Answers, Budget, Call, Calls, Config, Handler, Link, Listener, Listening,
    Poller, PollerThread, Socket, TurnClock, Wakers,
};

/// No step of a test takes this long, even on a loaded machine.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A configuration that allows no unsent results.
const NOTHING: Quota = Quota { max_bytes: 0, max_bytes_but_largest: 0 };

fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(WATCHDOG).expect("it happens within the watchdog's time")
}

/// A server that answers "echo" on the poller, keeps "keep" and refuses every other method.
#[derive(Default)]
struct Service {
    kept: Mutex<Vec<(Arc<Link>, u64)>>,
    cancelled: Mutex<Option<Sender<u64>>>,
    /// Calls `await_drain` again in each `drained`.
    drains_again: AtomicBool,
    closed: Mutex<Option<Sender<Arc<Closed>>>>,
}

impl Gate for Service {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        match method {
            "echo" => Ok(0),
            "keep" => Ok(1),
            _ => Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, format!("no method {method:?}"))),
        }
    }
}

impl Handler for Service {
    fn opened(&self, _link: &Arc<Link>, _peer: &Hello) {}

    fn called(&self, link: &Arc<Link>, calls: Calls<'_, '_>, _: &mut TurnClock) {
        for Call { id, slot, tree, lease, .. } in calls {
            if slot == 1 {
                self.kept.lock().push((link.clone(), id));
                continue;
            }
            let tree = tree.expect("its strings are UTF-8");
            drop(lease);
            let message =
                Message::result(&tree, &link.peer_limits().expect("the peer said hello")).expect("it fits");
            link.answer(id, message).expect("it is open");
        }
    }

    fn cancelled(&self, _link: &Arc<Link>, id: u64) {
        if let Some(sender) = &*self.cancelled.lock() {
            sender.send(id).expect("the test waits");
        }
    }

    fn drained(&self, link: &Arc<Link>) {
        if self.drains_again.load(Ordering::Relaxed) {
            link.await_drain(NOTHING);
        }
    }

    fn closed(&self, _link: &Arc<Link>, reason: &Arc<Closed>, _wakers: &mut Wakers) {
        if let Some(sender) = &*self.closed.lock() {
            // The test may be over.
            let _ = sender.send(reason.clone());
        }
    }
}

struct Accept {
    poller: Poller,
    config: Arc<Config>,
    budget: Budget,
    service: Arc<Service>,
}

impl Acceptor for Accept {
    fn accepted(&self, socket: Socket) {
        let budget = Some(self.budget.clone());
        self.poller
            .attach(socket, Role::Server, &self.config, budget, self.service.clone())
            .expect("there are descriptors");
    }

    fn failed(&self, error: &AcceptError) {
        panic!("{error}");
    }
}

/// One answer: the call's id, and its result or error.
type Answered = (u64, Result<Tree, RemoteError>);

struct Caller {
    opened: Sender<String>,
    answers: Sender<Answered>,
    closed: Sender<Arc<Closed>>,
}

impl Gate for Caller {
    fn admit(&self, _method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        unreachable!("nobody calls a client")
    }
}

impl Handler for Caller {
    fn opened(&self, _link: &Arc<Link>, peer: &Hello) {
        self.opened.send(peer.name.clone()).expect("the test waits");
    }

    fn answered(&self, _link: &Arc<Link>, answers: Answers<'_, '_>, _wakers: &mut Wakers) {
        for (id, answer) in answers {
            let answer = answer.map(|reply| reply.tree.expect("its strings are UTF-8"));
            let _ = self.answers.send((id, answer));
        }
    }

    fn closed(&self, _link: &Arc<Link>, reason: &Arc<Closed>, _wakers: &mut Wakers) {
        let _ = self.closed.send(reason.clone());
    }
}

struct Client {
    link: Arc<Link>,
    answers: Receiver<Answered>,
    closed: Receiver<Arc<Closed>>,
}

impl Client {
    fn connect(address: &Address, config: Config) -> Client {
        Client::with(address, config, None)
    }

    fn with(address: &Address, config: Config, budget: Option<Budget>) -> Client {
        let socket = Socket::connect(address, Some(Instant::now() + WATCHDOG)).expect("the server listens");
        let (opened, is_open) = channel();
        let (answers, answered) = channel();
        let (closed, is_closed) = channel();
        let handler = Arc::new(Caller { opened, answers, closed });
        let poller = Poller::shared().expect("there are descriptors");
        let link = poller
            .attach(socket, Role::Client, &Arc::new(config), budget, handler)
            .expect("there are descriptors");
        assert_eq!(next(&is_open), "service");
        Client { link, answers: answered, closed: is_closed }
    }

    fn call(&self, method: &str, tree: &Tree) -> u64 {
        let limits = self.link.peer_limits().expect("it is open");
        let message = Message::call(&CallHead::new(method), tree, &limits).expect("it is within the limits");
        self.link.call(message, |_| true).expect("it is open")
    }
}

/// A server for one test. Its fields are dropped in order: first it accepts no more, then its poller
/// ends.
struct World {
    address: Address,
    service: Arc<Service>,
    budget: Budget,
    _listening: Listening,
    _poller: PollerThread,
}

fn config(name: &str) -> Config {
    Config { name: name.into(), ..Config::default() }
}

fn serve(address: &str, config: Config, max_memory: u64) -> World {
    let poller = PollerThread::start("test-server").expect("there are threads");
    let listener = Listener::bind(&address.parse().expect("a good address")).expect("the address is free");
    let address = listener.address().clone();
    let (service, budget) = (Arc::new(Service::default()), Budget::new(max_memory));
    let accept = Accept {
        poller: poller.poller().clone(),
        config: Arc::new(config),
        budget: budget.clone(),
        service: service.clone(),
    };
    let listening = poller.poller().listen(listener, Arc::new(accept)).expect("there are descriptors");
    World { address, service, budget, _listening: listening, _poller: poller }
}

/// Runs `check` for every kind of socket.
fn for_each_socket(name: &str, check: impl Fn(&str)) {
    let folder = std::env::temp_dir().join(format!("teleport-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    check("tcp://127.0.0.1:0");
    check("tcp://[::1]:0");
    check("tcp://*:0");
    check(&format!("ipc://{}/socket", folder.display()));
    check(&format!("ipc://@teleport-{}-{name}", std::process::id()));
    std::fs::remove_dir_all(&folder).expect("the servers removed their socket files");
}

fn bytes(n: usize) -> Tree {
    Tree::Array(Array::from((0..n).map(|i| (i / 7) as u8).collect::<Vec<_>>()))
}

#[test]
fn messages_of_every_size_come_back_as_they_went() {
    for_each_socket("sizes", |address| {
        let world = serve(address, config("service"), 256 << 20);
        let client = Client::connect(&world.address, config("client"));
        let sizes =
            [0, 1, 63, 64, 65, 4096, 16 << 10, (16 << 10) + 1, 64 << 10, (64 << 10) + 1, 1 << 20, 9_000_001];
        let mut sent = HashMap::new();
        for size in sizes {
            let tree = tree!({"array": bytes(size), "text": "é", "nested": [Tree::Null, {"n": size}]});
            sent.insert(client.call("echo", &tree), tree);
        }
        while !sent.is_empty() {
            let (id, answer) = next(&client.answers);
            assert!(
                answer.expect("echo does not fail") == sent.remove(&id).expect("each call is answered once")
            );
        }
        assert_eq!(client.link.queued_bytes(), 0);
    });
}

#[test]
fn a_small_budget_serves_many_large_calls() {
    for_each_socket("budget", |address| {
        let limits = Limits { max_message_bytes: 4 << 20, ..Limits::default() };
        let world = serve(address, Config { limits, ..config("service") }, 4 << 20);
        let clients: Vec<Client> =
            (0..3).map(|_| Client::connect(&world.address, config("client"))).collect();
        let tree = bytes(3 << 20);
        for client in &clients {
            for _ in 0..5 {
                client.call("echo", &tree);
            }
        }
        for client in &clients {
            for _ in 0..5 {
                assert!(next(&client.answers).1.expect("echo does not fail") == tree);
            }
        }
        assert_eq!((world.budget.used_bytes(), world.budget.waiting()), (0, 0));
    });
}

#[test]
fn a_refused_call_leaves_the_others_alone() {
    for_each_socket("refused", |address| {
        let world = serve(address, config("service"), 256 << 20);
        let client = Client::connect(&world.address, config("client"));
        for size in [0, 100, 500_000, 5 << 20] {
            let refused = client.call("nothing", &bytes(size));
            let good = client.call("echo", &bytes(size));
            let answers: HashMap<_, _> = [next(&client.answers), next(&client.answers)].into();
            let error = answers[&refused].as_ref().expect_err("there is no such method");
            assert_eq!((error.kind, error.ran), (ErrorKind::UnknownMethod, Ran::No));
            assert!(answers[&good].as_ref().is_ok_and(|tree| *tree == bytes(size)));
        }
    });
}

#[test]
fn a_cancel_reaches_the_server_and_the_call_is_still_answered() {
    for_each_socket("cancel", |address| {
        let world = serve(address, config("service"), 256 << 20);
        let (sender, cancelled) = channel();
        *world.service.cancelled.lock() = Some(sender);
        let client = Client::connect(&world.address, config("client"));
        let kept = client.call("keep", &Tree::Null);
        // Calls are received in order: once the echo is back, the other call has arrived.
        client.call("echo", &Tree::Null);
        next(&client.answers).1.expect("echo does not fail");
        assert_eq!(client.link.withdraw(kept), Withdrawn::Requested);
        assert_eq!(next(&cancelled), kept);
        let (link, id) = world.service.kept.lock().pop().expect("it was kept");
        let error = RemoteError::new(ErrorKind::Cancelled, Ran::Yes, "stopped");
        link.answer(id, Message::error(&error)).expect("it is open");
        assert_eq!(next(&client.answers), (kept, Err(error)));
        assert_eq!(client.link.withdraw(kept), Withdrawn::NotOpen);
    });
}

#[test]
fn requests_made_again_and_again_starve_nobody() {
    for_each_socket("again", |address| {
        let world = serve(address, config("service"), 1 << 20);
        let client = Client::connect(&world.address, config("client"));
        let id = client.call("keep", &Tree::Null);
        client.call("echo", &Tree::Null);
        next(&client.answers).1.expect("echo does not fail");
        let (link, _) = world.service.kept.lock().pop().expect("the first call has come");
        world.service.drains_again.store(true, Ordering::Relaxed);
        link.await_drain(NOTHING);
        for _ in 0..10 {
            assert_ne!(client.call("echo", &Tree::Null), id);
            next(&client.answers).1.expect("echo does not fail");
        }
        world.service.drains_again.store(false, Ordering::Relaxed);
    });
}

#[test]
fn a_goodbye_is_distinguished_from_a_crash() {
    for_each_socket("goodbye", |address| {
        let world = serve(address, config("service"), 256 << 20);
        let client = Client::connect(&world.address, config("client"));
        client.call("keep", &Tree::Null);
        client.call("echo", &bytes(100));
        next(&client.answers).1.expect("echo does not fail");
        let (link, id) = world.service.kept.lock().pop().expect("it was kept");
        // A call that was queued before the goodbye still arrives whole.
        let result = Message::result(&bytes(3 << 20), &Limits::default()).expect("it fits");
        link.answer(id, result).expect("it is open");
        link.close(Some(ErrorKind::Closing), "the server closes", WATCHDOG);
        assert!(next(&client.answers).1.expect("it was answered") == bytes(3 << 20));
        let reason = next(&client.closed);
        let Closed::Goodbye { kind: Some(ErrorKind::Closing), reason } = &*reason else { panic!("{reason}") };
        assert_eq!(reason, "the server closes");

        let crashed = Client::connect(&world.address, config("client"));
        crashed.call("keep", &Tree::Null);
        crashed.call("echo", &Tree::Null);
        next(&crashed.answers).1.expect("echo does not fail");
        let (link, _) = world.service.kept.lock().pop().expect("it was kept");
        link.abort();
        assert!(matches!(&*next(&crashed.closed), Closed::Lost { .. }));
    });
}

#[test]
fn a_goodbye_does_not_wait_for_a_grant_that_never_comes() {
    for_each_socket("no-grant", |address| {
        let world = serve(address, config("service"), 256 << 20);
        let budget = Budget::new(1 << 20);
        // While this charge exists, the client grants nothing.
        let _held = budget.try_charge(1);
        let client = Client::with(&world.address, config("client"), Some(budget));
        client.call("keep", &Tree::Null);
        client.call("echo", &Tree::Null);
        next(&client.answers).1.expect("echo does not fail");
        let (link, id) = world.service.kept.lock().pop().expect("it was kept");
        let result = Message::result(&bytes(3 << 20), &Limits::default()).expect("it fits");
        link.answer(id, result).expect("it is open");
        link.close(Some(ErrorKind::Closing), "the server closes", Duration::from_millis(50));
        let reason = next(&client.closed);
        assert!(matches!(&*reason, Closed::Goodbye { kind: Some(ErrorKind::Closing), .. }), "{reason}");
        assert!(client.answers.try_recv().is_err());
    });
}

#[test]
fn a_client_that_vanishes_is_noticed_and_its_memory_given_back() {
    for_each_socket("vanish", |address| {
        let world = serve(address, config("service"), 8 << 20);
        let (sender, closed) = channel();
        *world.service.closed.lock() = Some(sender);
        let client = Client::connect(&world.address, config("client"));
        client.call("keep", &bytes(5 << 20));
        client.call("keep", &bytes(5 << 20));
        client.call("echo", &Tree::Null);
        next(&client.answers).1.expect("echo does not fail");
        client.link.abort();
        assert!(matches!(&*next(&closed), Closed::Lost { .. }));
        world.service.kept.lock().clear();
        let other = Client::connect(&world.address, config("client"));
        other.call("echo", &bytes(8 << 20));
        assert!(next(&other.answers).1.expect("the memory is free again") == bytes(8 << 20));
    });
}

/// A socket whose other end is the test itself, which may send anything.
fn stranger(world: &World, bytes: &[u8]) -> Vec<u8> {
    let socket =
        Socket::connect(&world.address, Some(Instant::now() + WATCHDOG)).expect("the server listens");
    let mut sent = 0;
    let mut received = Vec::new();
    let watchdog = Instant::now() + WATCHDOG;
    loop {
        assert!(Instant::now() < watchdog, "the server neither answers nor closes");
        if sent < bytes.len() {
            // The server may have closed already.
            sent += socket.write_vectored(&[IoSlice::new(&bytes[sent..])]).unwrap_or(0);
        }
        let mut buffer = [0; 4096];
        match socket.read_vectored(&mut [IoSliceMut::new(&mut buffer)]) {
            Ok(0) => return received,
            Ok(n) => received.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(_) => return received,
        }
    }
}

#[test]
fn strangers_are_turned_away_and_rule_breakers_get_the_reason() {
    for_each_socket("strangers", |address| {
        let world = serve(address, config("service"), 8 << 20);
        let (sender, closed) = channel();
        *world.service.closed.lock() = Some(sender);
        let client = Client::connect(&world.address, config("client"));
        stranger(&world, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let reason = next(&closed).to_string();
        assert!(reason.contains("HTTP"), "{reason}");

        // A call before the hello.
        let mut bytes = teleport_transport::wire::Preface::BYTES.to_vec();
        let message =
            Message::call(&CallHead::new("echo"), &Tree::Null, &Limits::default()).expect("it fits");
        bytes.extend(message.header(1, false));
        bytes.extend(message.metadata());
        let answer = stranger(&world, &bytes);
        let reason = next(&closed).to_string();
        assert!(reason.contains("before the hello"), "{reason}");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("before the hello"), "the peer gets the reason: {text}");

        client.call("echo", &Tree::Null);
        next(&client.answers).1.expect("others notice nothing");
    });
}

#[test]
fn silence_ends_a_connection_on_both_sides() {
    for_each_socket("silence", |address| {
        let quick = |name| Config {
            ping_interval: Duration::from_secs(100),
            max_silence: Duration::from_millis(150),
            ..config(name)
        };
        let world = serve(address, quick("service"), 8 << 20);
        let (sender, closed) = channel();
        *world.service.closed.lock() = Some(sender);
        // Neither side sends pings, so both are silent.
        let client = Client::connect(&world.address, quick("client"));
        let reasons = [next(&client.closed), next(&closed)];
        assert!(reasons.iter().any(|reason| matches!(&**reason, Closed::NotAlive { .. })), "{reasons:?}");
    });
}

#[test]
fn pings_keep_an_idle_connection() {
    for_each_socket("pings", |address| {
        let lively = |name| Config {
            ping_interval: Duration::from_millis(20),
            max_silence: Duration::from_secs(20),
            ..config(name)
        };
        let world = serve(address, config("service"), 8 << 20);
        let client = Client::connect(&world.address, lively("client"));
        // Each ping is answered. Otherwise the connection would end.
        assert!(client.closed.recv_timeout(Duration::from_millis(200)).is_err());
        client.call("echo", &Tree::Null);
        next(&client.answers).1.expect("it is still open");
    });
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    for_each_socket("mute", |address| {
        let hasty = Config { handshake_timeout: Duration::from_millis(50), ..config("service") };
        let world = serve(address, hasty, 8 << 20);
        let (sender, closed) = channel();
        *world.service.closed.lock() = Some(sender);
        stranger(&world, b"");
        assert!(matches!(&*next(&closed), Closed::NoHandshake { .. }));
    });
}
