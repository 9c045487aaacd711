//! Bounds on the memory that clients can make a small server hold: results that a client does not fetch,
//! arguments that arrive slowly, and arrays that functions keep.
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

/// The part of [`MAX_MEMORY`] for granted arguments and for results.
const SHARED: u64 = MAX_MEMORY / 4 * 3;

/// The bytes of results that a connection may leave unfetched before its calls wait.
const QUOTA: u64 = MAX_MEMORY / 8;

/// The size of the arrays in calls and results.
const BYTES: u64 = 500_000;

/// The number of calls, whose arrays need far more than [`MAX_MEMORY`].
const CALLS: u64 = 250;

fn serve(methods: Methods) -> ServerHandle {
    Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY).start(methods).unwrap()
}

fn echo() -> Methods {
    Methods::new().register("echo", |x: Tree| x).register("inline", Method::inline(|x: Tree| x))
}

/// A peer without eager credit: its calls and their results all wait for a grant.
struct GrantingPeer {
    raw: Raw,
    call: Message,
    next_id: u64,
    granted: u64,
    /// The ids of results whose head has arrived and that the peer has not granted.
    withheld: BTreeSet<u64>,
    /// The received payload bytes of results.
    fetched_bytes: u64,
    errors: Vec<(u64, RemoteError)>,
}

impl GrantingPeer {
    fn new(server: &ServerHandle, method: &str, bytes: u64) -> GrantingPeer {
        let mut raw = Raw::connect(&server.address().to_string());
        raw.introduce(&Hello { eager_credit_bytes: 0, ..Raw::hello() });
        let array = Array::from(vec![7u8; bytes as usize]);
        let call = Message::call(&CallHead::new(method), &Tree::Array(array), &Limits::default()).unwrap();
        GrantingPeer {
            raw,
            call,
            next_id: 1,
            granted: 0,
            withheld: BTreeSet::new(),
            fetched_bytes: 0,
            errors: Vec::new(),
        }
    }

    /// Sends the heads of `calls` calls.
    fn begin(&mut self, calls: u64) {
        for _ in 0..calls {
            self.raw.send_head(self.next_id, &self.call, false);
            self.next_id += 1;
        }
    }

    fn send_payload(&mut self, id: u64) {
        let chunk = MAX_CHUNK_BYTES as usize;
        for bytes in self.call.payload().flat_map(|buffer| buffer.chunks(chunk)) {
            self.raw.send(&Header::data(id, bytes.len() as u64, None).encode());
            self.raw.send(bytes);
        }
    }

    /// Handles the next frame and returns it. Sends the payload of granted calls.
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

    fn receive_until(&mut self, is_so: impl Fn(&GrantingPeer) -> bool) {
        while !is_so(self) {
            self.receive();
        }
    }

    /// Grants all withheld results.
    fn grant_all(&mut self) {
        let ids: Vec<u64> = std::mem::take(&mut self.withheld).into_iter().collect();
        if !ids.is_empty() {
            self.raw.send(&encode_frame(Kind::Grant, 0, &encode_ids(&ids)));
        }
    }
}

/// Makes `calls` calls until unfetched results use up the quota of the connection and arguments of waiting
/// calls the rest of the memory.
fn fill_with_results(server: &ServerHandle, peer: &mut GrantingPeer, calls: u64) {
    peer.begin(calls);
    while peer.granted < SHARED / BYTES || (peer.withheld.len() as u64) <= QUOTA / BYTES {
        peer.receive();
        let held_bytes = server.stats().held_bytes;
        assert!(held_bytes <= SHARED + BYTES, "{held_bytes} bytes are held");
    }
    // The arguments of a call are freed before its result exists, so one more call may have been granted in
    // between.
    let waiting = SHARED / BYTES - QUOTA / BYTES - 1;
    until("the calls wait", || (waiting..waiting + 2).contains(&(server.stats().queued as u64)));
}

