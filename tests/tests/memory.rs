//! Memory of results at a client, and memory that lost clients leave at a server.
//!
//! Unread results of a client are bounded, read ones are not. A result that a thread waits for arrives even
//! if others hold all the memory.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use teleport::wire::{CallHead, Kind, Limits, Message, Rpc};
use teleport::{
    Array, CallError, CallFuture, Client, Methods, Pool, Server, ServerHandle, Tree, as_completed, wait_all,
};
use teleport_tests::{Raw, abstract_address, until, watched};

/// Returns an array with a number of bytes that all have one value.
const MAKE: Rpc<(u64, u8), Array> = Rpc::new("make");

/// The size of a large result. It exceeds the eager credit.
const LARGE: u64 = 4 << 20;
const MAX_MEMORY: u64 = 16 << 20;
/// The number of large results that fit into `MAX_MEMORY`.
const FITTING: usize = 4;
const CALLS: usize = 20;

/// The eager credit of a client.
const CREDIT_BYTES: u64 = 1 << 20;

/// Starts a server whose results are not in the pool's memory, and a client that may hold `MAX_MEMORY`. So
/// only what the client has received is in the pool.
fn pair(address: &str, max_inflight: usize) -> (ServerHandle, Client) {
    let methods = Methods::new().register(MAKE, |(bytes, value)| Array::from(vec![value; bytes as usize]));
    let server = Server::bind(address).unwrap().start(methods).unwrap();
    let client = Client::builder(&server.address().to_string());
    (server, client.max_memory(MAX_MEMORY).max_inflight(max_inflight).connect().unwrap())
}

/// Runs a test for both kinds of sockets. All tests share the pool of the process, so only one runs at a
/// time.
fn for_each_address(check: impl Fn(&str) + Send + 'static) {
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    watched(move || {
        for address in ["tcp://127.0.0.1:0", &abstract_address()] {
            check(address);
            until("the pool has all its memory back", || received_bytes() == 0);
        }
    });
}

/// Returns the memory of received arrays that are alive. A size class of the pool may be a quarter larger
/// than the array in it.
fn received_bytes() -> u64 {
    Pool::global().stats().in_use_bytes
}

fn send(client: &Client, bytes: u64, value: usize) -> CallFuture<Array> {
    client.call(MAKE, (bytes, value as u8)).send().unwrap()
}

#[track_caller]
fn check(reply: &Array, bytes: u64, value: usize) {
    let found = reply.as_slice::<u8>().unwrap();
    assert!(found.len() as u64 == bytes && found.iter().all(|byte| *byte == value as u8));
}

/// Makes `CALLS` calls with large results and waits until no more of the results fit into memory.
fn unread(client: &Client) -> Vec<CallFuture<Array>> {
    let futures = (0..CALLS).map(|value| send(client, LARGE, value)).collect();
    until("as many results have arrived as fit", || {
        let stats = client.stats();
        assert!(stats.held_bytes <= MAX_MEMORY, "{stats:?}");
        stats.awaiting_memory == CALLS - FITTING && stats.receives == FITTING as u64
    });
    futures
}

#[test]
fn unread_large_results_are_bounded() {
    for_each_address(|address| {
        let (server, client) = pair(address, CALLS - FITTING);
        let futures = unread(&client);
        assert!(received_bytes() <= MAX_MEMORY / 4 * 5, "{}", received_bytes());
        assert_eq!(server.stats().unsent_bytes, (CALLS - FITTING) as u64 * LARGE);
        // Unread calls keep their slots, so `try_send` fails.
        assert!(matches!(client.call(MAKE, (1, 1)).try_send(), Err(CallError::Full { .. })));
        // Another client in the same process has memory of its own.
        let other = Client::connect(&server.address().to_string()).unwrap();
        check(&other.call(MAKE, (LARGE, 9)).wait().unwrap(), LARGE, 9);
        let mut left = CALLS;
        for (value, reply) in as_completed(futures) {
            check(&reply.unwrap(), LARGE, value);
            left -= 1;
        }
        assert_eq!(left, 0);
        until("the client holds no results", || client.stats().held_bytes == 0);
    });
}

