//! Batched methods as clients see them: the arguments of the function, the rows of its result, and failures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Client, Sent, Stop, server, start, until};
use teleport_server::transport::Config;
use teleport_server::wire::{Array, CallHead, ErrorKind, IntoTree, Ran, Tree, tree};
use teleport_server::{Batch, BoxError, Context, Method, Methods, ServerHandle};

const S: Duration = Duration::from_secs(1);

/// Creates an observation that tells rows apart.
fn observation(number: usize) -> Tree {
    let image: Vec<u8> = (0..1000).map(|index| (index * 7 + number) as u8).collect();
    tree!({"image": Array::from_vec(image, [10, 100]).unwrap(), "id": number as u64})
}

/// Creates a method that stops at a door and returns its arguments.
fn stopped(batch: Batch, stop: &Stop) -> Method {
    let stop = stop.clone();
    Method::batched(batch, move |x: Tree| {
        stop.pass();
        x
    })
}

fn send_all(client: &Client, method: &str, numbers: std::ops::Range<usize>) -> Vec<Sent> {
    numbers.map(|number| client.send(method, observation(number))).collect()
}

fn sizes(server: &ServerHandle, method: &str) -> (u64, u64) {
    let stats = server.batches(method).unwrap();
    (stats.calls, stats.batches)
}

#[test]
fn each_caller_gets_its_row_of_stacked_arrays() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = {
        let seen = seen.clone();
        move |x: Tree, cx: Context| -> Result<Tree, BoxError> {
            let (image, id): (Array, Array) = (x.field("image")?, x.field("id")?);
            assert_eq!(cx.rows(), cx.rows_padded());
            assert_eq!((cx.caller(), cx.row(0).caller(), cx.method()), ("tester", "tester", "act"));
            seen.lock().unwrap().push((image.shape().to_vec(), id.shape().to_vec()));
            assert_eq!(image.as_bytes().as_ptr().addr() % 64, 0);
            Ok(tree!({"same": x, "twice": id.as_slice::<u64>()?.iter().map(|id| 2 * id).collect::<Vec<_>>()}))
        }
    };
    let server = start(Methods::new().register("act", Method::batched(Batch::exact(8), see)));
    let client = Client::connect(&server);
    let sent = send_all(&client, "act", 0..16);
    for (number, sent) in sent.into_iter().enumerate() {
        let mut answer = sent.wait().unwrap();
        assert_eq!(answer.take::<Tree>("same").unwrap(), observation(number));
        assert_eq!(answer, tree!({"twice": 2 * number as u64}));
    }
    let shapes = (vec![8, 10, 100], vec![8]);
    assert_eq!(*seen.lock().unwrap(), [shapes.clone(), shapes]);
    let stats = server.batches("act").unwrap();
    assert_eq!((stats.calls, stats.batches, stats.sizes[3], stats.waiting), (16, 2, 2, 0));
    assert_eq!((server.stats().calls, server.stats().answered, server.stats().queued), (16, 16, 0));
}

#[test]
fn batches_fill_while_workers_are_busy() {
    let stop = Stop::new();
    let server = start(Methods::new().register("act", stopped(Batch::up_to(8), &stop)));
    let client = Client::connect(&server);
    let mut sent = send_all(&client, "act", 0..1);
    stop.wait_for(1);
    sent.extend(send_all(&client, "act", 1..12));
    until("all are there", || server.batches("act").unwrap().waiting == 11);
    until("all may run", || server.stats().queued == 11);
    stop.allow(100);
    for (number, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.wait().unwrap(), observation(number));
    }
    assert_eq!(sizes(&server, "act"), (12, 3), "one of 1, one of 8 and one of 3");
}

#[test]
fn a_batch_waits_for_its_max_wait() {
    let wait = |time| Method::batched(Batch::up_to(4).max_wait(time), |x: Tree| x);
    let methods = Methods::new().register("long", wait(3600 * S)).register("short", wait(S / 100));
    let server = start(methods);
    let client = Client::connect(&server);
    let sent = send_all(&client, "long", 0..3);
    assert_eq!(client.call("short", observation(9)).unwrap(), observation(9));
    let last = client.call("long", observation(3)).unwrap();
    assert_eq!(last, observation(3));
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
    assert_eq!(sizes(&server, "long"), (4, 1));
}

#[test]
fn a_deadline_closes_a_batch_in_time() {
    let batch = Batch::up_to(4).max_wait(3600 * S);
    let server = start(Methods::new().register("act", Method::batched(batch, |x: Tree| x)));
    let client = Client::connect(&server);
    let head = CallHead { deadline: Some(S / 2), ..CallHead::new("act") };
    // A machine that is too busy to wake a worker in time is not the server's fault.
    until("one is in time", || client.send_head(&head, observation(1)).wait().is_ok());
}