#[test]
fn unfetched_results_are_bounded() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = GrantingPeer::new(&server, method, BYTES);
            fill_with_results(&server, &mut peer, CALLS);
            // The server makes no more results for this peer, and its waiting calls do not delay those of
            // others.
            let other = Client::connect(&server.address().to_string()).unwrap();
            for number in 0..100 {
                assert_eq!(other.call(method, number).wait().unwrap(), tree!(number));
            }
            assert_eq!(peer.withheld.len() as u64, QUOTA / BYTES + 1, "{:?}", server.stats());
            assert!(server.stats().running == 0 && server.stats().awaiting_memory > 0);
            // Once the peer fetches them, each result arrives exactly once.
            let mut seen = peer.withheld.clone();
            while peer.fetched_bytes < CALLS * BYTES {
                peer.grant_all();
                let frame = peer.receive();
                assert!(frame.header.kind != Kind::Result || seen.insert(frame.header.id));
            }
            assert_eq!(seen.len() as u64, CALLS);
            assert!(peer.errors.is_empty());
            until("all memory is freed", || {
                server.stats().held_bytes == 0 && server.stats().unsent_bytes == 0
            });
        }
    });
}

#[test]
fn a_single_unfetched_result_of_any_size_delays_no_call() {
    watched(|| {
        for method in ["zeros", "inline"] {
            let zeros = |bytes: usize| Array::zeros::<u8>([bytes]);
            let methods = Methods::new().register("zeros", zeros).register("inline", Method::inline(zeros));
            let server = serve(methods);
            let mut peer = GrantingPeer::new(&server, method, BYTES);
            // Nothing is fetched. The first result may even be larger than half of the shared memory.
            let mut results = 0;
            let mut call = |peer: &mut GrantingPeer, bytes: u64| {
                let call = Message::call(&CallHead::new(method), &tree!(bytes), &Limits::default()).unwrap();
                results += 1;
                peer.raw.send_eager(results, &call);
            };
            call(&mut peer, 4 * QUOTA);
            for expected in 2..=10 {
                call(&mut peer, QUOTA / 16);
                peer.receive_until(|peer| peer.withheld.len() == expected);
            }
            // The quota counts all results but the largest. One more may exceed it, and then calls wait.
            call(&mut peer, QUOTA / 2);
            call(&mut peer, 1);
            peer.receive_until(|peer| peer.withheld.len() == 11);
            until("one call waits", || server.stats().queued == 1);
            let held = 4 * QUOTA + 9 * (QUOTA / 16) + QUOTA / 2;
            assert_eq!((server.stats().running, server.stats().held_bytes), (0, held));
            drop(peer);
            until("all memory is freed", || server.stats().held_bytes == 0);
        }
    });
}

#[test]
fn throttled_calls_can_be_cancelled() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = GrantingPeer::new(&server, method, BYTES);
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
            until("all memory is freed", || server.stats().held_bytes == 0);
        }
    });
}

#[test]
fn throttled_calls_fail_at_their_deadline() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = GrantingPeer::new(&server, method, BYTES);
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
fn a_closing_server_refuses_throttled_calls() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve(echo());
            let mut peer = GrantingPeer::new(&server, method, BYTES);
            let calls = SHARED / BYTES;
            fill_with_results(&server, &mut peer, calls);
            server.closer().close();
            let waiting = calls - QUOTA / BYTES - 1;
            peer.receive_until(|peer| peer.errors.len() as u64 == waiting);
            let is_closing = |error: &RemoteError| (error.kind, error.ran) == (ErrorKind::Closing, Ran::No);
            assert!(peer.errors.iter().all(|(_, error)| is_closing(error)));
            // Existing results are still delivered.
            peer.grant_all();
            peer.receive_until(|peer| peer.fetched_bytes == (QUOTA / BYTES + 1) * BYTES);
            peer.raw.until_closed();
            server.join().unwrap();
        }
    });
}

#[test]
fn a_lost_connection_frees_half_sent_arguments_while_its_functions_run() {
    watched(|| {
        let (stop, stopped) = mpsc::channel::<()>();
        let stopped = Mutex::new(stopped);
        let server = serve(Methods::new().register("stop", move |x: Tree| {
            let _ = stopped.lock().unwrap().recv();
            x
        }));
        let mut peer = GrantingPeer::new(&server, "stop", BYTES);
        // One call runs, one waits for the worker, and one is half sent.
        peer.begin(2);
        peer.receive_until(|peer| peer.granted == 2);
        peer.begin(1);
        peer.raw.next_of(Kind::Grant);
        peer.raw.send(&Header::data(3, BYTES, None).encode());
        peer.raw.send(&[7; 1000]);
        until("one call runs and one waits", || server.stats().running == 1 && server.stats().queued == 1);
        assert_eq!(server.stats().held_bytes, 2 * BYTES);
        drop(peer);
        until("all memory is freed", || server.stats().held_bytes == 0);
        assert_eq!(server.stats().running, 1);
        drop(stop);
    });
}

