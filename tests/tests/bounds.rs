//! What peers can make a server keep, against a server with little memory: results that a client does not fetch, and
//! arguments that come slowly or that functions keep.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use teleport::wire::{
    CallHead, ErrorKind, Goodbye, Header, Hello, Kind, Limits, MAX_CHUNK_BYTES, Message, Ran, RemoteError,
    decode_ids, encode_frame, encode_ids,
};
use teleport::{
    Array, Batch, Buffer, CallFuture, Client, DType, Method, Methods, OnDisconnect, Server, ServerHandle,
    Tree, tree,
};
use teleport_tests::{Cut, Log, Proxy, Raw, Received, Toward, until, watched};

const MAX_MEMORY: u64 = 40 << 20;

/// What of it grants and results may take.
const SHARED: u64 = MAX_MEMORY / 4 * 3;

/// What a connection may leave unfetched before its calls wait.
const QUOTA: u64 = MAX_MEMORY / 8;

/// The arrays that are called with and given back.
const BYTES: u64 = 500_000;

/// Far more than fit the memory.
const CALLS: u64 = 250;

fn serve(methods: Methods) -> ServerHandle {
    Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY).start(methods).unwrap()
}

fn echo() -> Methods {
    Methods::new().register("echo", |x: Tree| x).register("inline", Method::inline(|x: Tree| x))
}

/// A peer whose every message waits for a grant, in both directions.
struct Asking {
    raw: Raw,
    call: Message,
    next_id: u64,
    granted: u64,
    /// Results whose head came, and that were not granted.
    withheld: BTreeSet<u64>,
    /// Payload of results that came.
    fetched_bytes: u64,
    errors: Vec<(u64, RemoteError)>,
}

impl Asking {
    fn new(server: &ServerHandle, method: &str, bytes: u64) -> Asking {
        let mut raw = Raw::connect(&server.address().to_string());
        raw.introduce(&Hello { eager_credit_bytes: 0, ..Raw::hello() });
        let array = Array::from(vec![7u8; bytes as usize]);
        let call = Message::call(&CallHead::new(method), &Tree::Array(array), &Limits::default()).unwrap();
        Asking {
            raw,
            call,
            next_id: 1,
            granted: 0,
            withheld: BTreeSet::new(),
            fetched_bytes: 0,
            errors: Vec::new(),
        }
    }

    /// Sends the heads of so many calls.
    fn begin(&mut self, calls: u64) {
        for _ in 0..calls {
            self.raw.send_head(self.next_id, &self.call, false);
            self.next_id += 1;
        }
    }

    fn send_payload(&mut self, id: u64) {
        let chunk = MAX_CHUNK_BYTES as usize;
        for bytes in self.call.payload.iter().flat_map(|buffer| buffer.chunks(chunk)) {
            self.raw.send(&Header::data(id, bytes.len() as u64, None).encode());
            self.raw.send(bytes);
        }
    }

    /// Takes one frame in; sends the payload of calls that were granted.
    fn receive(&mut self) -> Received {
        let frame = self.raw.receive().expect("the server keeps the connection");
        let id = frame.header.id;
        match frame.header.kind {
            Kind::Grant => {
                for id in decode_ids(&frame.body).unwrap().collect::<Vec<_>>() {
                    self.granted += 1;
                    self.send_payload(id);
                }
            }
            Kind::Result => assert!(self.withheld.insert(id)),
            Kind::Data => self.fetched_bytes += frame.header.length,
            Kind::Error => self.errors.push((id, RemoteError::decode(&frame.body).unwrap())),
            Kind::Ping => self.raw.send(&Header::empty(Kind::Pong, id).encode()),
            _ => {}
        }
        frame
    }

    fn receive_until(&mut self, is_so: impl Fn(&Asking) -> bool) {
        while !is_so(self) {
            self.receive();
        }
    }

