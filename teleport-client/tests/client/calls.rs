//! Calls and futures on a connection that holds.

use std::time::Duration;

use teleport_client::transport::Config;
use teleport_client::wire::{Array, ErrorKind, FromTree, Limits, Ran, Rpc, Tree, TreeError, tree};
use teleport_client::{CallError, Client, as_completed, wait_all};

use crate::support::{Seen, Server, address, until, watched};

const MS: Duration = Duration::from_millis(1);

fn pair() -> (Server, Client) {
    let server = Server::start(&address());
    let client = Client::builder(&server.address).name("tester").connect().unwrap();
    (server, client)
}

#[test]
fn trees_go_and_come_back() {
    watched(|| {
        let (server, client) = pair();
        assert_eq!(server.seen(), Seen::Opened { name: "tester".into() });
        let reply = client.call("echo", tree!({"foo": 1, "names": ["a", null]})).wait().unwrap();
        assert_eq!(reply.to_string(), r#"{"foo": 1, "names": ["a", null]}"#);
        assert_eq!(client.call(String::from("echo"), ()).wait().unwrap(), Tree::Null);
        // This tree is larger than the eager credit, so it waits for a grant both ways.
        let mut large = client.alloc::<u32>([3, 1 << 20]).unwrap();
        large.as_mut_slice::<u32>().unwrap().iter_mut().zip(0..).for_each(|(item, value)| *item = value);
        let reply = client.call("echo", large.clone()).wait().unwrap();
        assert_eq!(Array::from_tree(reply).unwrap(), large);
        let stats = client.stats();
        assert_eq!((stats.sends, stats.receives, stats.connects), (3, 3, 1));
        assert_eq!(stats.sent_bytes, stats.received_bytes);
        assert!(stats.server.unwrap().starts_with("ipc://@"));
        assert!(client.alloc::<bool>([100]).unwrap().as_slice::<bool>().unwrap().iter().all(|item| !item));
        assert!(client.alloc::<u64>([usize::MAX, 2]).is_err());
    });
}

#[test]
fn typed_calls_give_their_type() {
    const HALF: Rpc<f64, f64> = Rpc::new("echo");
    const COUNT: Rpc<&str, u8> = Rpc::new("echo");
    watched(|| {
        let (_server, client) = pair();
        assert_eq!(client.call(HALF, 0.5).wait().unwrap(), 0.5);
        let error = client.call(COUNT, "five").wait().unwrap_err();
        assert_eq!(error.ran(), Ran::Yes);
        let CallError::Reply { method, source } = error else { panic!("{error}") };
        assert_eq!(&*method, "echo");
        assert!(matches!(*source, TreeError::Kind { expected: "a number", .. }));
    });
}

/// A result whose conversion makes another call, on the client that waits.
struct Nested;

thread_local! {
    static CLIENT: std::cell::RefCell<Option<Client>> = const { std::cell::RefCell::new(None) };
}

impl FromTree for Nested {
    fn from_tree(tree: Tree) -> Result<Nested, TreeError> {
        let again = CLIENT.with_borrow(|client| client.as_ref().unwrap().call("echo", tree.clone()).wait());
        assert_eq!(again.unwrap(), tree);
        Ok(Nested)
    }
}

#[test]
fn converting_a_result_may_call_again() {
    const NESTED: Rpc<Tree, Nested> = Rpc::new("echo");
    watched(|| {
        // If the outer call kept the right to read, nobody would read the inner answer until a ping after
        // this time.
        let never = Duration::from_secs(1000);
        let server = Server::start(&address());
        let client =
            Client::builder(&server.address).ping_interval(never).max_silence(never).connect().unwrap();
        CLIENT.set(Some(client.clone()));
        client.call(NESTED, tree!(1)).wait().unwrap();
        let futures = (0..3).map(|i| client.call(NESTED, tree!(i)).send().unwrap());
        assert_eq!(as_completed(futures).filter(|(_, result)| result.is_ok()).count(), 3);
        CLIENT.set(None);
    });
}

#[test]
fn errors_of_the_server_arrive() {
    watched(|| {
        let (_server, client) = pair();
        let CallError::Remote(failure) = client.call("fail", "bad luck").wait().unwrap_err() else {
            panic!("it succeeds")
        };
        assert_eq!(
            (failure.kind(), failure.code(), failure.message()),
            (ErrorKind::Failed, "E7", "bad luck")
        );
        assert_eq!((failure.ran(), failure.backtrace()), (Ran::Yes, None));
        assert_eq!(failure.to_string(), "fail: failed [E7]: bad luck");
        let unknown = client.call("ecko", ()).wait().unwrap_err();
        assert!(matches!(&unknown, CallError::Remote(failure) if failure.kind() == ErrorKind::UnknownMethod));
        assert_eq!(unknown.ran(), Ran::No);
        let closing = client.call("closing", ()).wait().unwrap_err();
        assert!(matches!(closing, CallError::Closing { ran: Ran::No, .. }));
    });
}

#[test]
fn arguments_that_are_too_large_are_refused_before_they_are_sent() {
    watched(|| {
        let limits = Limits { max_message_bytes: 1 << 20, ..Limits::default() };
        let server = Server::with(&address(), Config { limits, ..Config::default() });
        let client = Client::connect(&server.address).unwrap();
        let error = client.call("echo", Array::zeros::<u8>([2 << 20])).wait().unwrap_err();
        let CallError::TooLarge { bytes, max_bytes, .. } = error else { panic!("{error}") };
        assert_eq!((bytes, max_bytes), (2 << 20, 1 << 20));
        let error = client.call("", ()).wait().unwrap_err();
        assert!(matches!(error, CallError::Encode { .. }) && error.ran() == Ran::No);
        assert_eq!(client.stats().in_flight, 0);
        client.call("echo", ()).wait().unwrap();
    });
}

#[test]
fn slots_bound_the_calls_in_flight() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).max_inflight(2).connect().unwrap();
        let first = client.call("hold", tree!(1)).send().unwrap();
        let second = client.call("hold", tree!(2)).try_send().unwrap();
        let full = client.call("hold", tree!(3)).try_send().unwrap_err();
        assert!(matches!(full, CallError::Full { max_inflight: 2, .. }) && full.ran() == Ran::No);
        let stats = client.stats();
        assert_eq!((stats.futures, stats.in_flight, stats.waiting), (2, 2, 0));
        let sender = {
            let client = client.clone();
            std::thread::spawn(move || client.call("echo", tree!(3)).wait())
        };
        server.saw_held(2);
        // An answer frees a slot though nobody has read it.
        server.answer();
        assert_eq!(sender.join().unwrap().unwrap(), tree!(3));
        server.answer();
        assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (tree!(1), tree!(2)));
        assert_eq!(client.stats().futures, 0);
    });
}