#[test]
fn padding_is_zeros_and_is_cut_off() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = {
        let seen = seen.clone();
        move |x: Tree, cx: Context| {
            let id: Vec<u64> = x.field("id").unwrap();
            seen.lock().unwrap().push((cx.rows(), cx.rows_padded(), id));
            x
        }
    };
    let batch = Batch::up_to(8).pad_to([1, 4, 8]).max_wait(3600 * S);
    let server = start(Methods::new().register("act", Method::batched(batch, see)));
    let client = Client::connect(&server);
    // Fills memory of the pool with nonzero bytes.
    let sent = send_all(&client, "act", 1..9);
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
    let head = CallHead { deadline: Some(S), ..CallHead::new("act") };
    let sent = [5, 6].map(|number| client.send_head(&head, observation(number)));
    for (number, sent) in (5..).zip(sent) {
        assert_eq!(sent.wait().unwrap(), observation(number));
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].2, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(seen[1], (2, 4, vec![5, 6, 0, 0]));
    let stats = server.batches("act").unwrap();
    assert_eq!((stats.padding, stats.padding_share()), (2, 2.0 / 12.0));
}

#[test]
fn calls_of_different_shapes_are_never_in_one_batch() {
    let shapes = Arc::new(Mutex::new(Vec::new()));
    let see = {
        let shapes = shapes.clone();
        move |x: Array| {
            shapes.lock().unwrap().push(x.shape().to_vec());
            x
        }
    };
    let server = start(Methods::new().register("act", Method::batched(Batch::exact(2), see)));
    let client = Client::connect(&server);
    let row = |number: usize| -> Tree {
        match number % 3 {
            0 => vec![number as f32; 5].into_tree(),
            1 => vec![number as i32; 5].into_tree(),
            _ => vec![number as f32; 6].into_tree(),
        }
    };
    let sent: Vec<Sent> = (0..6).map(|number| client.send("act", row(number))).collect();
    for (number, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.wait().unwrap(), row(number));
    }
    let mut shapes = shapes.lock().unwrap().clone();
    shapes.sort();
    assert_eq!(shapes, [vec![2, 5], vec![2, 5], vec![2, 6]]);
}

#[test]
fn strings_are_an_error_that_suggests_a_list() {
    let server = start(Methods::new().register("act", Method::batched(Batch::up_to(2), |x: Tree| x)));
    let client = Client::connect(&server);
    let error = client.send("act", tree!({"image": vec![1u8], "task": {"name": "pick"}})).error();
    assert_eq!((error.kind, error.ran), (ErrorKind::BadArguments, Ran::No));
    assert!(error.message.contains("task.name") && error.message.contains("Method::listed"), "{error}");
    assert_eq!(client.call("act", tree!(1)).unwrap(), tree!(1), "the connection goes on");
}

#[test]
fn a_failure_goes_to_all_callers_and_once_to_the_owner() {
    let stop = Stop::new();
    let fail = {
        let stop = stop.clone();
        move |x: Tree, cx: Context| -> Result<Tree, BoxError> {
            stop.pass();
            match x.field::<Vec<u8>>("how")?[0] {
                0 => Err(format!("no model for {} rows", cx.rows()).into()),
                1 => panic!("out of range"),
                2 => Ok(tree!({"a": {"b": vec![1u8; 7]}})),
                3 => Ok(tree!({"a": 7})),
                4 => Ok(tree!({"a": vec![1u8; 3], "b": "text"})),
                _ => Ok(x),
            }
        }
    };
    let server = start(Methods::new().register("act", Method::batched(Batch::exact(3), fail)));
    let client = Client::connect(&server);
    stop.allow(100);
    let cases = [
        (ErrorKind::Failed, "no model for 3 rows"),
        (ErrorKind::Panicked, "out of range"),
        (ErrorKind::Failed, "a.b"),
        (ErrorKind::Failed, "a"),
        (ErrorKind::Failed, "b"),
    ];
    for (how, (kind, text)) in cases.into_iter().enumerate() {
        let sent: Vec<Sent> = (0..3).map(|_| client.send("act", tree!({"how": how as u8}))).collect();
        for sent in sent {
            let error = sent.error();
            assert_eq!((error.kind, error.ran), (kind, Ran::Yes), "{error}");
            assert!(error.message.contains(text), "{error}");
            if how == 2 {
                assert!(error.message.contains('7') && error.message.contains('3'), "it names both: {error}");
            }
        }
        let told = server.check().unwrap_err().to_string();
        assert!(told.contains("tester and 2 others in its batch"), "{told}");
        server.check().unwrap();
    }
    let sent: Vec<Sent> = (0..3).map(|_| client.send("act", tree!({"how": 9u8}))).collect();
    sent.into_iter().for_each(|sent| assert_eq!(sent.wait().unwrap(), tree!({"how": 9u8})));
}

