//! Calls as a client sees them: forms of functions, failures, pools, cancelling, deadlines.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Client, Stop, server, start, until};
use teleport_server::transport::Config;
use teleport_server::transport::protocol::Withdrawn;
use teleport_server::wire::{
    Array, CallHead, ErrorKind, IntoTree, Limits, Ran, RemoteError, Tree, TreeError, tree,
};
use teleport_server::{BoxError, Context, Failure, Method, Methods, ServeError};

fn echo(x: Tree) -> Tree {
    x
}

#[test]
fn functions_have_many_forms() {
    let methods = Methods::new()
        .register("echo", |x: Tree| x)
        .register("function", echo)
        .register("add", |x: Tree| -> Result<Tree, BoxError> {
            Ok(tree!({"result": x.field::<i64>("foo")? + x.field::<i64>("bar")?}))
        })
        .register("msg", |x: Tree| x.field("msg").map(|m: String| assert_eq!(m, "Hello")))
        .register("unit", |x: Tree| drop(x))
        .register("typed", |(a, b): (f32, Vec<f32>)| b.iter().map(|x| a * x).collect::<Vec<_>>())
        .register("context", |(): (), cx: Context| (cx.caller().to_owned(), cx.method().to_owned()))
        .register("both", |x: i64, cx: Context| -> Result<bool, TreeError> {
            Ok(x == 1 && cx.time_left().is_none() && !cx.is_cancelled())
        })
        .register(String::from("inline"), Method::inline(|x: u8| x + 1))
        .register("own", Method::new(|words: Vec<String>| words.concat()).workers(2))
        .register("logged", Method::logged(|x: Tree| (x.clone(), x)))
        .register("logged result", Method::logged(|x: Tree| Ok::<_, TreeError>((x.field::<u8>("a")?, x))))
        .register("map", |counts: BTreeMap<String, u32>| counts.values().sum::<u32>());
    let server = start(methods);
    let client = Client::connect(&server);
    let call = |method, tree: Tree| client.call(method, tree).unwrap();
    assert_eq!(call("echo", tree!({"a": [1, null], "b": "x"})), tree!({"a": [1, null], "b": "x"}));
    assert_eq!(call("function", tree!(7)), tree!(7));
    assert_eq!(call("add", tree!({"foo": 1, "bar": 1})).to_string(), r#"{"result": 2}"#);
    assert_eq!(call("msg", tree!({"msg": "Hello"})), Tree::Null);
    assert_eq!(call("unit", tree!({"msg": "Hello"})), Tree::Null);
    assert_eq!(call("typed", tree!([2f32, vec![1f32, 2.0]])), vec![2f32, 4.0].into_tree());
    assert_eq!(call("context", Tree::Null), tree!(["tester", "context"]));
    assert_eq!(call("both", tree!(1)), tree!(true));
    assert_eq!(call("inline", tree!(1)), tree!(2u8));
    assert_eq!(call("own", tree!(["a", "b"])), tree!("ab"));
    assert_eq!(call("logged", tree!(3)), tree!(3));
    assert_eq!(call("logged result", tree!({"a": 3})), tree!(3u8));
    assert_eq!(call("map", tree!({"a": 3, "b": 4})), tree!(7u32));
    let stats = server.stats();
    assert_eq!((stats.calls, stats.answered, stats.failed, stats.clients), (13, 13, 0, 1));
    server.check().unwrap();
}

#[test]
fn large_arrays_come_and_go_in_place() {
    let brighten = |mut x: Tree| -> Result<Tree, BoxError> {
        let mut image: Array = x.take("image")?;
        let before = image.as_bytes().as_ptr();
        // Up to 8 bytes are in the array itself.
        assert_eq!(before.addr() % if image.bytes() > 8 { 64 } else { 8 }, 0);
        image.as_mut_slice::<u8>()?.iter_mut().for_each(|pixel| *pixel += 1);
        assert_eq!(image.as_bytes().as_ptr(), before, "it was received into memory of its own");
        Ok(tree!({"image": image}))
    };
    let server = start(Methods::new().register("brighten", brighten));
    let client = Client::connect(&server);
    for bytes in [0, 1, 1000, 100_000, 1 << 20, 9 << 20] {
        let image: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
        let answer = client.call("brighten", tree!({"image": image.clone(), "more": "text"})).unwrap();
        let answer: Vec<u8> = answer.field("image").unwrap();
        assert!(
            answer.iter().zip(&image).all(|(after, before)| *after == before + 1) && answer.len() == bytes
        );
    }
    assert_eq!(server.stats().held_bytes, 0);
}

#[test]
fn a_failure_goes_to_its_caller_and_to_check() {
    let methods = Methods::new()
        .register("fail", |_: Tree| -> Result<Tree, BoxError> { Err("out of paper".into()) })
        .register("code", |_: Tree| -> Result<(), BoxError> {
            Err(Failure::with_code("not_ready", "no weights")
                .caused_by(std::io::Error::other("still loading"))
                .into())
        })
        .register("panic", |_: Tree| -> Tree { panic!("{} is no index", 7) })
        .register("inline panic", Method::inline(|_: Tree| -> Tree { panic!("inline") }))
        .register("number", |x: Tree| x.field::<i64>("n"))
        .register("echo", echo);
    let server = start(methods);
    let client = Client::connect(&server);
    let fails = |method, tree: Tree| {
        let error = client.call(method, tree).unwrap_err();
        assert_eq!(client.call("echo", tree!(1)), Ok(tree!(1)), "the server goes on");
        error
    };

    let error = fails("fail", Tree::Null);
    assert_eq!((error.kind, error.ran, &*error.message), (ErrorKind::Failed, Ran::Yes, "out of paper"));
    let error = fails("code", Tree::Null);
    assert_eq!((&*error.code, &*error.message), ("not_ready", "no weights: still loading"));
    let error = fails("panic", Tree::Null);
    assert_eq!((error.kind, error.ran), (ErrorKind::Panicked, Ran::Yes));
    assert!(
        error.message.starts_with("7 is no index (at ") && error.message.contains("calls.rs:"),
        "{error}"
    );
    assert_eq!(fails("inline panic", Tree::Null).kind, ErrorKind::Panicked);

    // `check` returns the first failure once.
    let told = server.check().unwrap_err();
    assert_eq!(told.to_string(), r#"method "fail", called by tester: failed: out of paper"#);
    server.check().unwrap();

    // The caller's own mistakes are not the server's failures.
    let error = fails("nubmer", Tree::Null);
    assert_eq!((error.kind, error.ran), (ErrorKind::UnknownMethod, Ran::No));
    assert!(error.message.contains(r#"did the caller mean "number"?"#), "{error}");
    let error = fails("number", tree!({"n": "three"}));
    assert_eq!(error.kind, ErrorKind::Failed, "the function itself asked for the field");
    server.check().unwrap_err();
    let stats = server.stats();
    assert_eq!((stats.failed, stats.refused, stats.answered), (5, 1, 6));
}

#[test]
fn arguments_that_do_not_fit_are_the_callers_fault() {
    let server = start(Methods::new().register("sum", |x: BTreeMap<String, u8>| x.values().sum::<u8>()));
    let client = Client::connect(&server);
    let error = client.call("sum", tree!({"a": 1, "b": 300})).unwrap_err();
    assert_eq!((error.kind, error.ran), (ErrorKind::BadArguments, Ran::No));
    assert!(error.message.contains("at b: the int64 300 cannot be read as uint8"), "{error}");
    server.check().unwrap();
}

#[test]
fn a_result_that_the_caller_does_not_take_is_an_error() {
    let server = start(Methods::new().register("zeros", |n: usize| Array::zeros::<u8>([n])));
    let limits = Limits { max_message_bytes: 1 << 20, ..Limits::default() };
    let client = Client::with(&server, Config { limits, ..Config::default() });
    assert_eq!(client.call("zeros", tree!(1 << 20)).unwrap().as_array().unwrap().len(), 1 << 20);
    let error = client.call("zeros", tree!((1 << 20) + 1)).unwrap_err();
    assert_eq!((error.kind, error.ran), (ErrorKind::TooLarge, Ran::Yes));
    assert!(error.message.contains("1048576") && error.message.contains("max_message_bytes"), "{error}");
    assert_eq!(client.call("zeros", tree!(1)), Ok(Array::zeros::<u8>([1]).into_tree()));
}

#[test]
fn a_pool_of_its_own_is_not_delayed() {
    let stop = Stop::new();
    let wait = stop.clone();
    let methods = Methods::new()
        .register("wait", move |_: Tree| wait.pass())
        .register("echo", echo)
        .register("own", Method::new(echo).workers(1))
        .register("inline", Method::inline(echo));
    let server = start(methods);
    let client = Client::connect(&server);
    let waiting = client.send("wait", Tree::Null);
    stop.wait_for(1);
    let queued = client.send("echo", tree!(1));
    assert_eq!(client.call("own", tree!(2)), Ok(tree!(2)));
    assert_eq!(client.call("inline", tree!(3)), Ok(tree!(3)));
    let stats = server.stats();
    assert_eq!((stats.running, stats.queued, stats.answered), (1, 1, 2));
    stop.allow(1);
    assert_eq!(waiting.wait(), Ok(tree!(1u64)));
    assert_eq!(queued.wait(), Ok(tree!(1)));
}

#[test]
fn a_pool_runs_as_many_calls_at_once_as_it_has_workers() {
    let stop = Stop::new();
    let wait = stop.clone();
    let server =
        server().workers(3).start(Methods::new().register("wait", move |_: Tree| wait.pass())).unwrap();
    let client = Client::connect(&server);
    let sent: Vec<_> = (0..5).map(|_| client.send("wait", Tree::Null)).collect();
    stop.wait_for(3);
    until("the others are queued", || server.stats().queued == 2);
    assert_eq!(stop.arrived(), 3);
    stop.allow(5);
    let mut numbers: Vec<u64> =
        sent.into_iter().map(|sent| sent.wait().unwrap().as_array().unwrap().item().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[test]
fn a_call_whose_time_is_over_does_not_start() {
    let (stop, runs) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (stop.clone(), runs.clone());
    let methods = Methods::new().register("wait", move |_: Tree| wait.pass()).register(
        "count",
        move |_: Tree, cx: Context| {
            assert!(cx.time_left().unwrap() <= Duration::from_secs(3600));
            count.fetch_add(1, Ordering::SeqCst);
        },
    );
    let server = start(methods);
    let client = Client::connect(&server);
    let waiting = client.send("wait", Tree::Null);
    stop.wait_for(1);
    let head = |deadline| CallHead { deadline: Some(deadline), ..CallHead::new("count") };
    let large = tree!({"large": vec![0u8; 4 << 20]});
    let late = client.send_head(&head(Duration::from_millis(1)), large.clone());
    let in_time = client.send_head(&head(Duration::from_secs(3600)), Tree::Null);
    // No worker has to see it first, and its arguments are not kept.
    let is_over = |error: RemoteError| (error.kind, error.ran) == (ErrorKind::Deadline, Ran::No);
    assert!(is_over(late.error()));
    until("the other one is queued", || server.stats().queued == 1);
    assert_eq!(server.stats().held_bytes, 0);
    stop.allow(1);
    waiting.wait().unwrap();
    assert_eq!(in_time.wait(), Ok(Tree::Null));
    // A call whose time is over before it arrives does not start either.
    assert!(is_over(client.send_head(&head(Duration::ZERO), large).error()));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn a_withdrawn_call_never_starts() {
    let (stop, runs) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    let (wait, count) = (stop.clone(), runs.clone());
    let methods = Methods::new()
        .register("wait", move |_: Tree| wait.pass())
        .register("count", move |_: Tree| count.fetch_add(1, Ordering::SeqCst));
    let server = start(methods);
    let client = Client::connect(&server);
    let waiting = client.send("wait", Tree::Null);
    stop.wait_for(1);
    let sent = client.send("count", tree!({"large": vec![0u8; 4 << 20]}));
    until("it is queued", || server.stats().queued == 1);
    assert_eq!(server.stats().held_bytes, 4 << 20);
    assert_eq!(client.withdraw(&sent), Withdrawn::Requested);
    let error = sent.error();
    assert_eq!((error.kind, error.ran), (ErrorKind::Cancelled, Ran::No));
    assert_eq!(server.stats().held_bytes, 0, "its memory is free while the worker is busy");
    stop.allow(1);
    waiting.wait().unwrap();
    assert_eq!(client.call("count", Tree::Null), Ok(tree!(0u64)));
}

#[test]
fn a_running_function_learns_that_its_result_is_not_wanted() {
    let stop = Stop::new();
    let wait = stop.clone();
    let linger = move |_: Tree, cx: Context| {
        wait.pass();
        until("cancelled", || cx.is_cancelled());
        "saw it"
    };
    let server = start(Methods::new().register("linger", linger).register("echo", echo));
    let client = Client::connect(&server);
    stop.allow(2);
    let sent = client.send("linger", Tree::Null);
    stop.wait_for(1);
    assert_eq!(client.withdraw(&sent), Withdrawn::Requested);
    assert_eq!(sent.wait(), Ok(tree!("saw it")));

    client.send("linger", Tree::Null);
    stop.wait_for(2);
    let queued = client.send("echo", Tree::Null);
    until("it is queued", || server.stats().queued == 1);
    client.link.abort();
    until("the worker is free and the queue empty", || {
        let stats = server.stats();
        stats.running == 0 && stats.queued == 0 && stats.clients == 0
    });
    assert_eq!(server.stats().answered, 1, "the call of a client that has gone did not run");
    drop(queued);
    assert_eq!(Client::connect(&server).call("echo", tree!(1)), Ok(tree!(1)));
}

#[test]
fn a_function_that_gives_up_with_its_caller_has_not_failed() {
    let stop = Stop::new();
    let wait = stop.clone();
    let linger = move |_: Tree, cx: Context| -> Result<(), BoxError> {
        wait.pass();
        until("cancelled", || cx.is_cancelled());
        Err("cut short".into())
    };
    let server = server().stop_on_error(true).start(Methods::new().register("linger", linger)).unwrap();
    let client = Client::connect(&server);
    stop.allow(2);
    let sent = client.send("linger", Tree::Null);
    stop.wait_for(1);
    assert_eq!(client.withdraw(&sent), Withdrawn::Requested);
    let error = sent.error();
    assert_eq!((error.kind, error.ran, &*error.message), (ErrorKind::Failed, Ran::Yes, "cut short"));

    client.send("linger", Tree::Null);
    stop.wait_for(2);
    client.link.abort();
    until("it gave up", || server.stats().running == 0 && server.stats().clients == 0);
    server.check().unwrap();
    server.close_within(Duration::ZERO).unwrap();
}

#[test]
fn a_function_that_fails_without_knowing_that_its_caller_has_gone_has_failed() {
    let stop = Stop::new();
    let wait = stop.clone();
    let fail = move |_: Tree, _: Context| -> Result<(), BoxError> {
        wait.pass();
        Err("no weights".into())
    };
    let server = start(Methods::new().register("fail", fail));
    let mut client = Client::connect(&server);
    for (nth, is_withdrawn) in [(1, true), (2, false)] {
        let sent = client.send("fail", Tree::Null);
        stop.wait_for(nth);
        if is_withdrawn {
            assert_eq!(client.withdraw(&sent), Withdrawn::Requested);
            // Read after the cancel.
            assert_eq!(client.call("unknown", Tree::Null).unwrap_err().kind, ErrorKind::UnknownMethod);
        } else {
            client.link.abort();
            until("it has gone", || server.stats().clients == 0);
        }
        stop.allow(1);
        let mut told = Ok(());
        until("its failure is reported", || {
            told = server.check();
            told.is_err()
        });
        assert_eq!(told.unwrap_err().to_string(), r#"method "fail", called by tester: failed: no weights"#);
        if !is_withdrawn {
            client = Client::connect(&server);
        }
    }
}

#[test]
fn memory_is_bounded_and_granted_in_turn() {
    let stop = Stop::new();
    let wait = stop.clone();
    let methods = Methods::new().register("sum", move |x: Vec<u8>| {
        wait.pass();
        x.iter().map(|x| u64::from(*x)).sum::<u64>()
    });
    let server = server().max_memory(12 << 20).start(methods).unwrap();
    let clients: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    let sent: Vec<_> = clients
        .iter()
        .flat_map(|client| (0..3).map(|_| client.send("sum", vec![1u8; 4 << 20].into_tree())))
        .collect();
    until("memory is full", || server.stats().held_bytes == 8 << 20);
    stop.allow(12);
    for sent in sent {
        assert_eq!(sent.wait(), Ok(tree!((4 << 20) as u64)));
        assert!(server.stats().held_bytes <= 9 << 20);
    }
    assert_eq!((server.stats().held_bytes, server.stats().awaiting_memory), (0, 0));
}

#[test]
fn many_clients_call_at_once() {
    let server = server()
        .workers(2)
        .io_threads(2)
        .start(
            Methods::new()
                .register("echo", echo)
                .register("inline", Method::inline(echo))
                .register("own", Method::new(|x: Tree| -> Result<Tree, ServeError> { Ok(x) }).workers(2)),
        )
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = Client::connect(&server);
            scope.spawn(move || {
                let sent: Vec<_> = (0..300)
                    .map(|index| {
                        let method = ["echo", "inline", "own"][index % 3];
                        let array = vec![thread as u64; if index % 50 == 0 { 100_000 } else { index }];
                        (array.clone(), client.send(method, array.into_tree()))
                    })
                    .collect();
                for (array, sent) in sent {
                    assert_eq!(sent.wait(), Ok(array.into_tree()));
                }
            });
        }
    });
    assert_eq!(server.stats().answered, 1200);
    until("all have gone", || server.clients() == 4);
}