    /// Grants the results that were withheld.
    fn grant_all(&mut self) {
        let ids: Vec<u64> = std::mem::take(&mut self.withheld).into_iter().collect();
        if !ids.is_empty() {
            self.raw.send(&encode_frame(Kind::Grant, 0, &encode_ids(&ids)));
        }
    }
}

/// What is left of the memory while results nobody fetches hold their quota, is taken by arguments of calls that wait.
fn fill_with_results(server: &ServerHandle, peer: &mut Asking, calls: u64) {
    peer.begin(calls);
    while peer.granted < SHARED / BYTES || (peer.withheld.len() as u64) <= QUOTA / BYTES {
        peer.receive();
        let held_bytes = server.stats().held_bytes;
        assert!(held_bytes <= SHARED + BYTES, "{held_bytes} bytes are held");
    }
    // A call's arguments are given back before its result is there: one more may have been granted between.
    let waiting = SHARED / BYTES - QUOTA / BYTES - 1;
    until("the calls wait", || (waiting..waiting + 2).contains(&(server.stats().queued as u64)));
}

#[test]
fn results_that_nobody_fetches_are_bounded() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = Asking::new(&server, method, BYTES);
            fill_with_results(&server, &mut peer, CALLS);
            // No more of them are made, and calls of others go past those that wait.
            let other = Client::connect(&server.address().to_string()).unwrap();
            for number in 0..100 {
                assert_eq!(other.call(method, number).wait().unwrap(), tree!(number));
            }
            assert_eq!(peer.withheld.len() as u64, QUOTA / BYTES + 1, "{:?}", server.stats());
            assert!(server.stats().running == 0 && server.stats().awaiting_memory > 0);
            // All come once they are fetched, each once.
            let mut seen = peer.withheld.clone();
            while peer.fetched_bytes < CALLS * BYTES {
                peer.grant_all();
                let frame = peer.receive();
                assert!(frame.header.kind != Kind::Result || seen.insert(frame.header.id));
            }
            assert_eq!(seen.len() as u64, CALLS);
            assert!(peer.errors.is_empty());
            until("all is given back", || server.stats().held_bytes == 0 && server.stats().unsent_bytes == 0);
        }
    });
}

#[test]
fn one_result_of_any_size_holds_up_no_call() {
    watched(|| {
        for method in ["zeros", "inline"] {
            let zeros = |bytes: usize| Array::zeros::<u8>([bytes]);
            let methods = Methods::new().register("zeros", zeros).register("inline", Method::inline(zeros));
            let server = serve(methods);
            let mut peer = Asking::new(&server, method, BYTES);
            // Nobody fetches anything. The first may even be more than half of what results share.
            let mut results = 0;
            let mut call = |peer: &mut Asking, bytes: u64| {
                let call = Message::call(&CallHead::new(method), &tree!(bytes), &Limits::default()).unwrap();
                results += 1;
                peer.raw.send_eager(results, &call);
            };
            call(&mut peer, 4 * QUOTA);
            for expected in 2..=10 {
                call(&mut peer, QUOTA / 16);
                peer.receive_until(|peer| peer.withheld.len() == expected);
            }
            // Those beside it have the quota, and the one that passes it; then calls wait.
            call(&mut peer, QUOTA / 2);
            call(&mut peer, 1);
            peer.receive_until(|peer| peer.withheld.len() == 11);
            until("one waits", || server.stats().queued == 1);
            let held = 4 * QUOTA + 9 * (QUOTA / 16) + QUOTA / 2;
            assert_eq!((server.stats().running, server.stats().held_bytes), (0, held));
            drop(peer);
            until("all is given back", || server.stats().held_bytes == 0);
        }
    });
}