#[test]
fn calls_that_are_withdrawn_or_late_or_lost_are_not_in_the_batch() {
    let stop = Stop::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = {
        let (stop, seen) = (stop.clone(), seen.clone());
        move |x: Tree| {
            stop.pass();
            seen.lock().unwrap().push(x.field::<Vec<u64>>("id").unwrap());
            x
        }
    };
    let server = start(Methods::new().register("act", Method::batched(Batch::up_to(8), see)));
    let (client, leaver) = (Client::connect(&server), Client::connect(&server));
    let first = client.send("act", observation(0));
    stop.wait_for(1);
    let mut sent = send_all(&client, "act", 1..6);
    let late = CallHead { deadline: Some(S / 5), ..CallHead::new("act") };
    let late = client.send_head(&late, observation(6));
    let gone = send_all(&leaver, "act", 7..9);
    until("all are there", || server.stats().queued == 8);
    let withdrawn = sent.remove(1);
    client.withdraw(&withdrawn);
    assert_eq!(late.error().kind, ErrorKind::Deadline);
    leaver.link.abort();
    until("they have left", || server.stats().queued == 4);
    // Other calls get their seats.
    sent.extend(send_all(&client, "act", 9..12));
    until("all are there", || server.stats().queued == 7);
    stop.allow(100);
    assert_eq!(first.wait().unwrap(), observation(0));
    for (number, sent) in [1, 3, 4, 5, 9, 10, 11].into_iter().zip(sent) {
        assert_eq!(sent.wait().unwrap(), observation(number));
    }
    let mut ran = seen.lock().unwrap()[1].clone();
    ran.sort_unstable();
    assert_eq!(ran, [1, 3, 4, 5, 9, 10, 11]);
    drop(gone);
    let stats = server.batches("act").unwrap();
    assert_eq!((stats.calls, stats.dropped, stats.waiting), (8, 4, 0));
}

#[test]
fn calls_beyond_max_queue_are_refused_at_once() {
    let stop = Stop::new();
    let methods = Methods::new()
        .register("act", stopped(Batch::up_to(2).max_queue(3), &stop))
        .register("list", Method::listed(Batch::exact(9).max_queue(1), |calls: Vec<Tree>| calls));
    let server = start(methods);
    let client = Client::connect(&server);
    let mut sent = send_all(&client, "act", 0..1);
    stop.wait_for(1);
    sent.extend(send_all(&client, "act", 1..4));
    let error = client.send("act", observation(4)).error();
    assert_eq!((error.kind, error.ran), (ErrorKind::Overloaded, Ran::No));
    assert!(error.message.contains("3 calls") && error.message.contains("max_queue"), "{error}");
    stop.allow(100);
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
    let _waits = client.send("list", tree!("a"));
    let error = client.send("list", tree!("b")).error();
    assert_eq!(error.kind, ErrorKind::Overloaded);
}

#[test]
fn an_exact_batch_that_does_not_become_full_fails_after_full_timeout() {
    let batch = Batch::exact(4).full_timeout(S / 10);
    let server = start(Methods::new().register("act", Method::batched(batch, |x: Tree| x)));
    let client = Client::connect(&server);
    for sent in send_all(&client, "act", 0..3) {
        let error = sent.error();
        assert_eq!((error.kind, error.ran), (ErrorKind::Deadline, Ran::No));
        assert!(error.message.contains("4 calls") && error.message.contains("max_inflight"), "{error}");
    }
    let sent = send_all(&client, "act", 0..4);
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
}

#[test]
fn an_exact_batch_that_never_fits_into_memory_is_refused() {
    let methods = Methods::new()
        .register("exact", Method::batched(Batch::exact(64), |x: Tree| x))
        .register("some", Method::batched(Batch::up_to(64), |x: Tree| x));
    let server = server().max_memory(8 << 20).start(methods).unwrap();
    let client = Client::connect(&server);
    let row = || vec![7u8; 1 << 20].into_tree();
    let error = client.send("exact", row()).error();
    assert_eq!((error.kind, error.ran), (ErrorKind::TooLarge, Ran::No));
    assert!(error.message.contains("64 rows") && error.message.contains("max_memory"), "{error}");
    let sent: Vec<Sent> = (0..8).map(|_| client.send("some", row())).collect();
    sent.into_iter().for_each(|sent| assert_eq!(sent.wait().unwrap(), row()));
}

