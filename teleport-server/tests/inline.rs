//! Inline methods: their calls are answered on the thread that received them, and become objects only if
//! their functions ask for the context.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Client, Stop, server, start, until};
use teleport_server::transport::{Config, random_id};
use teleport_server::wire::{CallHead, ErrorKind, Limits, Ran, Tree, tree};
use teleport_server::{BoxError, Context, Method, Methods, ServerHandle};

/// A client whose calls survive its connections.
fn resuming_client(server: &ServerHandle) -> Client {
    let config = Config { name: "tester".into(), session: random_id(), resume: true, ..Config::default() };
    Client::with(server, config)
}

#[test]
fn a_context_may_outlive_its_call() {
    for resume in [false, true] {
        let kept: Arc<Mutex<Vec<Context>>> = Arc::default();
        let keep = kept.clone();
        let keep = move |x: u64, cx: Context| {
            assert!(!cx.is_cancelled() && cx.rows() == 1 && cx.time_left().is_some());
            keep.lock().unwrap().push(cx);
            x + 1
        };
        let server = start(Methods::new().register("keep", Method::inline(keep)));
        let client = resuming_client(&server);
        let head = CallHead { resume, deadline: Some(Duration::from_secs(60)), ..CallHead::new("keep") };
        for x in 0..3u64 {
            assert_eq!(client.send_head(&head, tree!(x)).wait(), Ok(tree!(x + 1)));
        }
        client.link.abort();
        until("it has gone", || server.stats().clients == 0);
        let stats = server.stats();
        assert_eq!((stats.calls, stats.answered, stats.failed, stats.running), (3, 3, 0, 0));
        server.close().unwrap();
        for cx in kept.lock().unwrap().iter() {
            assert_eq!((cx.caller(), cx.method()), ("tester", "keep"));
            assert!(cx.caller_address().starts_with("tcp://"));
        }
    }
}

#[test]
fn failures_are_answered_and_the_next_call_runs() {
    let methods = Methods::new()
        .register("fail", Method::inline(|_: Tree| -> Result<(), BoxError> { Err("no weights".into()) }))
        .register("panic", Method::inline(|_: Tree| -> Tree { panic!("no luck") }))
        .register("number", Method::inline(|x: u64| x))
        .register("large", Method::inline(|_: Tree| vec![0u8; 4096]))
        .register("echo", Method::inline(|x: Tree, _: Context| x));
    let server = start(methods);
    for resume in [false, true] {
        let config = Config { session: random_id(), resume: true, ..Config::default() };
        let limits = Limits { max_message_bytes: 1024, ..Limits::default() };
        let client = Client::with(&server, Config { limits, ..config });
        let call = |method, tree| client.send_head(&CallHead { resume, ..CallHead::new(method) }, tree);
        let error = call("fail", Tree::Null).error();
        assert_eq!((error.kind, error.ran, &*error.message), (ErrorKind::Failed, Ran::Yes, "no weights"));
        assert!(server.check().unwrap_err().to_string().contains("no weights"));
        let error = call("panic", Tree::Null).error();
        assert_eq!((error.kind, error.ran), (ErrorKind::Panicked, Ran::Yes));
        assert!(server.check().is_err());
        let error = call("number", tree!("text")).error();
        assert_eq!((error.kind, error.ran), (ErrorKind::BadArguments, Ran::No));
        server.check().unwrap();
        assert_eq!(call("large", Tree::Null).error().kind, ErrorKind::TooLarge);
        assert!(server.check().is_err());
        assert_eq!(call("echo", tree!(7)).wait(), Ok(tree!(7)));
    }
    let stats = server.stats();
    assert_eq!((stats.calls, stats.answered, stats.failed, stats.running), (10, 2, 8, 0));
}

#[test]
fn a_late_call_does_not_run() {
    let stop = Stop::new();
    let wait = stop.clone();
    let methods = Methods::new()
        .register("block", Method::inline(move |_: Tree| assert!(wait.pass() > 0)))
        .register("never", Method::inline(|_: Tree| -> Tree { panic!("it is late") }));
    let server = start(methods);
    let client = resuming_client(&server);
    let blocking = client.send("block", Tree::Null);
    stop.wait_for(1);
    // The time of these calls is over before the thread that receives them can read them.
    let late = [false, true].map(|resume| {
        let head = CallHead { resume, deadline: Some(Duration::from_micros(1)), ..CallHead::new("never") };
        client.send_head(&head, Tree::Null)
    });
    stop.allow(1);
    blocking.wait().unwrap();
    for late in late {
        let error = late.error();
        assert_eq!((error.kind, error.ran), (ErrorKind::Deadline, Ran::No));
    }
    server.check().unwrap();
}

#[test]
fn a_call_that_was_withdrawn_before_it_was_read_does_not_keep_the_others() {
    let stop = Stop::new();
    let wait = stop.clone();
    let methods = Methods::new()
        .register("block", Method::inline(move |_: Tree| assert!(wait.pass() > 0)))
        .register("echo", Method::inline(|x: Tree| x));
    let server = start(methods);
    let client = Client::connect(&server);
    let blocking = client.send("block", Tree::Null);
    stop.wait_for(1);
    let (withdrawn, kept) = (client.send("echo", tree!(1)), client.send("echo", tree!(2)));
    client.withdraw(&withdrawn);
    stop.allow(1);
    blocking.wait().unwrap();
    assert_eq!(kept.wait(), Ok(tree!(2)));
    until("nothing runs", || server.stats().running == 0);
    server.check().unwrap();
}

#[test]
fn a_server_that_closes_answers_the_inline_call_that_runs() {
    for resume in [false, true] {
        let stop = Stop::new();
        let wait = stop.clone();
        let block = move |x: Tree, cx: Context| {
            wait.pass();
            assert!(!cx.is_cancelled());
            x
        };
        let server = server().start(Methods::new().register("block", Method::inline(block))).unwrap();
        let client = resuming_client(&server);
        let sent = client.send_head(&CallHead { resume, ..CallHead::new("block") }, tree!(1));
        stop.wait_for(1);
        let closer = server.closer();
        closer.close();
        // Refused, or lost with the connection.
        let _later = client.send_head(&CallHead { resume, ..CallHead::new("block") }, tree!(2));
        stop.allow(1);
        assert_eq!(sent.wait(), Ok(tree!(1)));
        server.join().unwrap();
        assert_eq!(stop.arrived(), 1);
    }
}

#[test]
fn counts_are_exact_with_many_threads() {
    const CLIENTS: u64 = 6;
    const CALLS: u64 = 400;
    let even = |x: u64| if x.is_multiple_of(2) { Ok(x) } else { Err("odd") };
    let methods = Methods::new().register("inline", Method::inline(even)).register("pool", even);
    let server = server().workers(4).io_threads(3).start(methods).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let client = resuming_client(&server);
            scope.spawn(move || {
                let sent: Vec<_> = (0..CALLS)
                    .map(|x| {
                        let method = if x % 4 < 2 { "inline" } else { "pool" };
                        let head = CallHead { resume: x.is_multiple_of(3), ..CallHead::new(method) };
                        client.send_head(&head, tree!(x))
                    })
                    .collect();
                for (x, sent) in sent.into_iter().enumerate() {
                    assert_eq!(sent.wait().is_ok(), x % 2 == 0);
                }
            });
        }
    });
    let (stats, half) = (server.stats(), CLIENTS * CALLS / 2);
    assert_eq!((stats.calls, stats.answered, stats.failed), (2 * half, half, half));
    assert_eq!((stats.refused, stats.running), (0, 0));
}