#[test]
fn calls_that_wait_for_results_to_leave_can_be_withdrawn() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = Asking::new(&server, method, BYTES);
            let calls = SHARED / BYTES;
            fill_with_results(&server, &mut peer, calls);
            for id in QUOTA / BYTES + 2..=calls {
                peer.raw.send(&Header::empty(Kind::Cancel, id).encode());
            }
            let waiting = calls - QUOTA / BYTES - 1;
            peer.receive_until(|peer| peer.errors.len() as u64 == waiting);
            assert!(peer.errors.iter().all(|(_, error)| error.kind == ErrorKind::Cancelled));
            let stats = server.stats();
            assert_eq!((stats.queued, stats.held_bytes), (0, (QUOTA / BYTES + 1) * 500_000));
            drop(peer);
            until("all is given back", || server.stats().held_bytes == 0);
        }
    });
}

#[test]
fn calls_whose_time_is_over_do_not_wait_for_results_to_leave() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = Asking::new(&server, method, BYTES);
            fill_with_results(&server, &mut peer, SHARED / BYTES);
            let queued = server.stats().queued;
            let head = |time| CallHead { deadline: Some(time), ..CallHead::new(method) };
            for time in [Duration::from_secs(3600), Duration::from_millis(1)] {
                let call = Message::call(&head(time), &Tree::Null, &Limits::default()).unwrap();
                peer.raw.send_head(peer.next_id, &call, false);
                peer.next_id += 1;
            }
            peer.receive_until(|peer| !peer.errors.is_empty());
            let (id, error) = &peer.errors[0];
            assert_eq!((*id, error.kind, error.ran), (peer.next_id - 1, ErrorKind::Deadline, Ran::No));
            assert_eq!(server.stats().queued, queued + 1);
        }
    });
}

#[test]
fn a_closing_server_refuses_calls_that_wait_for_results_to_leave() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = Asking::new(&server, method, BYTES);
            let calls = SHARED / BYTES;
            fill_with_results(&server, &mut peer, calls);
            server.closer().close();
            let waiting = calls - QUOTA / BYTES - 1;
            peer.receive_until(|peer| peer.errors.len() as u64 == waiting);
            let is_closing = |error: &RemoteError| (error.kind, error.ran) == (ErrorKind::Closing, Ran::No);
            assert!(peer.errors.iter().all(|(_, error)| is_closing(error)));
            // What ran is still delivered.
            peer.grant_all();
            peer.receive_until(|peer| peer.fetched_bytes == (QUOTA / BYTES + 1) * BYTES);
            peer.raw.until_closed();
            server.join().unwrap();
        }
    });
}

#[test]
fn a_lost_connection_gives_back_what_it_had_half_sent_while_its_functions_run() {
    watched(|| {
        let (stop, stopped) = mpsc::channel::<()>();
        let stopped = Mutex::new(stopped);
        let server = serve(Methods::new().register("stop", move |x: Tree| {
            let _ = stopped.lock().unwrap().recv();
            x
        }));
        let mut peer = Asking::new(&server, "stop", BYTES);
        // One runs, one waits for the worker, one is half sent.
        peer.begin(2);
        peer.receive_until(|peer| peer.granted == 2);
        peer.begin(1);
        peer.raw.next_of(Kind::Grant);
        peer.raw.send(&Header::data(3, BYTES, None).encode());
        peer.raw.send(&[7; 1000]);
        until("one runs", || server.stats().running == 1 && server.stats().queued == 1);
        assert_eq!(server.stats().held_bytes, 2 * BYTES);
        drop(peer);
        until("all is given back", || server.stats().held_bytes == 0);
        assert_eq!(server.stats().running, 1);
        drop(stop);
    });
}

