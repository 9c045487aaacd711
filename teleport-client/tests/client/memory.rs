//! The memory of unread results is bounded, and never blocks a result for which a caller waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use teleport_client::wire::{Array, Ran, Tree, tree};
use teleport_client::{CallError, CallFuture, Client, as_completed, wait_all};

use crate::support::{Server, address, until, watched};

/// A size larger than the eager credit, so that each result waits for a grant.
const RESULT_BYTES: u64 = 2 << 20;
const MAX_MEMORY: u64 = 5 << 20;
/// The number of results that fit into `MAX_MEMORY`.
const FITTING: usize = 2;
const CALLS: usize = 8;

fn pair() -> (Server, Client) {
    let server = Server::start(&address());
    let client = Client::builder(&server.address).max_memory(MAX_MEMORY).connect().unwrap();
    (server, client)
}

fn large(value: u8) -> Tree {
    Array::from(vec![value; RESULT_BYTES as usize]).into()
}

/// Makes calls whose results arrive while there is room. The other results wait at the server.
fn unread(client: &Client) -> Vec<CallFuture> {
    let send = |index| client.call("echo", large(index as u8)).send().unwrap();
    let futures: Vec<_> = (0..CALLS).map(send).collect();
    until("the results that do not fit wait", || {
        let stats = client.stats();
        assert!(stats.held_bytes <= MAX_MEMORY);
        stats.awaiting_memory == CALLS - FITTING && stats.receives == FITTING as u64
    });
    futures
}

fn nothing_is_held(client: &Client) {
    until("nothing is held", || {
        let stats = client.stats();
        stats.held_bytes == 0 && stats.awaiting_memory == 0 && stats.in_flight == 0
    });
}

#[test]
fn the_last_result_comes_while_others_hold_all_memory() {
    watched(|| {
        let (_server, client) = pair();
        let mut futures = unread(&client);
        assert_eq!(futures.pop().unwrap().wait().unwrap(), large(CALLS as u8 - 1));
        // One result is awaited, and one is polled until it has arrived.
        assert_eq!(pollster::block_on(futures.pop().unwrap()).unwrap(), large(CALLS as u8 - 2));
        let looked_at = futures.pop().unwrap();
        until("it is done", || looked_at.is_done());
        assert_eq!(looked_at.wait().unwrap(), large(CALLS as u8 - 3));
        let mut timed = futures.pop().unwrap();
        let reply = loop {
            if let Some(reply) = timed.wait_timeout(Duration::from_millis(1)).unwrap() {
                break reply;
            }
        };
        assert_eq!(reply, large(CALLS as u8 - 4));
        assert_eq!(client.stats().awaiting_memory, futures.len() - FITTING);
        drop(futures);
        nothing_is_held(&client);
    });
}

#[test]
fn a_small_result_needs_no_memory_of_the_others() {
    watched(|| {
        let (_server, client) = pair();
        let futures = unread(&client);
        for round in 0..100 {
            assert_eq!(client.call("echo", round).wait().unwrap(), tree!(round));
        }
        assert_eq!(client.stats().awaiting_memory, futures.len() - FITTING);
    });
}

#[test]
fn reading_makes_room() {
    watched(|| {
        let (_server, client) = pair();
        let replies = wait_all(unread(&client)).unwrap();
        assert!((0..).zip(&replies).all(|(value, reply)| *reply == large(value)));
        // Results that were read belong to the caller, and are not bounded.
        assert_eq!(replies.len(), CALLS);
        nothing_is_held(&client);
        let send = |index| client.call("echo", large(index as u8)).send().unwrap();
        let futures: Vec<_> = (0..CALLS).map(send).collect();
        for (index, reply) in as_completed(futures) {
            assert_eq!(reply.unwrap(), large(index as u8));
        }
        nothing_is_held(&client);
    });
}

#[test]
fn a_result_that_is_no_longer_wanted_leaves_its_slot() {
    watched(|| {
        let (_server, client) = pair();
        let mut futures = unread(&client);
        let read_later = futures.drain(..FITTING).collect::<Vec<_>>();
        for (index, future) in futures.into_iter().enumerate() {
            match index % 2 {
                0 => drop(future),
                _ => assert_ne!(future.cancel(), Ran::No, "its result was on the way"),
            }
        }
        until("all have come and were dropped", || {
            let stats = client.stats();
            stats.in_flight == 0 && stats.awaiting_memory == 0 && stats.receives == CALLS as u64
        });
        assert_eq!(wait_all(read_later).unwrap().len(), FITTING);
        nothing_is_held(&client);
        client.close().unwrap();
    });
}