#[test]
fn eager_credit_is_limited_by_the_memory_and_no_client_is_refused() {
    watched(|| {
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(8 << 20).start(echo()).unwrap();
        let address = server.address().to_string();
        let introduced = || Raw::introduced(&address);
        let mut credits: Vec<_> = (0..20).map(|_| introduced()).collect();
        let bytes: Vec<u64> = credits.iter().map(|(_, hello)| hello.eager_credit_bytes).collect();
        let (roomy, tight) = (1 << 20, 64 << 10);
        assert_eq!(bytes, [[roomy].as_slice(), &[tight; 16], &[0; 3]].concat());
        // Clients without credit are served too, with arguments and results of any size.
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
        // The credit of a lost client goes to the next one.
        credits.remove(0);
        until("the server notices that one has left", || server.clients() == 20);
        assert_eq!(introduced().1.eager_credit_bytes, 64 << 10);
        credits.clear();
        until("the server notices that the others have left", || server.clients() == 1);
        assert_eq!(introduced().1.eager_credit_bytes, 1 << 20);
    });
}

// ---- Slow peers while others wait ----

/// The size of a large message. Two of them do not fit into the shared memory.
const LARGE: u64 = SHARED / 3 * 2;

/// Starts a server that soon gives up slow transfers.
fn serve_impatiently() -> ServerHandle {
    let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY);
    server.min_rate_window(Duration::from_millis(100)).start(echo().register("sum", sum)).unwrap()
}

fn sum(x: Vec<u8>) -> u64 {
    x.into_iter().map(u64::from).sum()
}

/// Makes a call that needs memory that another client holds, and checks its result.
fn call_large(server: &ServerHandle) {
    let client = Client::connect(&server.address().to_string()).unwrap();
    let sum = client.call("sum", Array::from(vec![1u8; LARGE as usize])).wait().unwrap();
    assert_eq!(sum, tree!(LARGE));
}

#[test]
fn slow_arguments_fail_while_others_wait_for_memory() {
    watched(|| {
        let (server, log) = (serve_impatiently(), Log::open());
        let mut peer = GrantingPeer::new(&server, "sum", LARGE);
        peer.begin(1);
        peer.raw.next_of(Kind::Grant);
        let payload = peer.call.pieces()[0].clone();
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
        until("the log reports it", || log.has("calls were given up") && log.has("arguments=1 results=0"));
        // The rest of the arguments is dropped, and the connection stays open.
        let (part, _) = rest.split_at(MAX_CHUNK_BYTES as usize - 1000);
        peer.raw.send(part);
        peer.raw.send(&Header::empty(Kind::Abort, 1).encode());
        peer.begin(1);
        peer.receive_until(|peer| peer.granted == 1);
        peer.receive_until(|peer| peer.fetched_bytes > 0 || !peer.withheld.is_empty());
        until("all memory is freed", || server.stats().held_bytes == 0);
    });
}

#[test]
fn unfetched_results_fail_while_others_wait_for_memory() {
    watched(|| {
        let (server, log) = (serve_impatiently(), Log::open());
        let mut peer = GrantingPeer::new(&server, "echo", LARGE);
        peer.begin(1);
        peer.receive_until(|peer| peer.withheld.len() == 1);
        call_large(&server);
        peer.receive_until(|peer| peer.errors.len() == 1);
        let (id, error) = &peer.errors[0];
        assert_eq!((*id, error.kind, error.ran), (1, ErrorKind::TooSlow, Ran::Yes));
        assert_eq!((server.stats().held_bytes, peer.fetched_bytes), (0, 0));
        until("the log reports it", || log.has("arguments=0 results=1"));
    });
}

#[test]
fn throttled_calls_do_not_block_other_clients() {
    watched(|| {
        for method in ["echo", "inline"] {
            let server = serve_impatiently();
            let mut peer = GrantingPeer::new(&server, method, BYTES);
            fill_with_results(&server, &mut peer, CALLS);
            // The peer reads frames but fetches no result.
            let reads = thread::spawn(move || {
                peer.receive_until(|peer| peer.errors.len() as u64 >= QUOTA / BYTES);
                peer
            });
            call_large(&server);
            let peer = reads.join().unwrap();
            let is_slow = |error: &RemoteError| (error.kind, error.ran) == (ErrorKind::TooSlow, Ran::Yes);
            assert!(peer.errors.iter().all(|(_, error)| is_slow(error)));
            drop(peer);
            until("all memory is freed", || server.stats().held_bytes == 0);
        }
    });
}

