//! Calls between a client and a server: blocking and async futures in any order, many threads, and every way
//! in which a call can fail.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use teleport::server::Failure;
use teleport::wire::Rpc;
use teleport::{
    Array, BoxError, CallError, CallFuture, Client, Context, ErrorKind, Method, Methods, Ran, Server,
    ServerHandle, Tree, as_completed, tree, wait_all,
};
use teleport_tests::{abstract_address, until, watched};

/// Running calls of `turn`: the number of each, and a sender that ends it.
type Waiting = Arc<Mutex<Vec<(i64, Sender<()>)>>>;

/// A server whose method `turn` answers a call when the test passes its number to [`Turns::answer`].
struct Turns {
    server: ServerHandle,
    turns: Waiting,
    began: Receiver<i64>,
}

fn turns() -> Turns {
    let (sender, began) = mpsc::channel();
    let turns = Waiting::default();
    let waiting = turns.clone();
    let turn = move |number: i64| {
        let (mine, come) = mpsc::channel();
        waiting.lock().unwrap().push((number, mine));
        sender.send(number).unwrap();
        // Also returns when the test ends and drops the sender.
        let _ = come.recv();
        number
    };
    let methods = Methods::new()
        .register("turn", Method::new(turn).workers(8))
        .register("echo", |x: Tree| x)
        .register("fail", |text: String| -> Result<(), BoxError> { Err(text.into()) })
        .register("code", |(): ()| -> Result<(), BoxError> {
            Err(Failure::with_code("E_INK", "out of ink").into())
        })
        .register("panic", |text: String| -> () { panic!("{text}") })
        .register("norm", |x: Array| -> Result<f64, BoxError> {
            Ok(x.as_slice::<f64>()?.iter().map(|x| x * x).sum::<f64>().sqrt())
        })
        .register("caller", |(): (), cx: Context| cx.caller().to_owned());
    let server = Server::bind(&abstract_address()).unwrap().start(methods).unwrap();
    Turns { server, turns, began }
}

impl Turns {
    fn client(&self) -> Client {
        Client::builder(&self.server.address().to_string()).name("caller-1").connect().unwrap()
    }

    /// Makes `count` calls, numbered from 0, and waits until all of them run.
    fn calls(&self, client: &Client, count: i64) -> Vec<CallFuture> {
        let futures = (0..count).map(|i| client.call("turn", tree!(i)).send().unwrap()).collect();
        self.until_begun(count);
        futures
    }

    /// Waits until `count` more calls run.
    fn until_begun(&self, count: i64) {
        for _ in 0..count {
            self.began.recv().unwrap();
        }
    }

    /// Ends the running call with this number.
    fn answer(&self, number: i64) {
        let mut turns = self.turns.lock().unwrap();
        let index = turns.iter().position(|(waiting, _)| *waiting == number).expect("that call runs");
        turns.swap_remove(index).1.send(()).unwrap();
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.turns.lock().unwrap().clear();
    }
}

#[test]
fn futures_can_be_waited_for_in_any_order() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let mut futures = turns.calls(&client, 4);
        (0..4).for_each(|number| turns.answer(number));
        for number in (0..4).rev() {
            assert_eq!(futures.remove(number).wait().unwrap(), tree!(number as i64));
        }
    });
}

#[test]
fn as_completed_returns_results_in_the_order_of_completion() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let futures = turns.calls(&client, 5);
        let mut completed = as_completed(futures);
        for number in [3, 0, 4, 1, 2] {
            turns.answer(number);
            let (index, reply) = completed.next().unwrap();
            assert_eq!((index as i64, reply.unwrap()), (number, tree!(number)));
        }
        assert!(completed.next().is_none());
    });
}