#[test]
fn a_deadline_ends_a_result_that_waits_for_memory() {
    watched(|| {
        let (_server, client) = pair();
        let futures = unread(&client);
        let call = client.call("echo", large(77)).deadline(Duration::from_secs(1));
        // No caller waits for it, so only the deadline ends it.
        let late = call.send().unwrap();
        until("its time is over", || client.stats().in_flight == CALLS - FITTING);
        assert!(matches!(late.wait(), Err(CallError::Deadline { .. })));
        until("only the others wait", || {
            let stats = client.stats();
            stats.awaiting_memory == CALLS - FITTING && stats.held_bytes <= FITTING as u64 * RESULT_BYTES
        });
        drop(futures);
        nothing_is_held(&client);
    });
}

#[test]
fn closing_fetches_deferred_results() {
    watched(|| {
        let (_server, client) = pair();
        let futures = unread(&client);
        client.close().unwrap();
        assert_eq!(wait_all(futures).unwrap().len(), CALLS);
        assert_eq!(client.stats().held_bytes, 0);
    });
}

#[test]
fn a_lost_connection_leaves_nothing_charged() {
    watched(|| {
        let (server, client) = pair();
        let futures = unread(&client);
        server.cut();
        until("all calls have ended", || client.stats().in_flight == 0);
        let lost = |reply: &Result<_, _>| matches!(reply, Err(CallError::Disconnected { .. }));
        let replies: Vec<_> = futures.into_iter().map(CallFuture::wait).collect();
        assert_eq!(replies.iter().filter(|reply| lost(reply)).count(), CALLS - FITTING);
        assert_eq!(replies.iter().filter(|reply| reply.is_ok()).count(), FITTING);
        nothing_is_held(&client);
        assert_eq!(client.call("echo", large(1)).wait().unwrap(), large(1));
    });
}

#[test]
fn results_larger_than_all_memory_come_one_at_a_time_or_when_they_are_waited_for() {
    watched(|| {
        let server = Server::start(&address());
        let client = Client::builder(&server.address).max_memory(1 << 20).connect().unwrap();
        let futures = (0..3).map(|value| client.call("echo", large(value)).send().unwrap());
        let mut futures: Vec<_> = futures.collect();
        until("one has come, and the others wait", || {
            let stats = client.stats();
            stats.receives == 1 && stats.awaiting_memory == 2
        });
        assert_eq!(futures.pop().unwrap().wait().unwrap(), large(2));
        assert_eq!(wait_all(futures).unwrap(), [large(0), large(1)]);
        nothing_is_held(&client);
    });
}

/// The server may start no calls while too many of its results are not fetched.
#[test]
fn results_that_may_block_an_awaited_call_are_fetched() {
    watched(|| {
        let (server, client) = pair();
        let earlier = unread(&client);
        let held = client.call("hold", tree!(7)).send().unwrap();
        server.saw_held(1);
        let later: Vec<_> = (0..3).map(|value| client.call("echo", large(value)).send().unwrap()).collect();
        until("all wait", || client.stats().awaiting_memory == CALLS - FITTING + later.len());
        let waiting = thread::spawn(move || held.wait().unwrap());
        until("the earlier ones come", || client.stats().awaiting_memory == later.len());
        until("the earlier ones have come", || client.stats().receives == CALLS as u64);
        server.answer();
        assert_eq!(waiting.join().unwrap(), tree!(7));
        assert_eq!(client.stats().awaiting_memory, later.len());
        drop((earlier, later));
        nothing_is_held(&client);
    });
}

/// Fetches results in every way while they arrive, so that requests race with the heads of results.
#[test]
fn asking_and_arriving_never_miss_each_other() {
    watched(|| {
        let (_server, client) = pair();
        let answered = Arc::new(AtomicUsize::new(0));
        let work = |seed: usize| {
            let (client, answered) = (client.clone(), answered.clone());
            move || {
                for round in 0..40 {
                    let value = (seed * 40 + round) as u8;
                    let future = client.call("echo", large(value)).send().unwrap();
                    match (seed + round) % 5 {
                        0 => drop(future),
                        1 => drop(future.cancel_on_drop()),
                        2 => assert_eq!(pollster::block_on(future).unwrap(), large(value)),
                        3 => {
                            until("it is done", || future.is_done());
                            assert_eq!(future.wait().unwrap(), large(value));
                        }
                        _ => assert_eq!(future.wait().unwrap(), large(value)),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        // These results hold all memory during the test.
        let kept: Vec<_> = unread(&client).into_iter().take(FITTING).collect();
        let threads: Vec<_> = (0..4).map(|seed| thread::spawn(work(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(answered.load(Ordering::Relaxed), 160);
        drop(kept);
        nothing_is_held(&client);
    });
}