#[test]
fn credit_is_a_part_of_the_memory_and_nobody_is_refused() {
    watched(|| {
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(8 << 20).start(echo()).unwrap();
        let address = server.address().to_string();
        let introduced = || Raw::introduced(&address);
        let mut credits: Vec<_> = (0..20).map(|_| introduced()).collect();
        let bytes: Vec<u64> = credits.iter().map(|(_, hello)| hello.eager_credit_bytes).collect();
        let (roomy, tight) = (1 << 20, 64 << 10);
        assert_eq!(bytes, [[roomy].as_slice(), &[tight; 16], &[0; 3]].concat());
        // Also without credit all is answered, in either direction.
        let client = Client::connect(&address).unwrap();
        for bytes in [0, 1, 100_000, 3 << 20] {
            let array = Array::from(vec![1u8; bytes]);
            assert_eq!(client.call("echo", array.clone()).wait().unwrap(), Tree::Array(array));
        }
        let error = client.call("echo", Array::zeros::<u8>([(6 << 20) + 1])).wait().unwrap_err();
        let text = error.to_string();
        for part in ["6291457", "6291456", "max_message_bytes", "max_memory"] {
            assert!(text.contains(part), "{text}");
        }
        // Who goes leaves its credit to the next.
        credits.remove(0);
        until("its end was noticed", || server.clients() == 20);
        assert_eq!(introduced().1.eager_credit_bytes, 64 << 10);
        credits.clear();
        until("their end was noticed", || server.clients() == 1);
        assert_eq!(introduced().1.eager_credit_bytes, 1 << 20);
    });
}

// ---- Peers that crawl while others wait ----

/// Two messages of it do not fit.
const LARGE: u64 = SHARED / 3 * 2;

/// A server that soon loses its patience.
fn serve_impatiently() -> ServerHandle {
    let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY);
    server.pace_window(Duration::from_millis(100)).start(echo().register("sum", sum)).unwrap()
}

fn sum(x: Vec<u8>) -> u64 {
    x.into_iter().map(u64::from).sum()
}

/// A call that needs the memory that somebody else has.
fn call_large(server: &ServerHandle) {
    let client = Client::connect(&server.address().to_string()).unwrap();
    let sum = client.call("sum", Array::from(vec![1u8; LARGE as usize])).wait().unwrap();
    assert_eq!(sum, tree!(LARGE));
}

#[test]
fn arguments_that_crawl_while_others_wait_are_given_up() {
    watched(|| {
        let (server, log) = (serve_impatiently(), Log::open());
        let mut peer = Asking::new(&server, "sum", LARGE);
        peer.begin(1);
        peer.raw.next_of(Kind::Grant);
        let payload = peer.call.payload[0].clone();
        let (first, rest) = payload.split_at(MAX_CHUNK_BYTES as usize + 1000);
        let (whole, part) = first.split_at(MAX_CHUNK_BYTES as usize);
        peer.raw.send(&Header::data(1, MAX_CHUNK_BYTES, None).encode());
        peer.raw.send(whole);
        peer.raw.send(&Header::data(1, MAX_CHUNK_BYTES, None).encode());
        peer.raw.send(part);
        call_large(&server);
        peer.receive_until(|peer| peer.errors.len() == 1);
        let (id, error) = &peer.errors[0];
        assert_eq!((*id, error.kind, error.ran), (1, ErrorKind::TooSlow, Ran::No));
        assert!(error.message.contains("min_rate"), "{error}");
        until("the log says so", || log.has("calls were given up") && log.has("arguments=1 results=0"));
        // What still comes is dropped, and the connection goes on.
        let (part, _) = rest.split_at(MAX_CHUNK_BYTES as usize - 1000);
        peer.raw.send(part);
        peer.raw.send(&Header::empty(Kind::Abort, 1).encode());
        peer.begin(1);
        peer.receive_until(|peer| peer.granted == 1);
        peer.receive_until(|peer| peer.fetched_bytes > 0 || !peer.withheld.is_empty());
        until("all is given back", || server.stats().held_bytes == 0);
    });
}

#[test]
fn results_that_are_not_fetched_while_others_wait_are_given_up() {
    watched(|| {
        let (server, log) = (serve_impatiently(), Log::open());
        let mut peer = Asking::new(&server, "echo", LARGE);
        peer.begin(1);
        peer.receive_until(|peer| peer.withheld.len() == 1);
        call_large(&server);
        peer.receive_until(|peer| peer.errors.len() == 1);
        let (id, error) = &peer.errors[0];
        assert_eq!((*id, error.kind, error.ran), (1, ErrorKind::TooSlow, Ran::Yes));
        assert_eq!((server.stats().held_bytes, peer.fetched_bytes), (0, 0));
        until("the log says so", || log.has("arguments=0 results=1"));
    });
}

