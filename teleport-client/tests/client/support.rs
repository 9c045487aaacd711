//! A server of a few methods, built directly on the transport, and a watchdog.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use teleport_client::transport::protocol::{Closed, Gate, Role};
use teleport_client::transport::{
    AcceptError, Acceptor, Call, Calls, Config, Handler, Link, Listener, Listening, Poller, PollerThread,
    Socket, TurnClock, Wakers,
};
use teleport_client::wire::{ErrorKind, Hello, Message, Ran, RemoteError, Tree, tree};

/// A test that takes longer is considered to hang.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs a test on another thread, and fails if it does not end.
pub(crate) fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        // The sender is dropped at the end of the test, even if it panics.
        let _done: mpsc::Sender<()> = done;
        test();
    });
    match ended.recv_timeout(WATCHDOG) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Polls until `is_so`, for conditions without a notification.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WATCHDOG, "this did not happen: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Returns an address that no other test uses.
pub(crate) fn address() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ipc://@teleport-client-test-{}-{number}", std::process::id())
}

/// An event at the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Opened { name: String },
    Called { method: &'static str },
    Cancelled,
    Closed { goodbye: bool },
}

type Inline = Box<dyn Fn(Tree) -> Tree + Send + Sync>;

struct Shared {
    poller: Poller,
    config: Arc<Config>,
    seen: Mutex<mpsc::Sender<Seen>>,
    links: Mutex<Vec<Arc<Link>>>,
    /// Calls of "hold" that wait for [`Server::answer`], with the oldest first.
    held: Mutex<Vec<(Arc<Link>, u64, Tree)>>,
    /// The function that "inline" runs on the poller's thread.
    inline: Mutex<HashMap<&'static str, Inline>>,
}

/// Dropping it ends all connections without a goodbye.
pub(crate) struct Server {
    shared: Arc<Shared>,
    seen: mpsc::Receiver<Seen>,
    listening: Option<Listening>,
    _thread: PollerThread,
    pub(crate) address: String,
}

const METHODS: [&str; 6] = ["echo", "hold", "fail", "panic", "inline", "closing"];

impl Server {
    pub(crate) fn start(address: &str) -> Server {
        Server::with(address, Config::default())
    }

    pub(crate) fn with(address: &str, config: Config) -> Server {
        let thread = PollerThread::start("test-server").unwrap();
        let (sender, seen) = mpsc::channel();
        let shared = Arc::new(Shared {
            poller: thread.poller().clone(),
            config: Arc::new(config),
            seen: Mutex::new(sender),
            links: Mutex::default(),
            held: Mutex::default(),
            inline: Mutex::default(),
        });
        let listener = Listener::bind(&address.parse().unwrap()).unwrap();
        let address = listener.address().to_string();
        let listening = thread.poller().listen(listener, Arc::new(Accept(shared.clone()))).unwrap();
        Server { shared, seen, listening: Some(listening), _thread: thread, address }
    }

    /// Returns the next event.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.recv_timeout(WATCHDOG).unwrap()
    }

    /// Waits for the event `expected`.
    pub(crate) fn saw(&self, expected: &Seen) {
        while self.seen() != *expected {}
    }

    /// Waits for this number of calls of "hold".
    pub(crate) fn saw_held(&self, calls: usize) {
        (0..calls).for_each(|_| self.saw(&Seen::Called { method: "hold" }));
    }

    /// Answers the oldest held call with its arguments.
    pub(crate) fn answer(&self) {
        let (link, id, tree) = self.shared.held.lock().unwrap().remove(0);
        let _ = link.answer(id, result(&link, &tree));
    }

    /// Answers the newest held call with its arguments.
    pub(crate) fn answer_newest(&self) {
        let (link, id, tree) = self.shared.held.lock().unwrap().pop().unwrap();
        let _ = link.answer(id, result(&link, &tree));
    }

    /// Lets "inline" run `function` on the poller's thread.
    pub(crate) fn set_inline(&self, function: impl Fn(Tree) -> Tree + Send + Sync + 'static) {
        self.shared.inline.lock().unwrap().insert("inline", Box::new(function));
    }

    /// Says goodbye to all clients.
    pub(crate) fn goodbye(&self, kind: Option<ErrorKind>, reason: &str) {
        for link in self.shared.links.lock().unwrap().drain(..) {
            link.close(kind, reason, Duration::from_secs(1));
        }
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.shared.links.lock().unwrap().drain(..).for_each(|link| link.abort());
    }

    pub(crate) fn stop_listening(&mut self) {
        self.listening = None;
    }
}

fn result(link: &Link, tree: &Tree) -> Message {
    let limits = link.peer_limits().unwrap_or_default();
    Message::result(tree, &limits).unwrap_or_else(|error| {
        Message::error(&RemoteError::new(ErrorKind::TooLarge, Ran::Yes, error.to_string()))
    })
}

struct Accept(Arc<Shared>);

impl Acceptor for Accept {
    fn accepted(&self, socket: Socket) {
        let shared = &self.0;
        let _ = shared.poller.attach(socket, Role::Server, &shared.config, None, shared.clone());
    }

    fn failed(&self, error: &AcceptError) {
        panic!("{error}");
    }
}

impl Shared {
    fn note(&self, seen: Seen) {
        let _ = self.seen.lock().unwrap().send(seen);
    }
}

impl Gate for Shared {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        match METHODS.iter().position(|name| *name == method) {
            Some(slot) => Ok(slot as u32),
            None => Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, format!("no method {method:?}"))),
        }
    }
}

impl Shared {
    fn call(&self, link: &Arc<Link>, call: Call) {
        let Call { id, slot, tree, .. } = call;
        let tree = tree.unwrap();
        let method = METHODS[slot as usize];
        let failed =
            |kind, ran, text: &str| Message::error(&RemoteError::new(kind, ran, text).with_code("E7"));
        let message = match method {
            "echo" => result(link, &tree),
            "fail" => failed(ErrorKind::Failed, Ran::Yes, tree.as_str().unwrap_or("no reason")),
            "panic" => failed(ErrorKind::Panicked, Ran::Yes, "it panicked"),
            "closing" => failed(ErrorKind::Closing, Ran::No, "closing"),
            "inline" => {
                let answer = self.inline.lock().unwrap().get("inline").map_or(tree!(null), |run| run(tree));
                result(link, &answer)
            }
            _ => {
                self.held.lock().unwrap().push((link.clone(), id, tree));
                return self.note(Seen::Called { method });
            }
        };
        let _ = link.answer(id, message);
        self.note(Seen::Called { method });
    }
}

impl Handler for Shared {
    fn opened(&self, link: &Arc<Link>, peer: &Hello) {
        self.links.lock().unwrap().push(link.clone());
        self.note(Seen::Opened { name: peer.name.clone() });
    }

    fn called(&self, link: &Arc<Link>, calls: Calls<'_, '_>, _: &mut TurnClock) {
        calls.for_each(|call| self.call(link, call));
    }

    fn cancelled(&self, _link: &Arc<Link>, _id: u64) {
        self.note(Seen::Cancelled);
    }

    fn closed(&self, _link: &Arc<Link>, reason: &Arc<Closed>, _wakers: &mut Wakers) {
        self.note(Seen::Closed { goodbye: matches!(**reason, Closed::Goodbye { .. }) });
    }
}
