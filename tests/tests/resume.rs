//! Calls that survive their connection: each call runs once and each result arrives, wherever connections are
//! cut.
//!
//! A proxy between client and server cuts connections at random bytes. The server counts how often each call
//! ran.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use teleport::transport::random_id;
use teleport::wire::{
    CallAnswer, CallHead, CallState, Hello, Kind, Limits, Message, RemoteError, Resume, ResumeAnswer,
    decode_ids, encode_frame, encode_ids,
};
use teleport::{
    Array, CallError, CallFuture, Client, Context, ErrorKind, Method, Methods, OnDisconnect, Ran, Server,
    ServerHandle, Tree, tree,
};
use teleport_tests::{Cut, Proxy, Random, Raw, abstract_address, until, watched};

/// The number of runs of each call, over all servers.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<HashMap<u64, u32>>>);

impl Effects {
    fn note(&self, call: u64) {
        *self.0.lock().unwrap().entry(call).or_default() += 1;
    }

    fn of(&self, call: u64) -> u32 {
        self.0.lock().unwrap().get(&call).copied().unwrap_or(0)
    }
}

/// Blocks functions until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn wait(&self) {
        let open = self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open);
        drop(open.unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Returns the methods of the tests:
///
/// - `step` counts the call and returns its data with each byte incremented.
/// - `hold` counts the call and waits for the gate.
/// - `endless` ends when it is cancelled.
fn methods(effects: &Effects, gate: &Gate) -> Methods {
    let (step, hold, gate) = (effects.clone(), effects.clone(), gate.clone());
    Methods::new()
        .register("step", move |mut x: Tree| -> Result<Tree, teleport::TreeError> {
            step.note(x.field("call")?);
            let mut data: Array = x.take("data")?;
            data.as_mut_slice::<u8>().unwrap().iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
            Ok(tree!({"call": x.field::<u64>("call")?, "data": data}))
        })
        .register("hold", move |call: u64| {
            hold.note(call);
            gate.wait();
            call
        })
        .register("endless", |_: u64, cx: Context| {
            while !cx.is_cancelled() {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        })
}

struct Scene {
    server: ServerHandle,
    proxy: Proxy,
    effects: Effects,
    gate: Gate,
}

fn serve(address: &str, effects: &Effects, gate: &Gate) -> ServerHandle {
    Server::bind(address).unwrap().workers(2).start(methods(effects, gate)).unwrap()
}

impl Scene {
    fn new(address: &str) -> Scene {
        let (effects, gate) = (Effects::default(), Gate::default());
        let server = serve(address, &effects, &gate);
        let proxy = Proxy::start(&server.address().to_string());
        Scene { server, proxy, effects, gate }
    }

    fn client(&self) -> Client {
        Client::builder(&self.proxy.address())
            .max_inflight(32)
            .on_disconnect(OnDisconnect::Resume)
            .connect()
            .unwrap()
    }

    /// Starts another server in place of the current one, whose connections are cut. Returns the old server.
    fn restart(&mut self, address: &str) -> ServerHandle {
        let server = serve(address, &self.effects, &self.gate);
        self.proxy.redirect(&server.address().to_string());
        self.proxy.cut(Cut::End);
        std::mem::replace(&mut self.server, server)
    }
}

/// One call of `step` with its data.
struct Step {
    call: u64,
    data: Vec<u8>,
    future: CallFuture<Tree>,
}

impl Step {
    fn send(client: &Client, call: u64, idempotent: bool, random: &mut Random) -> Step {
        let bytes = match random.below(100) {
            0..90 => random.below(200),
            90..98 => random.below(20_000),
            _ => random.below(100_000),
        };
        let data = random.bytes(bytes);
        let step = client.call("step", tree!({"call": call, "data": data.clone()}));
        let step = if idempotent { step.idempotent() } else { step };
        Step { call, data, future: step.send().unwrap() }
    }

    fn check(self) -> Result<(), CallError> {
        let mut reply = self.future.wait()?;
        assert_eq!(reply.field::<u64>("call").unwrap(), self.call);
        let data: Array = reply.take("data").unwrap();
        let expected: Vec<u8> = self.data.iter().map(|byte| byte.wrapping_add(1)).collect();
        assert!(data.as_slice::<u8>().unwrap() == expected, "call {} has a wrong result", self.call);
        Ok(())
    }
}

/// Makes `calls` calls through a proxy that cuts at random bytes. Checks that each runs once and its result
/// arrives.
fn calls_through_cuts(address: &str, calls: u64) {
    let scene = Scene::new(address);
    let mut random = Random::from_environment();
    let client = scene.client();
    scene.proxy.cut_every(100..500_000, random.next_u64());
    let mut open = VecDeque::new();
    for call in 0..calls {
        open.push_back(Step::send(&client, call, false, &mut random));
        if open.len() == 64 {
            open.pop_front().unwrap().check().unwrap();
        }
    }
    open.into_iter().for_each(|step| step.check().unwrap());
    let cuts = scene.proxy.cuts();
    println!("{calls} calls, {cuts} cuts, {} connections", client.stats().connects);
    assert!(cuts > 10, "only {cuts} cuts");
    assert!((0..calls).all(|call| scene.effects.of(call) == 1));
    // One more call without cuts lets the client acknowledge all results.
    scene.proxy.heal();
    client.call("step", tree!({"call": calls, "data": Vec::<u8>::new()})).wait().unwrap();
    until("the server keeps no results", || scene.server.stats().kept_bytes == 0);
    assert_eq!(scene.server.stats().held_bytes, 0);
}

#[test]
fn ten_thousand_calls_through_cuts_at_random_bytes_run_once_each_over_tcp() {
    watched(|| calls_through_cuts("tcp://127.0.0.1:0", 10_000));
}

#[test]
fn calls_through_cuts_at_random_bytes_run_once_each_over_a_unix_socket() {
    watched(|| calls_through_cuts(&abstract_address(), 3_000));
}

#[test]
fn across_restarts_calls_run_at_most_once_and_idempotent_ones_succeed() {
    watched(|| {
        let mut scene = Scene::new("tcp://127.0.0.1:0");
        let mut random = Random::from_environment();
        let client = scene.client();
        let (mut open, mut old, mut lost) = (VecDeque::new(), Vec::new(), 0);
        let mut check = |step: Step| {
            let (call, is_idempotent) = (step.call, step.call.is_multiple_of(2));
            match step.check() {
                Ok(()) => {}
                Err(error) => {
                    assert!(!is_idempotent, "the idempotent call {call} failed: {error}");
                    assert_ne!(error.ran(), Ran::Yes, "call {call}: {error}");
                    lost += 1;
                }
            }
        };
        for call in 0..3_000 {
            if call % 300 == 299 {
                old.push(scene.restart("tcp://127.0.0.1:0"));
            }
            open.push_back(Step::send(&client, call, call.is_multiple_of(2), &mut random));
            if open.len() == 64 {
                check(open.pop_front().unwrap());
            }
        }
        open.into_iter().for_each(&mut check);
        // Calls that an old server had queued have run by now or never will.
        drop(old);
        println!("{lost} of 1500 calls that may run only once were lost in {} restarts", 10);
        for call in 0..3_000 {
            let runs = scene.effects.of(call);
            assert!(
                if call.is_multiple_of(2) { runs >= 1 } else { runs <= 1 },
                "call {call} ran {runs} times"
            );
        }
    });
}

#[test]
fn calls_that_a_closing_server_refuses_run_on_the_next_one() {
    watched(|| {
        let mut scene = Scene::new("tcp://127.0.0.1:0");
        let client = scene.client();
        // Each worker runs one call, and the other calls wait.
        let futures: Vec<_> =
            (0..6).map(|call| client.call("hold", call).idempotent().send().unwrap()).collect();
        until("two calls run", || scene.server.stats().running == 2);
        let next = serve("tcp://127.0.0.1:0", &scene.effects, &scene.gate);
        scene.proxy.redirect(&next.address().to_string());
        let closed = std::mem::replace(&mut scene.server, next);
        let closing = std::thread::spawn(move || closed.close());
        until("the server refuses the others", || {
            scene.gate.0.0.lock().is_ok() && client.stats().receives >= 4
        });
        scene.gate.open();
        closing.join().unwrap().unwrap();
        for (call, future) in futures.into_iter().enumerate() {
            assert_eq!(future.wait().unwrap(), tree!(call as u64));
            assert_eq!(scene.effects.of(call as u64), 1);
        }
    });
}

#[test]
fn calls_are_answered_on_the_next_connection_when_theirs_breaks() {
    watched(|| {
        let scene = Scene::new("tcp://127.0.0.1:0");
        let client = scene.client();
        let (running, waiting) =
            (client.call("hold", 1u64).send().unwrap(), client.call("hold", 2u64).send().unwrap());
        let queued = client.call("hold", 3u64).send().unwrap();
        until("all calls have arrived", || scene.server.stats().calls == 3);
        for _ in 0..3 {
            let connects = client.stats().connects;
            scene.proxy.cut(Cut::Reset);
            until("the client connects again", || client.stats().connects > connects);
        }
        scene.gate.open();
        for (call, future) in [(1u64, running), (2, waiting), (3, queued)] {
            assert_eq!(future.wait().unwrap(), tree!(call));
            assert_eq!(scene.effects.of(call), 1);
        }
    });
}

#[test]
fn a_call_whose_result_was_not_kept_fails_as_expired_and_ran() {
    watched(|| {
        let (effects, gate) = (Effects::default(), Gate::default());
        let address = "tcp://127.0.0.1:0";
        let server =
            Server::bind(address).unwrap().max_kept_bytes(100).start(methods(&effects, &gate)).unwrap();
        let proxy = Proxy::start(&server.address().to_string());
        let client = Client::builder(&proxy.address()).on_disconnect(OnDisconnect::Resume).connect().unwrap();
        proxy.stall_toward(teleport_tests::Toward::Client);
        let data = vec![0u8; 1000];
        let lost = client.call("step", tree!({"call": 7u64, "data": data})).send().unwrap();
        until("the call has run", || server.stats().answered == 1);
        proxy.cut(Cut::End);
        until("the connection is cut", || proxy.cuts() == 1);
        proxy.heal();
        match lost.wait() {
            Err(CallError::Remote(failure)) => {
                assert_eq!((failure.kind(), failure.ran()), (ErrorKind::Expired, Ran::Yes));
            }
            other => panic!("the result was not kept, but the call returned {other:?}"),
        }
        assert_eq!(effects.of(7), 1);
    });
}

#[test]
fn calls_of_a_client_that_does_not_come_back_are_withdrawn() {
    watched(|| {
        let (effects, gate) = (Effects::default(), Gate::default());
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().resume_timeout(Duration::from_millis(50));
        let server = server.start(methods(&effects, &gate)).unwrap();
        let proxy = Proxy::start(&server.address().to_string());
        let client = Client::builder(&proxy.address()).on_disconnect(OnDisconnect::Resume);
        let client = client.close_timeout(Duration::ZERO).connect().unwrap();
        let runs = client.call("endless", 0u64).send().unwrap();
        let waits = client.call("hold", 1u64).send().unwrap();
        until("one call runs and one waits", || server.stats().running == 1 && server.stats().queued == 1);
        // From now on the proxy forwards to an address without a server.
        proxy.redirect(&Server::bind("tcp://127.0.0.1:0").unwrap().address().to_string());
        proxy.cut(Cut::End);
        until("the running call is cancelled", || server.stats().running == 0);
        until("the server keeps no results", || server.stats().kept_bytes == 0);
        // The waiting call never runs.
        let other = Client::connect(&server.address().to_string()).unwrap();
        let later = other.call("hold", 2u64).send().unwrap();
        until("a later call runs", || effects.of(2) == 1);
        assert_eq!(effects.of(1), 0);
        gate.open();
        later.wait().unwrap();
        drop((runs, waits));
        drop(client);
    });
}

#[test]
fn calls_without_resume_fail_when_their_connection_breaks() {
    watched(|| {
        let scene = Scene::new("tcp://127.0.0.1:0");
        let client = scene.client();
        let fails = client.call("hold", 1u64).on_disconnect(OnDisconnect::Fail).send().unwrap();
        let survives = client.call("hold", 2u64).send().unwrap();
        until("both calls run", || scene.server.stats().running == 2);
        scene.proxy.cut(Cut::End);
        let Err(error @ CallError::Disconnected { .. }) = fails.wait() else {
            panic!("the call did not fail with its connection")
        };
        assert_eq!(error.ran(), Ran::Maybe);
        scene.gate.open();
        assert_eq!(survives.wait().unwrap(), tree!(2u64));
    });
}

/// The client learns of the result from the server's answer to its resume. It has cancelled the call by then.
#[test]
fn a_client_acknowledges_the_result_of_a_call_cancelled_during_resume() {
    watched(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let (asked, was_asked) = mpsc::channel();
        let (withdrawn, was_withdrawn) = mpsc::channel();
        let server = thread::spawn(move || {
            let hello = Hello { max_open_calls: 8, features: Hello::RESUME, ..Raw::hello() };
            let mut raw = Raw::accept(&listener);
            raw.introduce(&hello);
            let id = raw.next_of(Kind::Call).header.id;
            drop(raw);
            let mut raw = Raw::accept(&listener);
            raw.introduce(&hello);
            raw.next_of(Kind::Resume);
            asked.send(()).unwrap();
            was_withdrawn.recv().unwrap();
            let answer = ResumeAnswer { calls: vec![(id, CallAnswer::Done)] };
            let result = Message::result(&Tree::Null, &Limits::default()).unwrap();
            let answer = encode_frame(Kind::ResumeAnswer, 0, &answer.encode());
            raw.send(&[&answer[..], &result.header(id, false), result.metadata()].concat());
            let acks = raw.next_of(Kind::Ack).body;
            assert_eq!(decode_ids(&acks).unwrap().collect::<Vec<_>>(), [id]);
        });
        let client = Client::builder(&address).on_disconnect(OnDisconnect::Resume).connect().unwrap();
        let future = client.call("echo", ()).send().unwrap();
        was_asked.recv().unwrap();
        assert_eq!(future.cancel(), Ran::Maybe);
        withdrawn.send(()).unwrap();
        server.join().unwrap();
    });
}

/// A session whose calls 1 and 2 were made on a lost connection and are throttled on the next one, because
/// the client does not fetch the results of calls 3 and 4.
struct ThrottledSession {
    raw: Raw,
    /// Dropped last, because it waits for its clients to disconnect.
    server: ServerHandle,
}

impl ThrottledSession {
    fn new(deadline: Option<Duration>) -> ThrottledSession {
        let gate = Gate::default();
        let methods = methods(&Effects::default(), &gate)
            .register("zeros", Method::inline(|bytes: usize| Array::zeros::<u8>([bytes])));
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().workers(1).max_unsent_bytes(64 << 10);
        let server = server.start(methods).unwrap();
        let address = server.address().to_string();
        let client = Client::connect(&address).unwrap();
        let holds_the_worker = client.call("hold", 0u64).send().unwrap();
        until("the call runs", || server.stats().running == 1);

        // Without eager credit, each result waits for a grant.
        let hello =
            Hello { features: Hello::RESUME, session: random_id(), eager_credit_bytes: 0, ..Raw::hello() };
        let mut first = Raw::connect(&address);
        let instance = first.introduce(&hello).instance;
        for id in [1, 2] {
            let head =
                CallHead { deadline: deadline.filter(|_| id == 1), resume: true, ..CallHead::new("hold") };
            first.send_eager(id, &call(&head, id));
        }
        until("both calls wait", || server.stats().queued == 2);
        drop(first);
        let mut raw = Raw::connect(&address);
        raw.introduce(&hello);
        let calls = vec![(1, CallState::Sent), (2, CallState::Sent)];
        raw.send(&encode_frame(Kind::Resume, 0, &Resume { server: instance, calls }.encode()));
        raw.next_of(Kind::ResumeAnswer);
        // The quota does not count the largest result, so two are needed to exceed it.
        for id in [3, 4] {
            raw.send_eager(id, &call(&CallHead::new("zeros"), 1 << 20));
            assert_eq!(raw.next_of(Kind::Result).header.id, id);
        }

        gate.open();
        holds_the_worker.wait().unwrap();
        // The worker takes turns between connections. Once it has run two calls of this one, it has reached
        // both others.
        (0..2).for_each(|_| drop(client.call("hold", 0u64).wait().unwrap()));
        ThrottledSession { raw, server }
    }

    /// Returns the next call that fails.
    fn failure(&mut self) -> (u64, ErrorKind, Ran) {
        let frame = self.raw.next_of(Kind::Error);
        let error = RemoteError::decode(&frame.body).unwrap();
        (frame.header.id, error.kind, error.ran)
    }
}

fn call(head: &CallHead<'_>, argument: u64) -> Message {
    Message::call(head, &tree!(argument), &Limits::default()).unwrap()
}

#[test]
fn throttled_calls_of_a_resumed_session_fail_at_their_deadline() {
    watched(|| {
        let mut session = ThrottledSession::new(Some(Duration::from_secs(1)));
        assert_eq!(session.failure(), (1, ErrorKind::Deadline, Ran::No));
        assert_eq!(session.server.stats().queued, 1);
    });
}

#[test]
fn throttled_calls_of_a_resumed_session_are_refused_at_closing() {
    watched(|| {
        let mut session = ThrottledSession::new(None);
        assert_eq!(session.server.stats().queued, 2);
        session.server.closer().close();
        for id in [1, 2] {
            assert_eq!(session.failure(), (id, ErrorKind::Closing, Ran::No));
        }
        // Existing results are still delivered, and then the connection ends.
        session.raw.send(&encode_frame(Kind::Grant, 0, &encode_ids(&[3, 4])));
        session.raw.until_silent_end();
        session.server.join().unwrap();
    });
}
