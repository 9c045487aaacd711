//! Small messages that are held back briefly to be sent together. They are sent even if their thread never
//! waits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use teleport::{CallFuture, Client, Method, Methods, Server, ServerHandle, Tree, tree};
use teleport_tests::{abstract_address, until, watched};

/// A server with the methods `echo`, `note`, which reports its argument, and `wait`, which returns at once
/// for false and otherwise waits for `go`.
struct Fixture {
    server: ServerHandle,
    noted: Receiver<u64>,
    go: mpsc::Sender<()>,
}

fn fixture() -> Fixture {
    let (sender, noted) = mpsc::channel();
    let (go, come) = mpsc::channel();
    let come = Mutex::new(come);
    let methods = Methods::new()
        .register("echo", Method::inline(|x: Tree| x))
        .register("note", Method::inline(move |number: u64| sender.send(number).unwrap()))
        // Also returns when the test ends and drops `go`.
        .register(
            "wait",
            Method::inline(move |waits: bool| {
                if waits {
                    wait(&come);
                }
            }),
        );
    let server = Server::bind(&abstract_address()).unwrap().start(methods).unwrap();
    Fixture { server, noted, go }
}

/// Takes far longer than a method that counts as quick, even if `go` was sent before.
fn wait(come: &Mutex<Receiver<()>>) {
    let _ = come.lock().unwrap().recv();
    thread::sleep(Duration::from_millis(2));
}

impl Fixture {
    fn client(&self) -> Client {
        Client::builder(&self.server.address().to_string()).max_inflight(256).connect().unwrap()
    }
}

fn send(client: &Client, method: &'static str, number: u64) -> CallFuture {
    client.call(method, tree!(number)).send().unwrap()
}

#[test]
fn calls_are_sent_even_if_no_thread_waits_for_them() {
    watched(|| {
        let fixture = fixture();
        let client = fixture.client();
        for calls in (1..100).chain([200, 7, 3]) {
            let futures: Vec<_> = (0..calls).map(|number| send(&client, "note", number)).collect();
            // This thread waits on a channel that the client does not know.
            let noted: Vec<u64> = (0..calls).map(|_| fixture.noted.recv().unwrap()).collect();
            assert_eq!(noted, (0..calls).collect::<Vec<_>>());
            futures.into_iter().for_each(|future| assert_eq!(future.wait().unwrap(), Tree::Null));
        }
    });
}

/// Makes calls when its thread ends.
struct CallsAtTheEnd(Client, mpsc::Sender<Vec<Tree>>);

impl Drop for CallsAtTheEnd {
    fn drop(&mut self) {
        let futures: Vec<_> = (0..20).map(|number| send(&self.0, "echo", number)).collect();
        self.1.send(futures.into_iter().map(|future| future.wait().unwrap()).collect()).unwrap();
    }
}

thread_local! {
    static BEFORE: RefCell<Option<CallsAtTheEnd>> = const { RefCell::new(None) };
    static AFTER: RefCell<Option<CallsAtTheEnd>> = const { RefCell::new(None) };
}

/// One of the two thread-locals is dropped after those of the transport, in any order of destruction.
#[test]
fn destructors_of_thread_locals_can_call() {
    watched(|| {
        let fixture = fixture();
        let client = fixture.client();
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            BEFORE.set(Some(CallsAtTheEnd(client.clone(), sender.clone())));
            let futures: Vec<_> = (0..3).map(|number| send(&client, "echo", number)).collect();
            futures.into_iter().for_each(|future| drop(future.wait().unwrap()));
            AFTER.set(Some(CallsAtTheEnd(client, sender)));
        });
        for _ in 0..2 {
            assert_eq!(answers.recv().unwrap(), (0..20u64).map(|number| tree!(number)).collect::<Vec<_>>());
        }
    });
}

#[test]
fn answers_are_received_even_if_no_thread_reads_them() {
    watched(|| {
        let fixture = fixture();
        let client = fixture.client();
        for calls in 1..100 {
            let before = client.stats().receives;
            let mut futures: VecDeque<_> = (0..calls).map(|number| send(&client, "echo", number)).collect();
            // This wait reads for all calls and then stops reading.
            futures.pop_front().unwrap().wait().unwrap();
            until("all answers are received", || client.stats().receives == before + calls);
        }
    });
}

#[test]
fn an_answer_never_waits_for_a_method_of_unknown_duration() {
    watched(|| {
        for _ in 0..20 {
            let fixture = fixture();
            let client = fixture.client();
            // Sent together, so that the server gets them in one read.
            let first = client.call("echo", tree!(1)).send().unwrap();
            let second = client.call("echo", tree!(2)).send().unwrap();
            let slow = client.call("wait", true).send().unwrap();
            first.wait().unwrap();
            second.wait().unwrap();
            fixture.go.send(()).unwrap();
            slow.wait().unwrap();
        }
    });
}

#[test]
fn an_answer_waits_at_most_once_for_a_method_that_used_to_be_quick() {
    watched(|| {
        let fixture = fixture();
        let client = fixture.client();
        for _ in 0..100 {
            client.call("wait", false).wait().unwrap();
        }
        // The method is slow for the first time, so the answer may wait until it returns.
        let first = client.call("echo", tree!(1)).send().unwrap();
        let slow = client.call("wait", true).send().unwrap();
        fixture.go.send(()).unwrap();
        assert_eq!(first.wait().unwrap(), tree!(1));
        slow.wait().unwrap();
        // The server knows now that the method can be slow, so the answer does not wait.
        let first = client.call("echo", tree!(1)).send().unwrap();
        let slow = client.call("wait", true).send().unwrap();
        first.wait().unwrap();
        fixture.go.send(()).unwrap();
        slow.wait().unwrap();
    });
}

#[test]
fn all_calls_of_threads_that_share_a_connection_are_answered() {
    watched(|| {
        let fixture = fixture();
        let client = fixture.client();
        thread::scope(|scope| {
            for thread in 0..8u64 {
                let client = &client;
                scope.spawn(move || {
                    let window = 1 + thread as usize * 5;
                    let mut open = VecDeque::new();
                    for number in 0..2000u64 {
                        if open.len() == window {
                            let (sent, future): (u64, CallFuture) = open.pop_front().unwrap();
                            assert_eq!(future.wait().unwrap(), tree!(sent));
                        }
                        let number = thread << 32 | number;
                        open.push_back((number, send(client, "echo", number)));
                    }
                    open.into_iter()
                        .for_each(|(sent, future)| assert_eq!(future.wait().unwrap(), tree!(sent)));
                });
            }
        });
    });
}