/// Starts a server whose only worker is blocked until the returned sender is dropped. Of two large calls, one
/// waits for the worker and the other for memory.
fn serve_in_need() -> (ServerHandle, mpsc::Sender<()>, Vec<CallFuture>) {
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Mutex::new(stopped);
    let methods = echo().register("sum", sum).register("stop", move |_: Tree| {
        let _ = stopped.lock().unwrap().recv();
    });
    let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY);
    // Long enough for the test to see the charged memory before it is freed, even on a busy machine.
    let server = server.min_rate_window(Duration::from_millis(500)).start(methods).unwrap();
    let client = Client::connect(&server.address().to_string()).unwrap();
    let large = Tree::Array(Array::from(vec![1u8; LARGE as usize]));
    let futures = [("stop", Tree::Null), ("sum", large.clone()), ("sum", large)];
    let futures = futures.map(|(method, tree)| client.call(method, tree).send().unwrap());
    until("one call waits for the worker and one for memory", || {
        server.stats().queued == 1 && server.stats().awaiting_memory == 1
    });
    (server, stop, futures.into_iter().collect())
}

#[test]
fn calls_throttled_by_a_full_socket_do_not_block_other_clients() {
    watched(|| {
        let zeros = |bytes: usize| Array::zeros::<u8>([bytes]);
        let methods = echo().register("sum", sum).register("zeros", zeros);
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(MAX_MEMORY);
        let server = server.min_rate_window(Duration::from_millis(100)).start(methods).unwrap();
        let (waiting, each) = (4, 2 << 20);
        let mut peer = GrantingPeer::new(&server, "echo", each);
        peer.begin(waiting);
        let mut granted = 0;
        while granted < waiting {
            let frame = peer.raw.next_of(Kind::Grant);
            granted += decode_ids(&frame.body).unwrap().count() as u64;
        }
        // The peer grants this result but does not read it.
        let result = tree!(20u64 << 20);
        let call = Message::call(&CallHead::new("zeros"), &result, &Limits::default()).unwrap();
        peer.raw.send_eager(5, &call);
        peer.raw.next_of(Kind::Result);
        peer.withheld.insert(5);
        peer.grant_all();
        (1..=waiting).for_each(|id| peer.send_payload(id));
        // Beside the largest result, the others may use up the quota.
        until("the other calls are throttled", || server.stats().queued as u64 == waiting - QUOTA / each - 1);
        // This call fits only if no arguments of the peer are held.
        let client = Client::connect(&server.address().to_string()).unwrap();
        let large = SHARED - each + 1;
        let sum = client.call("sum", Array::from(vec![1u8; large as usize])).wait().unwrap();
        assert_eq!(sum, tree!(large));
        assert_eq!(server.stats().queued, 0);
    });
}

#[test]
fn slow_metadata_ends_its_connection_while_others_wait_for_memory() {
    watched(|| {
        let (server, stop, futures) = serve_in_need();
        let (mut peer, hello) = Raw::introduced(&server.address().to_string());
        let bytes = u64::from(hello.limits.max_metadata_bytes);
        peer.send(&Header { length: bytes, ..Header::empty(Kind::Call, 1) }.encode());
        peer.send(&vec![0; bytes as usize / 2]);
        until("the memory is charged", || server.stats().held_bytes == LARGE + bytes / 2);
        let frames = peer.until_closed();
        let goodbye = frames.last().unwrap();
        let goodbye = Goodbye::decode(&goodbye.header, &goodbye.body).unwrap();
        assert_eq!(goodbye.kind, Some(ErrorKind::TooSlow), "{}", goodbye.reason);
        until("the memory is freed", || server.stats().held_bytes == LARGE);
        drop(stop);
        futures.into_iter().for_each(|future| drop(future.wait().unwrap()));
    });
}