#[test]
fn signatures_that_never_repeat_keep_no_memory() {
    let server = start(Methods::new().register("act", Method::batched(Batch::up_to(4), |x: Tree| x)));
    let client = Client::connect(&server);
    for length in 0..500 {
        let row = vec![1u8; length].into_tree();
        assert_eq!(client.call("act", row.clone()).unwrap(), row);
    }
    until("memory is given back", || server.stats().held_bytes == 0);
    assert_eq!(server.batches("act").unwrap().waiting, 0);
}

#[test]
fn too_many_shapes_at_once_are_refused() {
    let server = start(Methods::new().register("act", Method::batched(Batch::exact(2), |x: Tree| x)));
    let client = Client::connect(&server);
    let waiting: Vec<Sent> =
        (0..1024).map(|length| client.send("act", vec![1u8; length].into_tree())).collect();
    let error = client.send("act", vec![1u8; 5000].into_tree()).error();
    assert_eq!(error.kind, ErrorKind::Overloaded);
    assert!(error.message.contains("1024 different shapes"), "{error}");
    for (length, waiting) in waiting.into_iter().enumerate() {
        let row = vec![2u8; length].into_tree();
        assert_eq!(client.call("act", row.clone()).unwrap(), row);
        assert_eq!(waiting.wait().unwrap(), vec![1u8; length].into_tree());
    }
}

#[test]
fn a_list_function_gets_calls_of_any_shape() {
    let stop = Stop::new();
    let lengths = {
        let stop = stop.clone();
        move |texts: Vec<String>, cx: Context| -> Vec<Result<usize, BoxError>> {
            stop.pass();
            assert_eq!((texts.len(), cx.rows_padded()), (cx.rows(), cx.rows()));
            texts
                .iter()
                .map(|text| if text.is_empty() { Err("it is empty".into()) } else { Ok(text.len()) })
                .collect()
        }
    };
    let batch = || Batch::up_to(8);
    let methods = Methods::new()
        .register("length", Method::listed(batch(), lengths))
        .register(
            "short",
            Method::listed(batch(), |calls: Vec<Tree>| calls.into_iter().skip(1).collect::<Vec<_>>()),
        )
        .register(
            "none",
            Method::listed(batch(), |_: Vec<Tree>| Err::<Vec<u8>, BoxError>("not today".into())),
        )
        .register("panics", Method::listed(batch(), |_: Vec<Tree>| -> Vec<u8> { panic!("a list") }));
    let server = start(methods);
    let client = Client::connect(&server);
    let first = client.send("length", tree!("first"));
    stop.wait_for(1);
    let sent = ["a", "", "abc"].map(|text| client.send("length", tree!(text)));
    let misfit = client.send("length", tree!(7));
    until("all are there", || server.stats().queued == 4);
    stop.allow(100);
    assert_eq!(first.wait().unwrap(), tree!(5u64));
    let [one, empty, three] = sent;
    assert_eq!((one.wait().unwrap(), three.wait().unwrap()), (tree!(1u64), tree!(3u64)));
    let error = empty.error();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Failed, "it is empty"));
    assert_eq!(misfit.error().kind, ErrorKind::BadArguments, "it fails alone");
    assert_eq!(sizes(&server, "length"), (5, 2));
    let error = client.send("short", tree!(1)).error();
    assert_eq!(error.message, "the function got a list of 1 calls and returned 0 results");
    assert_eq!(client.send("none", tree!(1)).error().message, "not today");
    assert_eq!(client.send("panics", tree!(1)).error().kind, ErrorKind::Panicked);
}

#[test]
fn at_most_max_in_progress_batches_run() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let run = {
        let (running, most) = (running.clone(), most.clone());
        move |x: Tree| {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
            x
        }
    };
    let batch = Batch::up_to(2).max_in_progress(2);
    let server =
        server().workers(4).start(Methods::new().register("act", Method::batched(batch, run))).unwrap();
    let client = Client::connect(&server);
    let sent = send_all(&client, "act", 0..200);
    for (number, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.wait().unwrap(), observation(number));
    }
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
}

#[test]
fn each_batch_leaves_one_tree_of_logs() {
    let (sender, logs) = std::sync::mpsc::channel();
    let step = Method::logged(|x: Tree| (x.clone(), x)).batch(Batch::exact(4));
    let server = server()
        .workers(2)
        .done("step", move |x: Tree| sender.send(x.field::<Vec<u64>>("id").unwrap().len()).unwrap())
        .start(Methods::new().register("step", step))
        .unwrap();
    let client = Client::connect(&server);
    let sent = send_all(&client, "step", 0..40);
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
    server.close().unwrap();
    drop(server);
    assert_eq!(logs.into_iter().collect::<Vec<_>>(), [4; 10]);
}

