//! Networks that fail, made by a proxy, and what both sides make of it; and a machine that has no more to give.
//!
//! - `exhausted`: no descriptor is left for another connection
//! - `silence`: peers that nothing comes from any more are given up, on both sides, and others are not
//! - `slow`: late, slow and split streams are whole
//! - `corrupt`: a flipped bit fails one call
//! - `withdrawn`: calls that are cancelled or whose time is over while the network stands still
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
/// As short as a busy machine allows: a living peer must answer a ping within it.
const MAX_SILENCE: Duration = Duration::from_millis(1500);
const HOUR: Duration = Duration::from_secs(3600);

/// A server, and a proxy in front of it.
struct Scene {
    server: ServerHandle,
    proxy: Proxy,
    /// Gets the argument of each call of `hold` and `note` as it begins.
    began: Receiver<Tree>,
}

impl Scene {
    /// A server that gives a silent client up after `max_silence`. It has the methods `echo`; `note`, which tells that it
    /// ran; and `hold`, which tells that it began and lasts until its caller is gone. One thread each runs them, but
    /// four `hold`.
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

    /// A client behind the proxy that gives a silent server up after `max_silence`.
    fn client(&self, max_silence: Duration) -> Client {
        self.builder(max_silence).connect().unwrap()
    }

    fn builder(&self, max_silence: Duration) -> ClientBuilder {
        Client::builder(&self.proxy.address()).ping_interval(PING_INTERVAL).max_silence(max_silence)
    }

    /// Waits until a call of `hold` or `note` has begun.
    #[track_caller]
    fn begins(&self) -> Tree {
        self.began.recv_timeout(teleport_tests::WATCHDOG).unwrap()
    }

    /// Waits until the server has no client and runs nothing.
    #[track_caller]
    fn is_alone(&self) {
        until("the server gives its client up", || self.server.clients() == 0);
        until("its calls are withdrawn", || self.server.stats().running == 0);
        until("its memory is given back", || self.server.stats().held_bytes == 0);
    }
}

/// Both at once, since most of these tests wait.
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

/// Arguments of so many bytes. They repeat themselves, but never at the start of a chunk.
fn bytes(len: usize) -> Tree {
    const PERIOD: usize = 65_521;
    let pattern: Vec<u8> = (0..PERIOD).map(|i| (i ^ (i >> 8)) as u8).collect();
    let mut bytes = pattern.repeat(len.div_ceil(PERIOD));
    bytes.truncate(len);
    Tree::from(teleport::Array::from(bytes))
}