#[test]
fn calls_that_wait_for_results_to_leave_lock_nobody_out() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve_impatiently();
            let mut peer = Asking::new(&server, method, BYTES);
            fill_with_results(&server, &mut peer, CALLS);
            // It reads what it is told, and fetches nothing.
            let reads = thread::spawn(move || {
                peer.receive_until(|peer| peer.errors.len() as u64 >= QUOTA / BYTES);
                peer
            });
            call_large(&server);
            let peer = reads.join().unwrap();
            let is_slow = |error: &RemoteError| (error.kind, error.ran) == (ErrorKind::TooSlow, Ran::Yes);
            assert!(peer.errors.iter().all(|(_, error)| is_slow(error)));
            drop(peer);
            until("all is given back", || server.stats().held_bytes == 0);
        }
    });
}

/// A server whose only worker is held up, and what ends that when dropped. Of two large calls one waits for the worker and
/// the other for memory.
fn serve_in_need() -> (ServerHandle, mpsc::Sender<()>, Vec<CallFuture>) {
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Mutex::new(stopped);
    let methods = echo().register("sum", sum).register("stop", move |_: Tree| {
        let _ = stopped.lock().unwrap().recv();
    });
    let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY);
    // Long enough for a busy machine to see the memory charged before it is given back.
    let server = server.pace_window(Duration::from_millis(500)).start(methods).unwrap();
    let client = Client::connect(&server.address().to_string()).unwrap();
    let large = Tree::Array(Array::from(vec![1u8; LARGE as usize]));
    let futures = [("stop", Tree::Null), ("sum", large.clone()), ("sum", large)];
    let futures = futures.map(|(method, tree)| client.call(method, tree).send().unwrap());
    until("one is there", || server.stats().queued == 1 && server.stats().awaiting_memory == 1);
    (server, stop, futures.into_iter().collect())
}

#[test]
fn calls_that_wait_for_a_full_socket_lock_nobody_out() {
    watched(|| {
        let zeros = |bytes: usize| Array::zeros::<u8>([bytes]);
        let methods = echo().register("sum", sum).register("zeros", zeros);
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY);
        let server = server.pace_window(Duration::from_millis(100)).start(methods).unwrap();
        let (waiting, each) = (4, 2 << 20);
        let mut peer = Asking::new(&server, "echo", each);
        peer.begin(waiting);
        let mut granted = 0;
        while granted < waiting {
            let frame = peer.raw.next_of(Kind::Grant);
            granted += decode_ids(&frame.body).unwrap().count() as u64;
        }
        // A result that it lets come, and does not read.
        let result = tree!(20u64 << 20);
        let call = Message::call(&CallHead::new("zeros"), &result, &Limits::default()).unwrap();
        peer.raw.send_eager(5, &call);
        peer.raw.next_of(Kind::Result);
        peer.withheld.insert(5);
        peer.grant_all();
        (1..=waiting).for_each(|id| peer.send_payload(id));
        // Beside that result they may leave their quota.
        until("one waits for results to leave", || {
            server.stats().queued as u64 == waiting - QUOTA / each - 1
        });
        // There is no room beside the arguments of any.
        let client = Client::connect(&server.address().to_string()).unwrap();
        let large = SHARED - each + 1;
        let sum = client.call("sum", Array::from(vec![1u8; large as usize])).wait().unwrap();
        assert_eq!(sum, tree!(large));
        assert_eq!(server.stats().queued, 0);
    });
}

