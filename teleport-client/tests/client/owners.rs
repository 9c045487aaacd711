//! Arrays on memory of the user, whose destructor may use the client on whatever thread it runs.

use std::sync::mpsc;
use std::time::Duration;

use teleport_client::transport::Config;
use teleport_client::wire::{Array, Buffer, DType, Ran, Tree, tree};
use teleport_client::{CallFuture, Client};

use crate::support::{Seen, Server, address, until, watched};

const SMALL: usize = 100;
/// The size of an array that waits for a grant.
const LARGE: usize = 4 << 20;
/// The size of an array that needs no grant but more than one write.
const MEDIUM: usize = 512 << 10;

/// The owner's destructor uses the client in every way that does not block, and reports that it ran.
struct Owner {
    bytes: Vec<u8>,
    client: Client,
    /// A future whose result is deferred. Dropping it takes the lock that readers hold.
    deferred: Option<CallFuture>,
    dropped: mpsc::Sender<()>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.deferred.take());
        self.client.stats();
        if let Ok(future) = self.client.call("hold", tree!([1, 2])).try_send() {
            let _: Ran = future.cancel();
        }
        drop(self.client.call("echo", tree!("from a destructor")).try_send());
        // The test may be over.
        let _ = self.dropped.send(());
    }
}

struct World {
    server: Server,
    client: Client,
    /// A future whose result holds all memory for results.
    _unread: CallFuture,
    dropped: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl World {
    /// Starts a server with this eager credit, and a client whose memory for results is in use.
    fn new(eager_credit_bytes: u64) -> World {
        let server = Server::with(&address(), Config { eager_credit_bytes, ..Config::default() });
        let client =
            Client::builder(&server.address).max_memory(1 << 20).max_inflight(100).connect().unwrap();
        let unread = client.call("echo", Array::zeros::<u8>([LARGE])).send().unwrap();
        until("it holds all memory", || client.stats().held_bytes >= 1 << 20 && client.stats().receives == 1);
        World { server, client, _unread: unread, dropped: mpsc::channel() }
    }

    /// Creates an array on memory of an [`Owner`].
    fn array(&self, bytes: usize) -> Tree {
        let waiting = self.client.stats().awaiting_memory;
        let deferred = self.client.call("echo", Array::zeros::<u8>([LARGE])).send().unwrap();
        until("its result waits", || self.client.stats().awaiting_memory > waiting);
        let owner = Owner {
            bytes: vec![7; bytes],
            client: self.client.clone(),
            deferred: Some(deferred),
            dropped: self.dropped.0.clone(),
        };
        Array::from_buffer(DType::U8, [bytes], Buffer::from_owner(owner)).unwrap().into()
    }

    /// Waits until this number of owners was dropped.
    fn are_gone(&self, owners: usize) {
        for _ in 0..owners {
            self.dropped.1.recv_timeout(Duration::from_secs(60)).expect("a destructor runs and returns");
        }
    }
}

#[test]
fn arguments_of_every_size_are_dropped_when_they_were_sent() {
    watched(|| {
        for size in [SMALL, MEDIUM, LARGE] {
            let world = World::new(1 << 20);
            for _ in 0..3 {
                let call = world.client.call("hold", world.array(size));
                drop(call.send().unwrap());
                world.are_gone(1);
            }
            assert_eq!(world.client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
        }
    });
}

#[test]
fn arguments_are_dropped_while_the_caller_waits() {
    watched(|| {
        let world = World::new(1 << 20);
        let call = world.client.call("hold", world.array(SMALL));
        let waiting = std::thread::spawn(move || call.wait().unwrap());
        world.are_gone(1);
        world.server.saw_held(1);
        world.server.answer_newest();
        waiting.join().unwrap();
    });
}

#[test]
fn arguments_that_were_not_sent_are_dropped_when_the_call_is_withdrawn() {
    watched(|| {
        let world = World::new(1 << 20);
        for size in [SMALL, MEDIUM, LARGE, 20 * LARGE] {
            let call = world.client.call("hold", world.array(size));
            let _: Ran = call.send().unwrap().cancel();
            world.are_gone(1);
            let late = world.client.call("hold", world.array(size)).deadline(Duration::from_millis(1));
            // Its deadline may pass before it is sent.
            drop(late.send());
            world.are_gone(1);
        }
        assert_eq!(world.client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
    });
}

#[test]
fn arguments_are_dropped_when_the_server_refuses_the_call() {
    watched(|| {
        // Without credit, the payload still waits when the refusal arrives.
        let world = World::new(0);
        for size in [SMALL, LARGE] {
            let refused = world.client.call("no such method", world.array(size)).wait();
            assert!(refused.is_err());
            world.are_gone(1);
        }
    });
}

#[test]
fn arguments_are_dropped_when_the_connection_ends() {
    watched(|| {
        for size in [SMALL, MEDIUM, 20 * LARGE] {
            let world = World::new(1 << 20);
            // All arrays exist before the first one is sent and perhaps dropped.
            let arrays = [(); 3].map(|()| world.array(size));
            let futures = arrays.map(|array| world.client.call("hold", array).send().unwrap());
            world.server.cut();
            world.are_gone(3);
            assert!(futures.into_iter().all(|future| future.wait().is_err()));
            assert_eq!(world.client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
        }
    });
}

#[test]
fn a_destructor_that_panics_ends_nothing() {
    struct Panics(Vec<u8>, mpsc::Sender<()>);
    impl AsRef<[u8]> for Panics {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
            panic!("this destructor panics");
        }
    }
    watched(|| {
        let server = Server::start(&address());
        let client = Client::connect(&server.address).unwrap();
        let (dropped, is_dropped) = mpsc::channel();
        // The poller sends it when the grant comes. A panic on the caller's thread would be the caller's.
        for size in [LARGE, 5 * LARGE] {
            let buffer = Buffer::from_owner(Panics(vec![7; size], dropped.clone()));
            let array = Array::from_buffer(DType::U8, [size], buffer).unwrap();
            let future = client.call("hold", array).send().unwrap();
            server.saw(&Seen::Called { method: "hold" });
            is_dropped.recv_timeout(Duration::from_secs(60)).unwrap();
            server.answer();
            assert!(future.wait().is_ok());
        }
        assert_eq!(client.stats().connects, 1);
    });
}
