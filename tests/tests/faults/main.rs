//! Networks that fail, simulated by a proxy, and a machine without free file descriptors.
//!
//! - `exhausted`: no descriptor is left for another connection
//! - `silence`: both sides give up silent peers and keep living ones
//! - `slow`: late, slow and split streams arrive whole
//! - `corrupt`: a flipped bit fails one call
//! - `withdrawn`: calls that are cancelled or expire while the network is stalled
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod corrupt;
mod exhausted;
mod silence;
mod slow;
mod withdrawn;

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use teleport::{Client, ClientBuilder, Context, Method, Methods, Server, ServerHandle, Tree, tree};
use teleport_tests::{Proxy, abstract_address, until, watched};

const PING_INTERVAL: Duration = Duration::from_millis(100);
/// As short as a busy machine allows: a living peer must answer a ping within this time.
const MAX_SILENCE: Duration = Duration::from_millis(1500);
const HOUR: Duration = Duration::from_secs(3600);

/// A server and a proxy in front of it.
struct Scene {
    server: ServerHandle,
    proxy: Proxy,
    /// Receives the argument of each call of `hold` and `note` when the call begins.
    began: Receiver<Tree>,
}

impl Scene {
    /// Starts a server that gives up a silent client after `max_silence`.
    ///
    /// Its methods are `echo`, `note`, which reports that it ran, and `hold`, which reports that it began and
    /// runs until its caller is gone. `hold` has four threads, the others have one each.
    fn start(address: &str, max_silence: Duration) -> Scene {
        Scene::with(address, |server| server.ping_interval(PING_INTERVAL).max_silence(max_silence))
    }

    fn with(address: &str, options: impl FnOnce(Server) -> Server) -> Scene {
        let (sender, began) = mpsc::channel();
        let tell = Arc::new(Mutex::new(sender));
        let note = {
            let tell = tell.clone();
            move |x: Tree| tell.lock().unwrap().send(x).unwrap()
        };
        let hold = move |x: Tree, cx: Context| {
            tell.lock().unwrap().send(x).unwrap();
            until("the caller is gone", || cx.is_cancelled());
        };
        let methods = Methods::new()
            .register("echo", |x: Tree| x)
            .register("note", Method::new(note).workers(1))
            .register("hold", Method::new(hold).workers(4));
        let server = options(Server::bind(address).unwrap()).start(methods).unwrap();
        let proxy = Proxy::start(&server.address().to_string());
        Scene { server, proxy, began }
    }

    /// Returns a client behind the proxy that gives up a silent server after `max_silence`.
    fn client(&self, max_silence: Duration) -> Client {
        self.builder(max_silence).connect().unwrap()
    }

    fn builder(&self, max_silence: Duration) -> ClientBuilder {
        Client::builder(&self.proxy.address()).ping_interval(PING_INTERVAL).max_silence(max_silence)
    }

    /// Waits until a call of `hold` or `note` begins and returns its argument.
    #[track_caller]
    fn begins(&self) -> Tree {
        self.began.recv_timeout(teleport_tests::WATCHDOG).unwrap()
    }

    /// Waits until the server has no client and runs no call.
    #[track_caller]
    fn is_alone(&self) {
        until("the server gives up its client", || self.server.clients() == 0);
        until("its calls are withdrawn", || self.server.stats().running == 0);
        until("its memory is freed", || self.server.stats().held_bytes == 0);
    }
}

/// Runs a test for both kinds of sockets, at the same time since most of these tests wait.
fn for_each_address(check: impl Fn(&str) + Send + Sync + 'static) {
    watched(move || {
        std::thread::scope(|scope| {
            scope.spawn(|| check("tcp://127.0.0.1:0"));
            check(&abstract_address());
        });
    });
}

#[track_caller]
fn is_answered(client: &Client) {
    assert_eq!(client.call("echo", tree!("text")).wait().unwrap(), tree!("text"));
}

/// Returns an argument of `len` bytes, whose pattern never repeats at the start of a chunk.
fn bytes(len: usize) -> Tree {
    const PERIOD: usize = 65_521;
    let pattern: Vec<u8> = (0..PERIOD).map(|i| (i ^ (i >> 8)) as u8).collect();
    let mut bytes = pattern.repeat(len.div_ceil(PERIOD));
    bytes.truncate(len);
    Tree::from(teleport::Array::from(bytes))
}