#[test]
fn unread_small_results_are_bounded() {
    const SMALL: u64 = 10_000;
    const CALLS: usize = 3000;
    for_each_address(|address| {
        let (_server, client) = pair(address, CALLS);
        let futures: Vec<_> = (0..CALLS).map(|value| send(&client, SMALL, value)).collect();
        let fitting = ((MAX_MEMORY + CREDIT_BYTES) / SMALL) as usize;
        // One result may not fit into the rest of the memory, and one not into the rest of the credit.
        until("as many results have arrived as fit", || client.stats().in_flight <= CALLS - fitting + 2);
        let stats = client.stats();
        assert!(stats.held_bytes <= MAX_MEMORY, "{stats:?}");
        assert!(stats.receives as usize <= fitting, "{stats:?}");
        assert!(received_bytes() <= (MAX_MEMORY + CREDIT_BYTES) / 4 * 5);
        check(&send(&client, SMALL, 5).wait().unwrap(), SMALL, 5);
        for (value, reply) in wait_all(futures).unwrap().iter().enumerate() {
            check(reply, SMALL, value);
        }
    });
}

#[test]
fn a_result_that_is_waited_for_arrives_while_others_hold_all_memory() {
    for_each_address(|address| {
        let (_server, client) = pair(address, CALLS);
        let mut futures = unread(&client);
        check(&futures.pop().unwrap().wait().unwrap(), LARGE, CALLS - 1);
        check(&pollster::block_on(futures.pop().unwrap()).unwrap(), LARGE, CALLS - 2);
        // Calls that are made while all memory is held are answered too, small or large.
        check(&client.call(MAKE, (LARGE, 77)).wait().unwrap(), LARGE, 77);
        check(&client.call(MAKE, (10, 78)).wait().unwrap(), 10, 78);
        let stats = client.stats();
        assert_eq!((stats.awaiting_memory, stats.held_bytes), (CALLS - FITTING - 2, MAX_MEMORY));
        drop(futures);
        until("the client holds no results", || client.stats().held_bytes == 0);
    });
}

#[test]
fn results_that_the_user_keeps_do_not_count() {
    for_each_address(|address| {
        let (_server, client) = pair(address, 4);
        let kept: Vec<_> = (0..CALLS).map(|value| send(&client, LARGE, value).wait().unwrap()).collect();
        let kept_bytes = CALLS as u64 * LARGE;
        assert!(kept_bytes > 2 * MAX_MEMORY && received_bytes() >= kept_bytes);
        let stats = client.stats();
        assert_eq!((stats.held_bytes, stats.lent_bytes), (0, kept_bytes));
        // Unread results have as much room as before.
        let futures: Vec<_> = (0..FITTING).map(|value| send(&client, LARGE, value)).collect();
        until("the results have arrived", || client.stats().receives as usize == CALLS + FITTING);
        for (value, reply) in kept.iter().enumerate() {
            check(reply, LARGE, value);
        }
        assert_eq!(client.stats().lent_bytes, kept_bytes, "unread results counted as lent");
        drop(futures);
        drop(kept);
        assert_eq!(client.stats().lent_bytes, 0);
    });
}

#[test]
fn arrays_that_functions_keep_are_counted_as_lent() {
    for_each_address(|address| {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = {
            let kept = kept.clone();
            move |array: Array| kept.lock().unwrap().push(array.row(0))
        };
        let server = Server::bind(address).unwrap().start(Methods::new().register("keep", keep)).unwrap();
        let client = Client::connect(&server.address().to_string()).unwrap();
        // One eager, one granted, and one too small to be counted.
        for rows in [10_000, LARGE, 8] {
            client.call("keep", Array::zeros::<u8>([2, rows as usize / 2])).wait().unwrap();
        }
        let stats = server.stats();
        // Keeping one row keeps the memory of all rows.
        assert_eq!((stats.held_bytes, stats.lent_bytes), (0, 10_000 + LARGE));
        kept.lock().unwrap().clear();
        assert_eq!(server.stats().lent_bytes, 0);
    });
}

#[test]
fn half_sent_calls_of_a_lost_client_are_freed_while_another_call_runs() {
    for_each_address(|address| {
        let (begin, began) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let hold = move |_: Tree| {
            begin.send(()).unwrap();
            // Returns when the test drops the sender.
            let _ = released.lock().unwrap().recv();
        };
        let server = Server::bind(address).unwrap().start(Methods::new().register("hold", hold)).unwrap();
        let (mut raw, _) = Raw::introduced(&server.address().to_string());
        let call = |tree: &Tree| Message::call(&CallHead::new("hold"), tree, &Limits::default()).unwrap();
        raw.send_eager(1, &call(&Tree::Null));
        began.recv().unwrap();
        raw.send_head(2, &call(&Array::zeros::<u8>([8 << 20]).into()), false);
        raw.next_of(Kind::Grant);
        assert_eq!(server.stats().held_bytes, 8 << 20);
        drop(raw);
        until("the memory of the half-sent call is freed", || server.stats().held_bytes == 0);
        assert_eq!(server.stats().running, 1);
        drop(release);
        server.close().unwrap();
    });
}