#[test]
fn a_server_that_allows_fewer_is_not_overrun() {
    watched(|| {
        let server = Server::with(&address(), Config { max_open_calls: 2, ..Config::default() });
        let client = Client::connect(&server.address).unwrap();
        let futures: Vec<_> = (0..2).map(|_| client.call("hold", ()).send().unwrap()).collect();
        assert!(matches!(client.call("hold", ()).try_send(), Err(CallError::Full { max_inflight: 2, .. })));
        server.saw_held(2);
        drop(futures);
        (0..2).for_each(|_| server.answer());
    });
}

#[test]
fn results_are_awaited_on_any_executor() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).max_inflight(1).connect().unwrap();
        pollster::block_on(async {
            assert_eq!(client.call("echo", tree!(1)).await.unwrap(), tree!(1));
            let future = client.call("echo", tree!(2)).send().unwrap();
            assert_eq!(future.await.unwrap(), tree!(2));
            assert!(matches!(client.call("fail", ()).await, Err(CallError::Remote(_))));
        });
        // There is one slot: the awaited call stands in line, and leaves it when it is dropped.
        let held = client.call("hold", ()).send().unwrap();
        server.saw_held(1);
        let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
        let mut dropped = Box::pin(client.call("echo", tree!(3)).into_future());
        assert!(dropped.as_mut().poll(&mut waker).is_pending());
        assert_eq!(client.stats().waiting, 1);
        drop(dropped);
        assert_eq!(client.stats().waiting, 0);
        server.answer();
        held.wait().unwrap();
        assert_eq!(pollster::block_on(client.call("echo", tree!(4)).into_future()).unwrap(), tree!(4));
    });
}

