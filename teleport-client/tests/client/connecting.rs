//! Finding a server, waiting for it, losing it and finding it again.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use teleport_client::wire::{ErrorKind, Ran, tree};
use teleport_client::{AttemptError, CallError, Client, ClientError, ResolveError};

use crate::support::{Seen, Server, address, watched};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_client_waits_for_its_server() {
    watched(|| {
        let address = address();
        let (tried, has_tried) = std::sync::mpsc::channel();
        let target = address.clone();
        let connecting = thread::spawn(move || {
            Client::builder("later")
                .resolver("later", move |_| {
                    let _ = tried.send(());
                    Ok::<_, teleport_client::BoxError>(target.clone())
                })
                .connect()
        });
        // The client has failed at least once before there is a server.
        (0..2).for_each(|_| has_tried.recv().unwrap());
        let _server = Server::start(&address);
        let client = connecting.join().unwrap().unwrap();
        client.call("echo", ()).wait().unwrap();
    });
}

#[test]
fn a_client_with_no_time_tries_once() {
    watched(|| {
        let error = Client::builder(&address()).connect_timeout(Duration::ZERO).connect().unwrap_err();
        let text = error.to_string();
        let ClientError::TimedOut { attempts: 1, last: Some(last), .. } = error else { panic!("{text}") };
        assert!(matches!(*last, AttemptError::Socket(_)));
        assert!(text.contains("connect_timeout") && text.contains("1 attempt;"), "{text}");
        let server = Server::start("tcp://127.0.0.1:0");
        let client = Client::builder(&server.address).connect_timeout(Duration::ZERO).connect().unwrap();
        client.call("echo", ()).wait().unwrap();
    });
}

#[test]
fn time_bounds_connecting() {
    watched(|| {
        let error = Client::builder(&address()).connect_timeout(50 * MS).connect().unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
        // Nobody accepts from this listener, so the handshake never comes.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let error = Client::builder(&address).connect_timeout(50 * MS).connect().unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { last: None, .. }), "{error}");
    });
}

#[test]
fn bad_addresses_and_strangers_fail_at_once() {
    watched(|| {
        let connect = |address: &str| Client::builder(address).no_connect_timeout().connect().unwrap_err();
        let error = connect("localhost:2222");
        assert!(matches!(error, ClientError::Address(_)), "{error}");
        assert!(error.to_string().contains("localhost:2222"));
        let unset = |_: &str| Ok::<_, teleport_client::BoxError>("no address".to_owned());
        let error = Client::builder("name").resolver("name", unset).connect().unwrap_err();
        assert!(matches!(error, ClientError::Address(_)), "{error}");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let stranger = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let error = connect(&address);
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("HTTP"), "{error}");
        stranger.join().unwrap();
    });
}

#[test]
fn errors_of_resolvers_are_reported() {
    watched(|| {
        let error = Client::builder("slurm://trainer")
            .resolver("slurm://*", |name| Err::<String, _>(format!("no job {name}")))
            .connect_timeout(Duration::ZERO)
            .connect()
            .unwrap_err();
        let ClientError::TimedOut { last: Some(last), .. } = &error else { panic!("{error}") };
        assert!(matches!(&**last, AttemptError::Resolve(ResolveError::Failed { .. })));
        assert!(error.to_string().ends_with("the resolver of slurm://trainer failed: no job trainer"));
    });
}