#[test]
fn the_structure_of_a_call_is_charged_and_must_not_arrive_slowly() {
    watched(|| {
        let (server, stop, futures) = serve_in_need();
        let (mut peer, _) = Raw::introduced(&server.address().to_string());
        let tree = Tree::List((0..9000).map(|x: i64| tree!(x)).collect());
        let message = Message::call(&CallHead::new("echo"), &tree, &Limits::default()).unwrap();
        peer.send_head(1, &message, true);
        until("the memory is charged", || server.stats().held_bytes > LARGE);
        let error = peer.next_of(Kind::Error);
        let error = RemoteError::decode(&error.body).unwrap();
        assert_eq!((error.kind, error.ran), (ErrorKind::TooSlow, Ran::No));
        until("the memory is freed", || server.stats().held_bytes == LARGE);
        // The call took more than half of the credit. The credit comes back once the client has aborted the
        // call.
        peer.send(&Header::empty(Kind::Abort, 1).encode());
        assert_eq!(peer.next_of(Kind::Credit).header.id, message.memory_bytes());
        peer.send_eager(2, &message);
        until("the memory is charged", || server.stats().held_bytes > LARGE);
        drop(stop);
        assert_eq!(peer.next_of(Kind::Result).header.id, 2);
        futures.into_iter().for_each(|future| drop(future.wait().unwrap()));
        until("all memory is freed", || server.stats().held_bytes == 0);
    });
}

#[test]
fn a_peer_may_be_slow_while_no_other_waits_for_memory() {
    watched(|| {
        let server = serve_impatiently();
        let mut peer = GrantingPeer::new(&server, "sum", LARGE);
        peer.begin(1);
        peer.raw.next_of(Kind::Grant);
        let start = Instant::now();
        // Other calls get memory.
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

// ---- Fair use of memory ----

#[test]
fn large_messages_take_turns_and_all_arrive() {
    watched(|| {
        let server = serve(echo().register("sum", sum));
        let mut peers: Vec<GrantingPeer> = (0..8).map(|_| GrantingPeer::new(&server, "sum", LARGE)).collect();
        peers.iter_mut().for_each(|peer| peer.begin(2));
        until("one call has the memory", || server.stats().awaiting_memory == 15);
        assert_eq!(server.stats().held_bytes, LARGE);
        // A call gets all the memory it needs or none, so the one that has memory can finish.
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
        until("all memory is freed", || server.stats().held_bytes == 0);
        assert_eq!((server.stats().answered, server.stats().awaiting_memory), (16, 0));
    });
}

#[test]
fn arrays_that_functions_keep_do_not_use_up_the_budget() {
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
        until("all memory is freed", || server.stats().held_bytes == 0);
        assert_eq!(kept.lock().unwrap().len() as u64, calls);
    });
}

#[test]
fn throttled_calls_survive_their_connection() {
    watched(|| {
        for method in ["zeros", "inline"] {
            let zeros = |bytes: usize| Array::zeros::<u8>([bytes]);
            let methods = Methods::new().register("zeros", zeros).register("inline", Method::inline(zeros));
            // The memory fits all results, which may be made while no client is connected.
            let server = Server::bind("tcp://127.0.0.1:0").unwrap().max_memory(1 << 30);
            let server = server.max_unsent_bytes(1 << 20).max_kept_bytes(256 << 20).start(methods).unwrap();
            let proxy = Proxy::start(&server.address().to_string());
            let client = Client::builder(&proxy.address()).on_disconnect(OnDisconnect::Resume);
            let client = client.max_inflight(64).connect().unwrap();
            // The client stays connected but receives no results.
            client.call(method, 0).wait().unwrap();
            proxy.stall_toward(Toward::Client);
            // The socket buffers hold some of the results.
            let calls = 40;
            let futures: Vec<CallFuture> =
                (0..calls).map(|_| client.call(method, 2 << 20).send().unwrap()).collect();
            until("some calls wait", || server.stats().calls == calls + 1 && server.stats().queued > 0);
            proxy.cut(Cut::Reset);
            proxy.resume();
            for future in futures {
                assert_eq!(future.wait().unwrap().as_array().unwrap().len(), 2 << 20);
            }
            assert_eq!(server.stats().answered, calls + 1);
        }
    });
}

/// Memory of a result, with a counter of the instances that are alive.
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
        let mut slow = GrantingPeer::new(&server, "act", BYTES as u64);
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
        // The peer counts as slow once it has left results unfetched for a tenth of a second.
        let mut before = round();
        until("its rows are copied to other memory", || {
            let now = round();
            std::mem::replace(&mut before, now) >= now
        });
        let kept = before;
        let most = (0..20).map(|_| round()).max().unwrap();
        assert!(most <= kept + 1, "more results are alive than before: {most}, {kept}");
        slow.grant_all();
        slow.receive_until(|slow| slow.fetched_bytes == rounds * BYTES as u64);
        until("all results are dropped", || alive.load(Ordering::SeqCst) == 0);
    });
}
