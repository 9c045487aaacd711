//! Threads that are killed while they wait for what a server does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use teleport::{CallFuture, Client, Methods, ProcError, Server, Thread, Tree, as_completed, tree, wait_all};
use teleport_tests::{until, watched};

const FOREVER: Duration = Duration::from_secs(3600);

/// Kills a thread that waits by `wait` for a call that ends only afterwards.
fn is_killed_from(wait: impl Fn(&Client) + Send + 'static) {
    watched(move || {
        let (sender, started) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let methods = Methods::new().register("hold", move |(): ()| {
            // Only the first is waited for.
            let _ = sender.send(());
            until("the thread is killed", || is_over.load(Ordering::SeqCst));
        });
        let server =
            Server::bind("tcp://127.0.0.1:0").and_then(|server| server.start(methods)).expect("it starts");
        let address = server.address().to_string();
        let thread =
            Thread::new("caller", move |_stop| wait(&Client::connect(&address).expect("it listens")));
        let thread = thread.grace(FOREVER);
        thread.start().expect("there are threads");
        started.recv().expect("the call comes");
        thread.kill().expect("it ends");
        over.store(true, Ordering::SeqCst);
        assert!(matches!(thread.join(), Err(ProcError::Killed { .. })));
    });
}

/// Withdrawn as the thread unwinds: what is dropped otherwise still runs, and its client waits for that.
fn held(client: &Client) -> CallFuture<Tree> {
    client.call("hold", tree!(null)).send().expect("it is sent").cancel_on_drop()
}

#[test]
fn waiting_for_one_result() {
    is_killed_from(|client| drop(held(client).wait()));
}

#[test]
fn waiting_for_all_and_for_the_next() {
    is_killed_from(|client| drop(wait_all([held(client)])));
    is_killed_from(|client| as_completed([held(client)]).for_each(drop));
}

#[test]
fn waiting_for_a_slot() {
    is_killed_from(|client| {
        let mut calls = Vec::new();
        loop {
            calls.push(held(client));
        }
    });
}