#[test]
fn batched_and_single_calls_share_workers() {
    let methods = Methods::new()
        .register("act", Method::batched(Batch::up_to(4), |x: Tree| x))
        .register("own", Method::batched(Batch::up_to(4), |x: Tree| x).workers(1))
        .register("echo", |x: Tree| x);
    let server = server().workers(2).start(methods).unwrap();
    let client = Client::connect(&server);
    let sent: Vec<(usize, Sent)> = (0..300)
        .map(|number| (number, client.send(["act", "own", "echo"][number % 3], observation(number))))
        .collect();
    for (number, sent) in sent {
        assert_eq!(sent.wait().unwrap(), observation(number));
    }
}

#[test]
fn a_closing_server_answers_waiting_calls() {
    let server = start(Methods::new().register("act", Method::batched(Batch::exact(4), |x: Tree| x)));
    let client = Client::connect(&server);
    let sent = send_all(&client, "act", 0..3);
    until("all are there", || server.stats().queued == 3);
    server.close().unwrap();
    for sent in sent {
        let error = sent.error();
        assert_eq!((error.kind, error.ran), (ErrorKind::Closing, Ran::No));
    }
}

#[test]
fn large_rows_of_many_clients_arrive_in_place() {
    const BYTES: usize = 1 << 20;
    let fill =
        |number: usize| (0..BYTES).map(|at| (at / 1000 + number) as u8).collect::<Vec<u8>>().into_tree();
    let server = server()
        .workers(2)
        .start(Methods::new().register("act", Method::batched(Batch::up_to(8), |x: Tree| x)));
    let server = server.unwrap();
    let clients: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    for round in 0..5 {
        let sent: Vec<Sent> =
            (0..32).map(|number| clients[number % 4].send("act", fill(number + round))).collect();
        for (number, sent) in sent.into_iter().enumerate() {
            assert!(sent.wait().unwrap() == fill(number + round), "row {number} of round {round}");
        }
    }
    until("memory is given back", || server.stats().held_bytes == 0);
}

#[test]
fn calls_of_a_client_with_few_calls_in_flight_wait_for_an_exact_batch() {
    let server = start(Methods::new().register("act", Method::batched(Batch::exact(4), |x: Tree| x)));
    let config = Config { name: "actor".into(), max_open_calls: 2, ..Config::default() };
    let client = Client::with(&server, config);
    let _waiting = send_all(&client, "act", 0..2);
    until("both are there", || server.stats().queued == 2);
}

#[test]
fn a_function_sees_the_caller_and_the_time_left_of_each_row() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = {
        let seen = seen.clone();
        move |x: Tree, cx: Context| {
            let rows = (0..cx.rows()).map(|row| {
                let call = cx.row(row);
                (call.caller().to_owned(), call.time_left().is_some(), call.is_cancelled())
            });
            seen.lock().unwrap().extend(rows);
            assert!(cx.time_left().is_some_and(|left| left <= 3600 * S), "the shortest of all");
            assert!(!cx.is_cancelled());
            x
        }
    };
    let server = start(Methods::new().register("act", Method::batched(Batch::exact(2), see)));
    let named = |name: &str| Client::with(&server, Config { name: name.into(), ..Config::default() });
    let (patient, hurried) = (named("patient"), named("hurried"));
    let waits = patient.send("act", observation(1));
    until("it is there", || server.stats().queued == 1);
    let head = CallHead { deadline: Some(3600 * S), ..CallHead::new("act") };
    assert_eq!(hurried.send_head(&head, observation(2)).wait().unwrap(), observation(2));
    assert_eq!(waits.wait().unwrap(), observation(1));
    let expected = [("patient".to_owned(), false, false), ("hurried".to_owned(), true, false)];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn an_adaptive_batch_does_not_wait_for_calls_that_do_not_come() {
    let batch = Batch::up_to(8).adaptive(3600 * S);
    let server = start(Methods::new().register("act", Method::batched(batch, |x: Tree| x)));
    let client = Client::connect(&server);
    // The calls are made one at a time, so each is alone in its batch whatever the estimate says.
    for number in 0..100 {
        assert_eq!(client.call("act", observation(number)).unwrap(), observation(number));
    }
    let sent = send_all(&client, "act", 0..64);
    for (number, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.wait().unwrap(), observation(number));
    }
    assert_eq!(server.batches("act").unwrap().calls, 164);
}