#[test]
fn wait_all_returns_results_in_the_order_of_the_calls() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let futures = turns.calls(&client, 5);
        [3, 0, 4, 1, 2].into_iter().for_each(|number| turns.answer(number));
        let replies = wait_all(futures).unwrap();
        assert_eq!(replies, (0..5i64).map(|number| tree!(number)).collect::<Vec<_>>());

        let mixed = [("echo", "one"), ("fail", "two"), ("echo", "three")];
        let futures = mixed.map(|(method, text)| client.call(method, text).send().unwrap());
        let error = wait_all(futures).unwrap_err();
        assert!(error.to_string().contains("two"), "{error}");
    });
}

#[test]
fn a_wait_timeout_ends_the_wait_and_not_the_call() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let mut future = turns.calls(&client, 1).remove(0);
        assert!(future.wait_timeout(Duration::from_millis(1)).unwrap().is_none());
        assert!(!future.is_done());
        turns.answer(0);
        assert_eq!(future.wait().unwrap(), tree!(0));
    });
}

#[test]
fn futures_can_be_awaited_on_an_executor() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let mut futures = turns.calls(&client, 2);
        turns.answer(1);
        let (second, first) = (futures.pop().unwrap(), futures.pop().unwrap());
        assert_eq!(pollster::block_on(second).unwrap(), tree!(1));
        turns.answer(0);
        assert_eq!(pollster::block_on(first).unwrap(), tree!(0));
        // Awaiting a call waits for a slot and then for the result.
        let sum = pollster::block_on(async {
            let mut sum = 0;
            for i in 0..100i64 {
                sum += client.call("echo", tree!({"i": i})).await?.field::<i64>("i")?;
            }
            Ok::<i64, BoxError>(sum)
        });
        assert_eq!(sum.unwrap(), 4950);
        let failure = pollster::block_on(client.call("fail", "on purpose")).unwrap_err();
        assert!(failure.to_string().contains("on purpose"), "{failure}");
    });
}

#[test]
fn many_threads_can_share_one_client() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        thread::scope(|scope| {
            for thread in 0..16i64 {
                let client = &client;
                scope.spawn(move || {
                    let mut random = thread as u64;
                    for call in 0..100i64 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let len = (random >> 33) as usize % 200_000;
                        let sent = tree!({"thread": thread, "call": call, "data": (vec![call as u8; len])});
                        let reply = match call % 3 {
                            0 => client.call("echo", sent.clone()).wait(),
                            1 => client.call("echo", sent.clone()).send().and_then(CallFuture::wait),
                            _ => pollster::block_on(client.call("echo", sent.clone())),
                        };
                        assert_eq!(reply.unwrap(), sent);
                    }
                });
            }
        });
        let stats = client.stats();
        assert_eq!((stats.sends, stats.receives, stats.in_flight, stats.connects), (1600, 1600, 0, 1));
    });
}

#[test]
fn a_big_array_and_small_calls_share_a_connection() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let large = Array::from((0..8 << 20).map(|i| i as u32).collect::<Vec<_>>());
        let future = client.call("echo", large.clone()).send().unwrap();
        for i in 0..100i64 {
            assert_eq!(client.call("echo", tree!(i)).wait().unwrap(), tree!(i));
        }
        assert_eq!(future.wait().unwrap(), Tree::from(large));
    });
}

const NORM: Rpc<Array, f64> = Rpc::new("norm");
const CALLER: Rpc<(), String> = Rpc::new("caller");
const WRONG: Rpc<&str, i64> = Rpc::new("echo");

#[test]
fn typed_calls_return_their_type_or_an_error() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        assert_eq!(client.call(NORM, Array::from(vec![3.0, 4.0])).wait().unwrap(), 5.0);
        assert_eq!(client.call(CALLER, ()).wait().unwrap(), "caller-1");
        let error = client.call(WRONG, "text").wait().unwrap_err();
        assert!(matches!(error, CallError::Reply { .. }) && error.ran() == Ran::Yes, "{error:?}");
    });
}

