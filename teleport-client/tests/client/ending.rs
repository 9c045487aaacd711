//! Closing and dropping a client.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use teleport_client::wire::{Array, Ran, tree};
use teleport_client::{CallError, Client, OnDisconnect};

use crate::support::{Seen, Server, address, until, watched};

#[test]
fn closing_waits_for_calls_in_flight() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::connect(&server.address).unwrap();
        let future = client.call("hold", tree!(1)).send().unwrap();
        server.saw_held(1);
        let closing = {
            let client = client.clone();
            thread::spawn(move || client.close())
        };
        // New calls are refused as soon as closing has begun.
        let refused = loop {
            match client.call("echo", ()).wait() {
                Ok(_) => thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, CallError::Closed { ran: Ran::No, .. }));
        server.answer();
        closing.join().unwrap().unwrap();
        assert_eq!(future.wait().unwrap(), tree!(1));
        server.saw(&Seen::Closed { goodbye: true });
        client.close().unwrap();
    });
}

#[test]
fn closing_is_bounded() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).close_timeout(Duration::ZERO).connect().unwrap();
        let future = client.call("hold", ()).send().unwrap();
        drop(client.call("hold", ()).send().unwrap());
        let error = client.close().unwrap_err();
        assert!(matches!(error, CallError::Closed { ran: Ran::Maybe, .. }));
        assert!(matches!(future.wait(), Err(CallError::Closed { ran: Ran::Maybe, .. })));
        server.saw(&Seen::Closed { goodbye: true });
    });
}

#[test]
fn dropping_a_client_lets_detached_calls_run() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::connect(&server.address).unwrap();
        // The arguments are far larger than the socket accepts at once.
        drop(client.call("hold", Array::zeros::<u8>([32 << 20])).send().unwrap());
        let dropping = thread::spawn(move || drop(client));
        server.saw_held(1);
        server.answer();
        dropping.join().unwrap();
        server.saw(&Seen::Closed { goodbye: true });
    });
}

#[test]
fn futures_outlive_their_client() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::connect(&server.address).unwrap();
        let future = client.call("hold", tree!(1)).send().unwrap();
        let unsent = client.call("echo", ());
        drop(client);
        assert!(matches!(unsent.wait(), Err(CallError::Closed { ran: Ran::No, .. })));
        server.saw_held(1);
        server.answer();
        assert_eq!(future.wait().unwrap(), tree!(1));
        // The connection ends with the last answer.
        server.saw(&Seen::Closed { goodbye: true });
    });
}

#[test]
fn dropping_is_bounded() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).close_timeout(Duration::ZERO).connect().unwrap();
        drop(client.call("hold", ()).send().unwrap());
        drop(client);
        server.saw(&Seen::Closed { goodbye: true });
    });
}

#[test]
fn a_client_without_a_connection_closes_at_once() {
    watched(|| {
        let mut server = Server::start(&address());
        let client = Client::connect(&server.address).unwrap();
        server.saw(&Seen::Opened { name: String::new() });
        server.stop_listening();
        server.cut();
        while client.stats().server.is_some() {
            thread::yield_now();
        }
        let waiting = {
            let client = client.clone();
            thread::spawn(move || client.call("hold", ()).wait())
        };
        while client.stats().waiting == 0 {
            thread::yield_now();
        }
        client.close().unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(CallError::Closed { ran: Ran::No, .. })));
    });
}

/// A client, and a witness that lives as long as the settings of the client.
fn with_witness(server: &Server) -> (Weak<()>, Client) {
    let witness = Arc::new(());
    let (weak, target) = (Arc::downgrade(&witness), server.address.clone());
    let resolve = move |_: &str| {
        let _witness = &witness;
        Ok::<_, teleport_client::BoxError>(target.clone())
    };
    (weak, Client::builder("name").resolver("name", resolve).max_memory(1 << 20).connect().unwrap())
}

#[test]
fn nothing_of_a_client_is_left_when_its_last_handle_is_gone() {
    watched(|| {
        let server = Server::start(&address());
        let uses: [fn(&Server, &Client); 4] = [
            |_, client| drop(client.call("echo", tree!(1)).wait().unwrap()),
            // These results are deferred.
            |_, client| {
                let send = |_| client.call("echo", Array::zeros::<u8>([4 << 20])).send().unwrap();
                let futures: Vec<_> = (0..3).map(send).collect();
                until("two are deferred", || client.stats().awaiting_memory == 2);
                drop(futures);
            },
            // This call is in doubt while the client connects again.
            |server, client| {
                let call = client.call("hold", ()).on_disconnect(OnDisconnect::Resume);
                let future = call.send().unwrap();
                server.saw_held(1);
                server.cut();
                future.cancel();
            },
            |_, client| client.close().unwrap(),
        ];
        for use_it in uses {
            let (witness, client) = with_witness(&server);
            use_it(&server, &client);
            assert!(witness.upgrade().is_some());
            drop(client);
            until("it is gone", || witness.upgrade().is_none());
        }
        // A future keeps everything that it needs.
        let (witness, client) = with_witness(&server);
        let future = client.call("hold", tree!(1)).send().unwrap();
        server.saw_held(1);
        drop(client);
        assert!(witness.upgrade().is_some());
        server.answer_newest();
        assert_eq!(future.wait().unwrap(), tree!(1));
        until("it is gone", || witness.upgrade().is_none());
    });
}
