//! Parts of a server that are dropped without being closed. No part keeps itself alive.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_transport::protocol::{Closed, Gate, Role};
use teleport_transport::wire::{Array, CallHead, ErrorKind, Hello, Message, Ran, RemoteError, Tree};
use teleport_transport::{Config, Handler, Link, Listener, PollerThread, Socket, Wakers, random_id};

use crate::api::batch_options::Batch;
use crate::api::functions::method::Method;
use crate::api::functions::methods::Methods;
use crate::api::options::Options;
use crate::call::job::PoolQueue;
use crate::call::open_call::OpenCall;
use crate::connection::accept::ConnectionAcceptor;
use crate::dispatcher::{Dispatcher, Queues};
use crate::queue::fair_queue::Queued;
use crate::queue::pool::Work;
use crate::registry::Registry;
use crate::runtime::shared::Shared;

const WATCHDOG: Duration = Duration::from_secs(30);

/// A client that only notes that it is closed.
#[derive(Default)]
struct Client {
    is_closed: Mutex<bool>,
}

impl Gate for Client {
    fn admit(&self, _: &str, _: u64) -> Result<u32, RemoteError> {
        Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, "a client has no methods"))
    }
}

impl Handler for Client {
    fn opened(&self, _: &Arc<Link>, _: &Hello) {}

    fn closed(&self, _: &Arc<Link>, _: &Arc<Closed>, _: &mut Wakers) {
        *self.is_closed.lock() = true;
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + WATCHDOG;
    while !is_so() {
        assert!(Instant::now() < end, "did not happen in time: {what}");
        std::thread::yield_now();
    }
}

/// Returns true if a value is still alive.
type IsAlive = Box<dyn Fn() -> bool>;

fn watch<T: 'static>(value: &Arc<T>) -> IsAlive {
    let value: Weak<T> = Arc::downgrade(value);
    Box::new(move || value.strong_count() > 0)
}

fn take(pool: &PoolQueue) -> Option<Queued<OpenCall>> {
    match pool.take(0, || None::<()>)? {
        Work::Call(call, arguments, _) => Some((call, arguments)),
        Work::Batch(..) => None,
    }
}

#[test]
fn queued_calls_and_open_connections_keep_no_server_alive() {
    let token = Arc::new(());
    let captured = token.clone();
    let methods = Methods::new()
        .register("plain", move |x: Tree| {
            let _ = &captured;
            x
        })
        .register("stacked", Method::batched(Batch::exact(8), |x: Tree| x))
        .register("listed", Method::listed(Batch::exact(8), |calls: Vec<Tree>| calls));
    let options = Options::new();
    let registry = Registry::build(methods, 1, &[]).unwrap();
    let shared = Shared::new(&options, Arc::default());
    let queues = Arc::new(Queues::new(&registry, &shared, Duration::ZERO));
    let dispatcher = Dispatcher::new(&options, &shared, registry, &queues);
    let poller = PollerThread::start("server").unwrap();
    let acceptor = ConnectionAcceptor::new(&dispatcher, &options, vec![poller.poller().clone()]);
    let listener = Listener::bind(&"tcp://127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address().clone();
    let listening = poller.poller().listen(listener, Arc::new(acceptor)).unwrap();

    let client_poller = PollerThread::start("client").unwrap();
    let client = Arc::new(Client::default());
    let config = Config { session: random_id(), resume: true, ..Config::default() };
    let socket = Socket::connect(&address, Some(Instant::now() + WATCHDOG)).unwrap();
    let (config, poller_of_client) = (Arc::new(config), client_poller.poller());
    let link = poller_of_client.attach(socket, Role::Client, &config, None, client.clone()).unwrap();
    until("the server greets", || link.peer_limits().is_some());
    // There are no workers, so all calls stay in their queues.
    let tree = Tree::from(Array::from(vec![0u8; 10_000]));
    for method in ["plain", "stacked", "listed"] {
        for resume in [false, true] {
            let head = CallHead { resume, ..CallHead::new(method) };
            let message = Message::call(&head, &tree, &link.peer_limits().unwrap()).unwrap();
            link.call(message, |_| true).unwrap();
        }
    }
    until("all calls are queued", || queues.len() == 6);

    let pool = &queues.pools[0];
    let taken: Vec<Queued<OpenCall>> = (0..2).filter_map(|_| take(pool)).collect();
    let session = taken.iter().find_map(|(call, _)| call.session.clone()).unwrap();
    let server_link = dispatcher.connections.all().remove(0);
    let are_calls_alive: Vec<IsAlive> = taken.iter().map(|(call, _)| watch(call)).collect();
    let rest = [
        watch(&queues.batchers[0]),
        watch(pool),
        watch(&dispatcher),
        watch(&shared),
        watch(&server_link),
        watch(&session),
        watch(&token),
    ];
    taken.into_iter().for_each(|(call, arguments)| pool.push(call, arguments).unwrap());
    drop((server_link, session, token));

    // The connection stays open.
    drop((queues, dispatcher, shared));
    assert!(are_calls_alive.iter().all(|is_alive| !is_alive()));
    assert!(!*client.is_closed.lock(), "the connection is open");
    drop(listening);
    drop(poller);
    for is_alive in rest {
        assert!(!is_alive());
    }
    until("the client hears of it", || *client.is_closed.lock());
}
