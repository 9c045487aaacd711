//! The order in which a pool takes the calls of many connections.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, Mutex};

use common::{Client, Stop, server, until};
use teleport_server::wire::{Tree, tree};
use teleport_server::{Method, Methods};

const FLOODING: usize = 100;
const CALLS_EACH: usize = 10;
const POLITE: i64 = 7_777_777;

/// Runs a method with one worker, which a first call keeps busy while the others arrive.
fn a_polite_call_waits_for_one_of_each_other(is_logged: bool) {
    let (stop, order) = (Stop::new(), Arc::new(Mutex::new(Vec::new())));
    let (wait, list) = (stop.clone(), order.clone());
    let step = move |x: i64| {
        list.lock().unwrap().push(x);
        wait.pass();
    };
    let methods = Methods::new();
    let server = if is_logged {
        let logged = move |x: i64| (step(x), Tree::Null);
        server().workers(1).done("step", |_| {}).start(methods.register("step", Method::logged(logged)))
    } else {
        server().workers(1).start(methods.register("step", Method::new(step)))
    };
    let server = server.unwrap();
    let flooding: Vec<Client> = (0..FLOODING).map(|_| Client::connect(&server)).collect();
    let polite = Client::connect(&server);
    let mut sent = vec![flooding[0].send("step", tree!(-1))];
    stop.wait_for(1);
    for (number, client) in flooding.iter().enumerate() {
        sent.extend((0..CALLS_EACH).map(|nth| client.send("step", tree!(number * CALLS_EACH + nth))));
    }
    until("all but one are queued", || server.stats().queued == FLOODING * CALLS_EACH);
    sent.push(polite.send("step", tree!(POLITE)));
    until("the last one is queued", || server.stats().queued == FLOODING * CALLS_EACH + 1);
    stop.allow(usize::MAX / 2);
    sent.into_iter().for_each(|sent| drop(sent.wait().unwrap()));
    server.close().unwrap();

    let order = order.lock().unwrap();
    let before = order.iter().position(|x| *x == POLITE).unwrap() - 1;
    assert!(before <= FLOODING, "{before} were dispatched before it");
    for number in 0..FLOODING as i64 {
        let own = order.iter().filter(|x| **x >= 0 && **x / CALLS_EACH as i64 == number);
        assert!(own.is_sorted(), "the calls of connection {number} overtook each other");
    }
}

#[test]
fn connections_take_turns() {
    a_polite_call_waits_for_one_of_each_other(false);
}

#[test]
fn connections_that_share_slots_for_logs_take_turns() {
    a_polite_call_waits_for_one_of_each_other(true);
}