#[test]
fn metadata_that_crawls_while_others_wait_ends_the_connection() {
    watched(|| {
        let (server, stop, futures) = serve_in_need();
        let (mut peer, hello) = Raw::introduced(&server.address().to_string());
        let bytes = u64::from(hello.limits.max_metadata_bytes);
        peer.send(&Header { length: bytes, ..Header::empty(Kind::Call, 1) }.encode());
        peer.send(&vec![0; bytes as usize / 2]);
        until("it is charged", || server.stats().held_bytes == LARGE + bytes / 2);
        let frames = peer.until_closed();
        let goodbye = frames.last().unwrap();
        let goodbye = Goodbye::decode(&goodbye.header, &goodbye.body).unwrap();
        assert_eq!(goodbye.kind, Some(ErrorKind::TooSlow), "{}", goodbye.reason);
        until("it is given back", || server.stats().held_bytes == LARGE);
        drop(stop);
        futures.into_iter().for_each(|future| drop(future.wait().unwrap()));
    });
}

#[test]
fn the_structure_of_large_calls_is_counted_and_must_not_crawl() {
    watched(|| {
        let (server, stop, futures) = serve_in_need();
        let (mut peer, _) = Raw::introduced(&server.address().to_string());
        let tree = Tree::List((0..9000).map(|x: i64| tree!(x)).collect());
        let message = Message::call(&CallHead::new("echo"), &tree, &Limits::default()).unwrap();
        peer.send_head(1, &message, true);
        until("it is charged", || server.stats().held_bytes > LARGE);
        let error = peer.next_of(Kind::Error);
        let error = RemoteError::decode(&error.body).unwrap();
        assert_eq!((error.kind, error.ran), (ErrorKind::TooSlow, Ran::No));
        until("it is given back", || server.stats().held_bytes == LARGE);
        // Its credit, more than half of all, comes back when no more of it can come.
        peer.send(&Header::empty(Kind::Abort, 1).encode());
        assert_eq!(peer.next_of(Kind::Credit).header.id, message.memory_bytes);
        peer.send_eager(2, &message);
        until("it is charged", || server.stats().held_bytes > LARGE);
        drop(stop);
        assert_eq!(peer.next_of(Kind::Result).header.id, 2);
        futures.into_iter().for_each(|future| drop(future.wait().unwrap()));
        until("all is given back", || server.stats().held_bytes == 0);
    });
}

#[test]
fn a_peer_may_crawl_while_nobody_waits() {
    watched(|| {
        let server = serve_impatiently();
        let mut peer = Asking::new(&server, "sum", LARGE);
        peer.begin(1);
        peer.raw.next_of(Kind::Grant);
        let start = Instant::now();
        // Other calls find memory.
        let client = Client::connect(&server.address().to_string()).unwrap();
        let array = Array::from(vec![1u8; LARGE as usize / 4]);
        while start.elapsed() < Duration::from_millis(500) {
            client.call("sum", array.clone()).wait().unwrap();
        }
        assert_eq!(server.stats().held_bytes, LARGE);
        peer.send_payload(1);
        peer.receive_until(|peer| !peer.withheld.is_empty());
        assert!(peer.errors.is_empty());
    });
}

// ---- Nobody locks others out ----