#[test]
fn many_threads_call() {
    watched(|| {
        let (_server, client) = pair();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let client = &client;
                scope.spawn(move || {
                    for call in 0..200 {
                        let value = thread * 1000 + call;
                        assert_eq!(client.call("echo", value).wait().unwrap(), tree!(value));
                    }
                });
            }
        });
        assert_eq!(client.stats().receives, 1600);
    });
}

/// Calls are sent, waited for, awaited, dropped and cancelled at once, so that futures are dropped while
/// their answers arrive and threads read each other's answers.
#[test]
fn many_threads_send_wait_and_drop_at_once() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).max_inflight(5).connect().unwrap();
        let work = |thread: i64| {
            for call in 0..300 {
                let value = thread * 1000 + call;
                let mut future = client.call("echo", value).send().unwrap();
                match (thread + call) % 5 {
                    0 => drop(future),
                    1 => drop(future.cancel_on_drop()),
                    2 => assert_eq!(pollster::block_on(future).unwrap(), tree!(value)),
                    3 => while future.wait_timeout(MS).unwrap().is_none_or(|reply| reply != tree!(value)) {},
                    _ => assert_eq!(future.wait().unwrap(), tree!(value)),
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let work = &work;
                scope.spawn(move || work(thread));
            }
        });
        client.call("echo", ()).wait().unwrap();
        until("nothing is left", || client.stats().in_flight == 0);
        let stats = client.stats();
        assert_eq!((stats.futures, stats.waiting, stats.sends), (0, 0, 2401));
        // Withdrawn calls may get no answer.
        assert!(stats.receives <= stats.sends);
        client.check().unwrap();
    });
}

#[test]
fn waiting_for_a_time_does_not_cancel() {
    watched(|| {
        let (server, client) = pair();
        let mut future = client.call("hold", tree!(5)).send().unwrap();
        assert!(!future.is_done());
        assert!(future.wait_timeout(MS).unwrap().is_none());
        assert!(future.wait_timeout(Duration::ZERO).unwrap().is_none());
        server.saw_held(1);
        server.answer();
        assert_eq!(future.wait_timeout(Duration::MAX).unwrap(), Some(tree!(5)));
        assert!(future.is_done());
    });
}

#[test]
fn many_futures_end_in_any_order() {
    watched(|| {
        let (server, client) = pair();
        let send = |method: &str, value: i64| client.call(method, value).send().unwrap();
        let futures = vec![send("hold", 0), send("hold", 1), send("echo", 2)];
        let mut completed = as_completed(futures);
        assert_eq!(completed.len(), 3);
        assert_eq!(completed.next().unwrap().0, 2);
        server.saw_held(2);
        server.answer_newest();
        let (index, reply) = completed.next().unwrap();
        assert_eq!((index, reply.unwrap()), (1, tree!(1)));
        server.answer();
        assert_eq!(completed.next().unwrap().0, 0);
        assert!(completed.next().is_none());

        let replies = wait_all((0..10).map(|value| send("echo", value))).unwrap();
        assert_eq!(replies, (0..10).map(|value: i64| tree!(value)).collect::<Vec<_>>());
        let futures = [send("echo", 0), send("panic", 1), send("fail", 2)];
        let CallError::Remote(first) = wait_all(futures).unwrap_err() else { panic!("another error") };
        assert_eq!(first.kind(), ErrorKind::Panicked);
        assert!(client.check().unwrap_err().to_string().starts_with("fail: "));
        client.check().unwrap();
    });
}

