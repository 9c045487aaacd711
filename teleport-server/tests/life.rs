//! A server's life: starting, done functions, failures that end it, closing in every state, strange clients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Client, Stop, WATCHDOG, server, start, until};
use teleport_server::transport::protocol::Closed;
use teleport_server::transport::{BindError, Socket};
use teleport_server::wire::{ErrorKind, Ran, Tree, tree};
use teleport_server::{BoxError, Context, Method, Methods, ServeError, Server, ServerHandle};

fn echo(x: Tree) -> Tree {
    x
}

#[test]
fn mistakes_are_errors_at_the_start() {
    assert!(matches!(Server::bind("http://localhost:1"), Err(ServeError::Bind(BindError::Address(_)))));
    let first = start(Methods::new());
    let again = Server::bind(&first.address().to_string());
    assert!(matches!(again, Err(ServeError::Bind(BindError::InUse { .. }))));
    let twice = Methods::new().register("a", echo).register("a", echo);
    assert!(matches!(server().start(twice), Err(ServeError::DuplicateMethod { .. })));
    let done = server().done("step", |_| {}).run(Methods::new());
    assert!(matches!(done, Err(ServeError::DoneWithoutMethod { .. })));
}

#[test]
fn logs_come_in_the_order_in_which_calls_were_taken() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let methods = Methods::new().register(
        "step",
        Method::logged(|x: u64| -> Result<_, BoxError> {
            if x % 5 == 4 { Err("no logs of this one".into()) } else { Ok((x, tree!({"x": x}))) }
        }),
    );
    let server = server()
        .workers(3)
        .done("step", move |logs| log.lock().unwrap().push(logs.field::<u64>("x").unwrap()))
        .start(methods)
        .unwrap();
    let client = Client::connect(&server);
    let sent: Vec<_> = (0..200u64).map(|x| client.send("step", tree!(x))).collect();
    for (x, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.wait().is_ok(), x % 5 != 4);
    }
    server.close().unwrap();
    let expected: Vec<u64> = (0..200).filter(|x| x % 5 != 4).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn a_slow_done_function_delays_only_its_own_calls() {
    let (stop, runs) = (Stop::new(), Stop::new());
    let (wait, run) = (stop.clone(), runs.clone());
    let methods = Methods::new()
        .register("step", Method::logged(move |x: Tree| (run.pass(), x)))
        .register("echo", echo);
    let server = server().workers(2).done("step", move |_| assert!(wait.pass() > 0)).start(methods).unwrap();
    let client = Client::connect(&server);
    runs.allow(usize::MAX / 2);
    let sent: Vec<_> = (0..10).map(|x| client.send("step", tree!(x))).collect();
    until("four wait for the done function", || server.stats().awaiting_done == 4);
    until("six are queued", || server.stats().queued == 6);
    assert_eq!(client.call("echo", tree!(1)), Ok(tree!(1)), "calls of other methods pass them");
    assert_eq!(runs.arrived(), 4);
    stop.allow(10);
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
    server.close().unwrap();
    assert_eq!(stop.arrived(), 10);
}