#[test]
fn large_messages_come_one_after_the_other_and_none_is_locked_out() {
    watched(|| {
        let server = serve(echo().register("sum", sum));
        let mut peers: Vec<Asking> = (0..8).map(|_| Asking::new(&server, "sum", LARGE)).collect();
        peers.iter_mut().for_each(|peer| peer.begin(2));
        until("one has the memory", || server.stats().awaiting_memory == 15);
        assert_eq!(server.stats().held_bytes, LARGE);
        // All or nothing: those that wait hold no part of it, and whoever has it can finish.
        let threads: Vec<_> = peers
            .into_iter()
            .map(|mut peer| {
                thread::spawn(move || {
                    for calls in 1..=2 {
                        peer.receive_until(|peer| peer.granted == calls);
                    }
                    while peer.fetched_bytes < 16 {
                        peer.grant_all();
                        peer.receive();
                    }
                    assert!(peer.errors.is_empty());
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        until("all is given back", || server.stats().held_bytes == 0);
        assert_eq!((server.stats().answered, server.stats().awaiting_memory), (16, 0));
    });
}

#[test]
fn a_server_that_keeps_every_array_goes_on() {
    watched(|| {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let methods = Methods::new().register("keep", move |x: Array| {
            keep.lock().unwrap().push(x.clone());
            x
        });
        let server = serve(methods);
        let client = Client::connect(&server.address().to_string()).unwrap();
        let calls = 2 * MAX_MEMORY / LARGE + 3;
        for call in 0..calls {
            let array = Array::from(vec![call as u8; LARGE as usize]);
            assert_eq!(client.call("keep", array.clone()).wait().unwrap(), Tree::Array(array));
        }
        until("all is given back", || server.stats().held_bytes == 0);
        assert_eq!(kept.lock().unwrap().len() as u64, calls);
    });
}

#[test]
fn calls_that_wait_for_results_to_leave_survive_their_connection() {
    watched(|| {
        for method in ["zeros", "inline"] {
            let zeros = |bytes: usize| Array::zeros::<u8>([bytes]);
            let methods = Methods::new().register("zeros", zeros).register("inline", Method::inline(zeros));
            // Room for all results, in case they are made while nobody is connected.
            let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(1 << 30);
            let server = server.max_unsent_bytes(1 << 20).max_kept_bytes(256 << 20).start(methods).unwrap();
            let proxy = Proxy::start(&server.address().to_string());
            let client = Client::builder(&proxy.address()).on_disconnect(OnDisconnect::Resume);
            let client = client.max_inflight(64).connect().unwrap();
            // Connected, and nothing of the results comes through.
            client.call(method, 0).wait().unwrap();
            proxy.stall_toward(Toward::Client);
            // The kernels on the way take some of it.
            let calls = 40;
            let futures: Vec<CallFuture> =
                (0..calls).map(|_| client.call(method, 2 << 20).send().unwrap()).collect();
            until("some wait", || server.stats().calls == calls + 1 && server.stats().queued > 0);
            proxy.cut(Cut::Reset);
            proxy.resume();
            for future in futures {
                assert_eq!(future.wait().unwrap().as_array().unwrap().len(), 2 << 20);
            }
            assert_eq!(server.stats().answered, calls + 1);
        }
    });
}

/// Memory of a result that tells when it is gone.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl Counted {
    fn new(bytes: usize, alive: &Arc<AtomicUsize>) -> Counted {
        alive.fetch_add(1, Ordering::SeqCst);
        Counted(vec![7; bytes], alive.clone())
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_slow_reader_does_not_keep_the_rows_of_others_in_memory() {
    watched(|| {
        const BYTES: usize = 1000;
        let alive = Arc::new(AtomicUsize::new(0));
        let act = {
            let alive = alive.clone();
            move |_: Tree| {
                Array::from_buffer(DType::U8, [2, BYTES], Buffer::from_owner(Counted::new(2 * BYTES, &alive)))
            }
        };
        let server = serve(Methods::new().register("act", Method::batched(Batch::exact(2), act)));
        let mut slow = Asking::new(&server, "act", BYTES as u64);
        let client = Client::connect(&server.address().to_string()).unwrap();
        let mut rounds = 0;
        let mut round = || {
            rounds += 1;
            slow.begin(1);
            slow.receive_until(|slow| slow.granted == rounds);
            client.call("act", vec![7u8; BYTES]).wait().unwrap();
            slow.receive_until(|slow| slow.withheld.len() as u64 == rounds);
            alive.load(Ordering::SeqCst)
        };
        // It is slow from when it has left its results for a tenth of a second.
        let mut before = round();
        until("its rows are copied", || {
            let now = round();
            std::mem::replace(&mut before, now) >= now
        });
        let kept = before;
        let most = (0..20).map(|_| round()).max().unwrap();
        assert!(most <= kept + 1, "no more are kept than before: {most}, {kept}");
        slow.grant_all();
        slow.receive_until(|slow| slow.fetched_bytes == rounds * BYTES as u64);
        until("all are gone", || alive.load(Ordering::SeqCst) == 0);
    });
}