#[test]
fn failures_without_a_future_come_from_check() {
    watched(|| {
        let (server, client) = pair();
        drop(client.call("fail", "later").send().unwrap());
        server.saw(&Seen::Called { method: "fail" });
        // Answers arrive in order: after this one, the failure is known.
        client.call("echo", ()).wait().unwrap();
        assert_eq!(client.check().unwrap_err().method(), "fail");
        client.check().unwrap();
        // It makes no difference whether the answer or the drop comes first.
        let future = client.call("fail", "before").send().unwrap();
        client.call("echo", ()).wait().unwrap();
        assert!(future.is_done());
        drop(future);
        assert!(client.check().is_err());
    });
}

#[test]
fn failures_without_a_future_come_from_the_next_call_if_asked() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).errors_from_next_call(true).connect().unwrap();
        let future = client.call("fail", "why").send().unwrap();
        client.call("echo", ()).wait().unwrap();
        drop(future);
        let error = client.call("echo", ()).wait().unwrap_err();
        assert_eq!(error.to_string(), "an earlier call failed: fail: failed [E7]: why");
        assert_eq!(error.ran(), Ran::No);
        client.call("echo", ()).try_send().unwrap().wait().unwrap();
    });
}

#[test]
fn a_deadline_ends_the_call_and_tells_the_server() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).max_inflight(1).connect().unwrap();
        let error = client.call("hold", ()).deadline(20 * MS).wait().unwrap_err();
        let CallError::Deadline { time, ran, .. } = &error else { panic!("{error}") };
        assert_eq!((*time, *ran), (Some(20 * MS), Ran::Maybe));
        server.saw_held(1);
        server.saw(&Seen::Cancelled);
        // Its slot is free before the server answers, and the late answer is ignored.
        let held = client.call("hold", tree!(1)).send().unwrap();
        server.answer();
        server.saw_held(1);
        // This call waits in line and was not sent, so it did not run.
        let error = client.call("echo", ()).deadline(20 * MS).wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { ran: Ran::No, .. }));
        let awaited = pollster::block_on(client.call("echo", ()).deadline(MS).into_future());
        assert!(matches!(awaited, Err(CallError::Deadline { ran: Ran::No, .. })));
        let none_left = client.call("echo", ()).deadline(Duration::ZERO).try_send();
        assert!(none_left.is_err());
        server.answer();
        assert_eq!(held.wait().unwrap(), tree!(1));
        client.call("echo", ()).deadline(Duration::MAX).wait().unwrap();
        assert_eq!(client.stats().in_flight, 0);
    });
}

#[test]
fn cancelled_calls_are_withdrawn() {
    watched(|| {
        let (server, client) = pair();
        let future = client.call("hold", ()).send().unwrap();
        server.saw_held(1);
        assert_eq!(future.cancel(), Ran::Maybe);
        server.saw(&Seen::Cancelled);
        let future = client.call("hold", ()).send().unwrap();
        server.saw_held(1);
        drop(future.cancel_on_drop());
        server.saw(&Seen::Cancelled);
        assert_eq!(client.stats().in_flight, 0);
        (0..2).for_each(|_| server.answer());
        let done = client.call("echo", ()).send().unwrap();
        client.call("echo", ()).wait().unwrap();
        assert_eq!(done.cancel(), Ran::Yes);
        // None of this is a failure to report.
        client.check().unwrap();
    });
}

#[test]
fn a_poller_thread_must_not_wait_but_may_send() {
    watched(|| {
        let (server, client) = pair();
        let inner = Client::builder(&server.address).max_inflight(1).connect().unwrap();
        let address = server.address.clone();
        server.set_inline(move |_| {
            let waiting = inner.call("hold", ()).wait().unwrap_err();
            let full = inner.call("hold", ()).send().unwrap_err();
            let connecting = Client::connect(&address).unwrap_err();
            tree!([waiting.to_string(), format!("{:?}", full.ran()), connecting.to_string()])
        });
        let texts: Vec<String> = FromTree::from_tree(client.call("inline", ()).wait().unwrap()).unwrap();
        assert!(texts[0].starts_with("hold: waiting on a poller's thread"), "{texts:?}");
        assert_eq!(texts[1], "No");
        assert!(texts[2].starts_with("connecting on a poller's thread"), "{texts:?}");
        server.saw_held(1);
        server.answer();
    });
}