#[test]
fn a_failure_of_a_done_function_is_noted() {
    let methods = Methods::new()
        .register("fail", Method::logged(|x: Tree| (x.clone(), x)))
        .register("panic", Method::logged(|x: Tree| (x.clone(), x)));
    let server = server()
        .done("fail", |_| -> Result<(), BoxError> { Err("disk full".into()) })
        .done("panic", |_| -> () { panic!("no disk") })
        .start(methods)
        .unwrap();
    let client = Client::connect(&server);
    client.call("fail", Tree::Null).unwrap();
    let told = || {
        let mut told = None;
        until("a failure is there", || {
            told = server.check().err();
            told.is_some()
        });
        told.unwrap().to_string()
    };
    assert_eq!(told(), r#"the done function of method "fail": disk full"#);
    client.call("panic", Tree::Null).unwrap();
    assert!(told().starts_with(r#"the done function of method "panic": no disk (at "#));
}

#[test]
fn a_failure_ends_a_server_that_stops_on_error() {
    let methods = || {
        Methods::new()
            .register("fail", |_: Tree| -> Result<(), BoxError> { Err("broken".into()) })
            .register("echo", |x: Vec<u8>| x)
    };
    let server = server().stop_on_error(true).start(methods()).unwrap();
    let client = Client::connect(&server);
    assert_eq!(client.call("echo", tree!("no bytes")).unwrap_err().kind, ErrorKind::BadArguments);
    assert_eq!(client.call("fail", Tree::Null).unwrap_err().message, "broken");
    let error = server.join().unwrap_err();
    assert!(matches!(error, ServeError::Function { method, .. } if method == "fail"));
    assert!(matches!(&*client.end(), Closed::Goodbye { kind: Some(ErrorKind::Closing), .. }));
}

#[test]
fn closing_finishes_running_calls_and_refuses_waiting_ones() {
    let stop = Stop::new();
    let wait = stop.clone();
    let server = start(Methods::new().register("wait", move |_: Tree| wait.pass()).register("echo", echo));
    let (client, other) = (Client::connect(&server), Client::connect(&server));
    let running = client.send("wait", Tree::Null);
    stop.wait_for(1);
    let waiting = client.send("echo", tree!(1));
    until("it is queued", || server.stats().queued == 1);
    let (address, closer) = (server.address().clone(), server.closer());
    std::thread::scope(|scope| {
        let joined = scope.spawn(move || server.join());
        closer.close();
        closer.close();
        let refused = waiting.error();
        assert_eq!((refused.kind, refused.ran), (ErrorKind::Closing, Ran::No));
        let late = other.call("echo", tree!(2)).unwrap_err();
        assert_eq!((late.kind, late.ran), (ErrorKind::Closing, Ran::No));
        stop.allow(1);
        assert_eq!(running.wait(), Ok(tree!(1u64)));
        for client in [&client, &other] {
            assert!(matches!(&*client.end(), Closed::Goodbye { kind: Some(ErrorKind::Closing), .. }));
        }
        joined.join().unwrap().unwrap();
    });
    assert!(Socket::connect(&address, None).is_err());
}

#[test]
fn a_large_result_leaves_before_the_goodbye() {
    let server = start(Methods::new().register("zeros", |n: usize| vec![0u8; n]));
    let client = Client::connect(&server);
    let sent = client.send("zeros", tree!(20 << 20));
    until("it was answered", || server.stats().answered == 1);
    server.close().unwrap();
    assert_eq!(sent.wait().unwrap().as_array().unwrap().len(), 20 << 20);
}

#[test]
fn functions_that_do_not_return_are_left_behind() {
    let stop = Stop::new();
    let wait = stop.clone();
    let methods = Methods::new().register("stuck", Method::new(move |_: Tree| wait.pass()).workers(1));
    let server = start(methods);
    let client = Client::connect(&server);
    let sent = client.send("stuck", Tree::Null);
    stop.wait_for(1);
    let error = server.close_within(Duration::ZERO).unwrap_err();
    assert!(
        matches!(&error, ServeError::StillRunning { running, .. }
        if running == &[r#""stuck" on teleport-worker-stuck-0"#]),
        "{error}"
    );
    let error = sent.error();
    assert_eq!((error.kind, error.ran), (ErrorKind::Closing, Ran::Yes));
    server.close().unwrap();
    stop.allow(1);
}

#[test]
fn an_inline_method_that_does_not_return_does_not_delay_closing() {
    let stop = Stop::new();
    let wait = stop.clone();
    let server = start(Methods::new().register("stuck", Method::inline(move |_: Tree| wait.pass())));
    let client = Client::connect(&server);
    let _sent = client.send("stuck", Tree::Null);
    stop.wait_for(1);
    let error = server.close_within(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("an inline method on teleport-io"), "{error}");
    stop.allow(1);
    client.end();
}

#[test]
fn functions_see_that_the_time_to_close_is_over() {
    let stop = Stop::new();
    let wait = stop.clone();
    let linger = move |_: Tree, cx: Context| {
        wait.pass();
        until("cancelled", || cx.is_cancelled());
    };
    let server = start(Methods::new().register("linger", linger));
    let client = Client::connect(&server);
    stop.allow(1);
    let sent = client.send("linger", Tree::Null);
    stop.wait_for(1);
    server.close_within(Duration::ZERO).unwrap();
    assert_eq!(sent.wait(), Ok(Tree::Null));
}

#[test]
fn a_function_may_close_its_own_server() {
    for place in [Method::new as fn(_) -> Method, Method::inline as fn(_) -> Method] {
        let slot: Arc<Mutex<Option<ServerHandle>>> = Arc::default();
        let own = slot.clone();
        let server = start(Methods::new().register(
            "end",
            place(
                Box::new(move |_: Tree| drop(own.lock().unwrap().take())) as Box<dyn Fn(Tree) + Send + Sync>
            ),
        ));
        let client = Client::connect(&server);
        *slot.lock().unwrap() = Some(server);
        assert_eq!(client.call("end", Tree::Null), Ok(Tree::Null));
        assert!(matches!(&*client.end(), Closed::Goodbye { kind: Some(ErrorKind::Closing), .. }));
    }
}

#[test]
fn a_function_cannot_wait_for_its_own_server() {
    let (handle, slot) = channel::<ServerHandle>();
    let slot = Mutex::new(slot);
    let join = move |_: Tree| -> String {
        let server = slot.lock().unwrap().recv_timeout(WATCHDOG).unwrap();
        server.join().unwrap_err().to_string()
    };
    let server = start(Methods::new().register("join", join));
    let client = Client::connect(&server);
    handle.send(server).unwrap();
    let told: String = client.call("join", Tree::Null).map(|tree| tree.as_str().unwrap().to_owned()).unwrap();
    assert!(told.contains("it would wait for itself"), "{told}");
    client.end();
}

#[test]
fn a_server_closed_before_it_starts_ends_at_once() {
    let server = server();
    server.closer().close();
    server.run(Methods::new().register("echo", echo)).unwrap();
}

#[test]
fn a_closed_server_leaves_no_socket_file() {
    let path = std::env::temp_dir().join(format!("teleport-server-{}.sock", std::process::id()));
    let server = Server::bind(&format!("ipc://{}", path.display())).unwrap();
    let server = server.start(Methods::new().register("echo", echo)).unwrap();
    let client = Client::connect(&server);
    assert_eq!(client.call("echo", tree!(1)), Ok(tree!(1)));
    assert!(path.exists());
    drop(server);
    assert!(!path.exists());
    client.end();
}

#[test]
fn a_connection_too_many_is_refused_with_a_reason() {
    let server = server().max_connections(1).start(Methods::new().register("echo", echo)).unwrap();
    let client = Client::connect(&server);
    let refused = Client::connect(&server);
    match &*refused.end() {
        Closed::Goodbye { kind: Some(ErrorKind::Overloaded), reason } => {
            assert!(reason.contains("max_connections"));
        }
        other => panic!("{other}"),
    }
    assert_eq!(client.call("echo", tree!(1)), Ok(tree!(1)));
    client.link.abort();
    until("there is room again", || server.clients() == 0);
    assert_eq!(Client::connect(&server).call("echo", tree!(2)), Ok(tree!(2)));
}

#[test]
fn clients_of_other_protocols_are_disconnected() {
    let quick = server().handshake_timeout(Duration::from_millis(500));
    let server = quick.start(Methods::new().register("echo", echo)).unwrap();
    let client = Client::connect(&server);
    let address = server.address().to_string().replace("tcp://", "");
    let stranger = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let strangers =
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0], &[0x89, b'T', b'L'], &[]].map(stranger);
    for mut stream in strangers {
        // It gets a preface and a hello like every client, and then the end of the stream, or a reset.
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    assert_eq!(client.call("echo", tree!(1)), Ok(tree!(1)));
    assert_eq!(server.clients(), 1);
}

#[test]
fn workers_that_look_for_calls_do_not_keep_a_server_from_closing() {
    let server = server().spin(Duration::MAX).start(Methods::new().register("echo", |x: Tree| x)).unwrap();
    let client = Client::connect(&server);
    assert_eq!(client.call("echo", tree!(1)), Ok(tree!(1)));
    // The server closes on another thread. If it waits forever, this thread reports that.
    let (sender, closed) = channel();
    std::thread::spawn(move || sender.send(server.close_within(Duration::from_secs(1)).is_ok()));
    assert_eq!(closed.recv_timeout(WATCHDOG), Ok(true));
}
