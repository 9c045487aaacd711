//! A minimal client, directly on the transport, and tools to wait.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use teleport_server::transport::protocol::{Closed, Gate, Role, Withdrawn};
use teleport_server::transport::{Answers, Config, Handler, Link, Poller, Socket, Wakers};
use teleport_server::wire::{CallHead, ErrorKind, Hello, Message, Ran, RemoteError, Tree};
use teleport_server::{Methods, Server, ServerHandle};

/// A step of a test that takes longer is considered to hang.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);

pub(crate) type Answer = Result<Tree, RemoteError>;

#[derive(Default)]
struct Raw {
    answers: Mutex<HashMap<u64, Sender<Answer>>>,
    opened: Mutex<Option<Sender<()>>>,
    closed: Mutex<Option<Sender<Arc<Closed>>>>,
}

impl Gate for Raw {
    fn admit(&self, _: &str, _: u64) -> Result<u32, RemoteError> {
        Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, "a client has no methods"))
    }
}

impl Handler for Raw {
    fn opened(&self, _: &Arc<Link>, _: &Hello) {
        self.opened.lock().unwrap().take();
    }

    fn answered(&self, _: &Arc<Link>, answers: Answers<'_, '_>, _: &mut Wakers) {
        for (id, answer) in answers {
            let sender = self.answers.lock().unwrap().remove(&id).expect("each call is answered once");
            let _ = sender.send(answer.map(|reply| reply.tree.expect("strings are UTF-8")));
        }
    }

    fn closed(&self, _: &Arc<Link>, reason: &Arc<Closed>, _: &mut Wakers) {
        self.answers.lock().unwrap().clear();
        self.opened.lock().unwrap().take();
        if let Some(sender) = self.closed.lock().unwrap().take() {
            let _ = sender.send(reason.clone());
        }
    }
}

/// A connected client.
pub(crate) struct Client {
    pub(crate) link: Arc<Link>,
    raw: Arc<Raw>,
    closed: Receiver<Arc<Closed>>,
}

/// A call that was sent.
pub(crate) struct Sent {
    pub(crate) id: u64,
    answer: Receiver<Answer>,
}

impl Sent {
    pub(crate) fn wait(self) -> Answer {
        self.answer.recv_timeout(WATCHDOG).expect("the call is answered")
    }

    pub(crate) fn error(self) -> RemoteError {
        self.wait().expect_err("the call fails")
    }
}

impl Client {
    pub(crate) fn connect(server: &ServerHandle) -> Client {
        Client::with(server, Config { name: "tester".into(), ..Config::default() })
    }

    pub(crate) fn with(server: &ServerHandle, config: Config) -> Client {
        let (opened, wait_opened) = channel();
        let (sender, closed) = channel();
        let raw = Arc::new(Raw::default());
        *raw.opened.lock().unwrap() = Some(opened);
        *raw.closed.lock().unwrap() = Some(sender);
        let socket =
            Socket::connect(server.address(), Some(Instant::now() + WATCHDOG)).expect("the server listens");
        let poller = Poller::shared().expect("a poller starts");
        let link = poller
            .attach(socket, Role::Client, &Arc::new(config), None, raw.clone())
            .expect("the link is attached");
        // The sender is dropped when the hello has arrived.
        assert_eq!(wait_opened.recv_timeout(WATCHDOG), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        Client { link, raw, closed }
    }

    pub(crate) fn send(&self, method: &str, tree: Tree) -> Sent {
        self.send_head(&CallHead::new(method), tree)
    }

    pub(crate) fn send_head(&self, head: &CallHead<'_>, tree: Tree) -> Sent {
        let limits = self.link.peer_limits().expect("the link is open");
        let message = Message::call(head, &tree, &limits).expect("the server takes it");
        let (sender, answer) = channel();
        let register = |id| self.raw.answers.lock().unwrap().insert(id, sender).is_none();
        let id = self.link.call(message, register).expect("the link is open");
        Sent { id, answer }
    }

    pub(crate) fn call(&self, method: &str, tree: Tree) -> Answer {
        self.send(method, tree).wait()
    }

    pub(crate) fn withdraw(&self, sent: &Sent) -> Withdrawn {
        self.link.withdraw(sent.id)
    }

    /// Waits until the connection ends, and returns why.
    pub(crate) fn end(&self) -> Arc<Closed> {
        self.closed.recv_timeout(WATCHDOG).expect("the connection ends")
    }
}

pub(crate) fn server() -> Server {
    Server::bind("tcp://127.0.0.1:0").expect("there is a port")
}

pub(crate) fn start(methods: Methods) -> ServerHandle {
    server().start(methods).expect("it starts")
}

/// Waits in a busy loop until other threads have made a condition true.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + WATCHDOG;
    while !is_so() {
        assert!(Instant::now() < end, "did not happen in time: {what}");
        std::thread::yield_now();
    }
}

/// A door at which functions stop until the test opens it.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<(Mutex<State>, std::sync::Condvar)>);

#[derive(Default)]
struct State {
    arrived: usize,
    allowed: usize,
}

impl Stop {
    pub(crate) fn new() -> Stop {
        Stop::default()
    }

    /// Stops until the test lets this thread through. Returns how many threads have arrived, including this
    /// one.
    pub(crate) fn pass(&self) -> usize {
        let mut state = self.0.0.lock().unwrap();
        state.arrived += 1;
        let number = state.arrived;
        self.0.1.notify_all();
        let go_on = |state: &mut State| state.allowed < number;
        let (_state, result) = self.0.1.wait_timeout_while(state, WATCHDOG, go_on).unwrap();
        assert!(!result.timed_out(), "the test did not open the door");
        number
    }

    /// Lets `count` more threads through.
    pub(crate) fn allow(&self, count: usize) {
        self.0.0.lock().unwrap().allowed += count;
        self.0.1.notify_all();
    }

    pub(crate) fn arrived(&self) -> usize {
        self.0.0.lock().unwrap().arrived
    }

    /// Waits until `count` threads have arrived.
    pub(crate) fn wait_for(&self, count: usize) {
        let state = self.0.0.lock().unwrap();
        let (_state, result) =
            self.0.1.wait_timeout_while(state, WATCHDOG, |state| state.arrived < count).unwrap();
        assert!(!result.timed_out(), "too few threads came to the door");
    }
}