#[test]
fn a_lost_connection_fails_calls_and_is_made_again() {
    watched(|| {
        let server = Server::start(&address());
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, target) = (asked.clone(), server.address.clone());
        let client = Client::builder("name")
            .resolver("name", move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, teleport_client::BoxError>(target.clone())
            })
            .connect()
            .unwrap();
        let future = client.call("hold", ()).send().unwrap();
        server.saw_held(1);
        server.cut();
        let error = future.wait().unwrap_err();
        assert!(matches!(error, CallError::Disconnected { .. }) && error.ran() == Ran::Maybe, "{error}");
        // The call waits for the new connection by itself.
        assert_eq!(client.call("echo", tree!(1)).wait().unwrap(), tree!(1));
        assert_eq!(client.stats().connects, 2);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        // A call without a future reports the loss.
        drop(client.call("hold", ()).send().unwrap());
        server.saw_held(1);
        server.cut();
        let error = loop {
            match client.check() {
                Ok(()) => thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, CallError::Disconnected { .. }), "{error}");
        assert_eq!(pollster::block_on(client.call("echo", tree!(2)).into_future()).unwrap(), tree!(2));
    });
}

#[test]
fn a_server_may_restart() {
    watched(|| {
        let address = address();
        let mut server = Server::start(&address);
        let client = Client::connect(&address).unwrap();
        let (held, line) = (client.call("hold", ()).send().unwrap(), client.clone());
        server.saw_held(1);
        // Otherwise the client connects again to this server before it has gone.
        server.stop_listening();
        server.goodbye(Some(ErrorKind::Closing), "maintenance");
        let error = held.wait().unwrap_err();
        assert!(
            matches!(&error, CallError::Closing { reason, ran: Ran::Maybe, .. } if reason == "maintenance")
        );
        drop(server);
        let waiting = thread::spawn(move || line.call("echo", tree!(7)).wait());
        let _server = Server::start(&address);
        assert_eq!(waiting.join().unwrap().unwrap(), tree!(7));
    });
}

#[test]
fn calls_wait_for_a_connection_only_for_connect_timeout() {
    watched(|| {
        let mut server = Server::start(&address());
        let client = Client::builder(&server.address).connect_timeout(200 * MS).connect().unwrap();
        server.stop_listening();
        let held = client.call("hold", ()).send().unwrap();
        server.saw_held(1);
        server.cut();
        held.wait().unwrap_err();
        assert!(matches!(client.call("echo", ()).try_send(), Err(CallError::Connect { .. })));
        let error = client.call("echo", ()).wait().unwrap_err();
        assert!(matches!(error, CallError::Connect { .. }) && error.ran() == Ran::No, "{error}");
        assert!(error.to_string().contains("cannot connect to ipc://@"), "{error}");
        assert_eq!(client.stats().server, None);
    });
}

#[test]
fn a_silent_server_is_given_up() {
    watched(|| {
        let server = Server::start(&address());
        let client =
            Client::builder(&server.address).ping_interval(20 * MS).max_silence(100 * MS).connect().unwrap();
        let (wake, sleeping) = std::sync::mpsc::channel::<()>();
        let sleeping = std::sync::Mutex::new(sleeping);
        // Blocks the server's poller, so that it answers no ping.
        server.set_inline(move |tree| {
            let _ = sleeping.lock().unwrap().recv();
            tree
        });
        let error = client.call("inline", ()).wait().unwrap_err();
        assert!(matches!(error, CallError::NotAlive { .. }) && error.ran() == Ran::Maybe, "{error}");
        drop(wake);
        client.call("echo", ()).wait().unwrap();
    });
}

#[test]
fn a_living_server_may_take_its_time() {
    watched(|| {
        let server = Server::start(&address());
        let client =
            Client::builder(&server.address).ping_interval(5 * MS).max_silence(2000 * MS).connect().unwrap();
        let mut future = client.call("hold", tree!(1)).send().unwrap();
        assert!(future.wait_timeout(100 * MS).unwrap().is_none());
        server.saw_held(1);
        server.answer();
        assert_eq!(future.wait().unwrap(), tree!(1));
        assert_eq!(server.address, client.address());
    });
}

#[test]
fn pings_do_not_end_a_quiet_connection() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).ping_interval(5 * MS).connect().unwrap();
        server.saw(&Seen::Opened { name: String::new() });
        assert_eq!(client.stats().connects, 1);
        client.close().unwrap();
        assert_eq!(server.seen(), Seen::Closed { goodbye: true });
    });
}