#[track_caller]
fn remote(error: &CallError) -> (ErrorKind, Ran, &str) {
    match error {
        CallError::Remote(failure) => (failure.kind(), error.ran(), failure.message()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn failures_reach_only_their_caller_and_the_owner_of_the_server() {
    watched(|| {
        let turns = turns();
        let (client, other) = (turns.client(), turns.client());

        let error = client.call("fail", "out of ink").wait().unwrap_err();
        assert_eq!(remote(&error), (ErrorKind::Failed, Ran::Yes, "out of ink"));
        let error = client.call("code", ()).wait().unwrap_err();
        assert!(matches!(&error, CallError::Remote(failure) if failure.code() == "E_INK"), "{error:?}");
        let error = client.call("panic", "dropped").wait().unwrap_err();
        let (kind, ran, text) = remote(&error);
        assert_eq!((kind, ran), (ErrorKind::Panicked, Ran::Yes));
        assert!(text.contains("dropped"), "{text}");
        let error = client.call("ecko", ()).wait().unwrap_err();
        let (kind, ran, text) = remote(&error);
        assert_eq!((kind, ran), (ErrorKind::UnknownMethod, Ran::No));
        assert!(text.contains("ecko") && text.contains("echo"), "{text}");
        let error = client.call("norm", "text").wait().unwrap_err();
        assert_eq!((remote(&error).0, error.ran()), (ErrorKind::BadArguments, Ran::No));

        // Failures of functions are reported to the server's owner too, but only the first one is kept.
        assert!(turns.server.check().is_err());
        assert!(turns.server.check().is_ok());
        assert_eq!(other.call("echo", tree!(1)).wait().unwrap(), tree!(1));
        assert!(other.check().is_ok());
        assert_eq!(client.stats().connects, 1);
    });
}

#[test]
fn a_dropped_future_detaches_and_its_failure_comes_from_check() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        drop(client.call("fail", "left alone").send().unwrap());
        let mut found = Ok(());
        until("`check` returns the failure", || {
            found = client.check();
            found.is_err()
        });
        let error = found.unwrap_err();
        assert_eq!(remote(&error).2, "left alone");
        assert!(client.check().is_ok(), "`check` returned the failure twice");
    });
}

#[test]
fn a_deadline_ends_a_call() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let time = Duration::from_millis(50);
        let error = client.call("turn", tree!(1)).deadline(time).wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { .. }), "{error:?}");
        assert_ne!(error.ran(), Ran::Yes);
        assert_eq!(client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
    });
}

#[test]
fn a_closing_server_refuses_queued_calls_and_finishes_running_ones() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        // Eight calls run, and four wait for a worker.
        let mut futures: Vec<_> = (0..12i64).map(|i| client.call("turn", tree!(i)).send().unwrap()).collect();
        turns.until_begun(8);
        // Once a later call is answered, all of them have arrived.
        client.call("echo", ()).wait().unwrap();
        turns.server.closer().close();
        for future in futures.drain(8..) {
            let error = future.wait().unwrap_err();
            assert!(matches!(error, CallError::Closing { ran: Ran::No, .. }), "{error:?}");
        }
        (0..8).for_each(|number| turns.answer(number));
        for (number, future) in futures.into_iter().enumerate() {
            assert_eq!(future.wait().unwrap(), tree!(number as i64));
        }
        turns.server.close().unwrap();
    });
}

#[test]
fn closing_a_client_waits_for_its_calls() {
    watched(|| {
        let turns = turns();
        let client = turns.client();
        let future = turns.calls(&client, 1).remove(0);
        let closing = {
            let client = client.clone();
            thread::spawn(move || client.close())
        };
        until("the client refuses calls", || {
            matches!(client.call("echo", ()).try_send(), Err(CallError::Closed { ran: Ran::No, .. }))
        });
        turns.answer(0);
        assert_eq!(future.wait().unwrap(), tree!(0));
        closing.join().unwrap().unwrap();
        until("the client has disconnected", || turns.server.clients() == 0);
    });
}
