//! A hundred clients that hold rows and send a byte now and then, and calls whose signatures never repeat.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use teleport::wire::{CallHead, Header, Kind, Limits, Message};
use teleport::{Array, Batch, Client, Dict, Method, Methods, ServerHandle, Tree, tree};
use teleport_tests::{Memory, Raw, allow_many_descriptors, until};

use crate::{bind, bytes, connect, for_each_address, nothing_is_left, row};

const SENDERS: usize = 100;
const ROW_BYTES: usize = 100_000;
const ROWS: usize = 16;
const MAX_MEMORY: u64 = 64 << 20;

/// Memory that is charged to no message: threads, connections, and memory that the allocator retains.
const BESIDE_BYTES: u64 = 32 << 20;

/// A client with a row that it fills byte by byte.
struct SlowSender {
    raw: Raw,
    payload: Vec<u8>,
    sent: usize,
}

impl SlowSender {
    /// Sends the head of a call, which requests a row.
    fn begin(server: &ServerHandle, number: usize) -> SlowSender {
        let (mut raw, _) = Raw::introduced(&server.address().to_string());
        let call = Message::call(&CallHead::new("act"), &row(number, ROW_BYTES), &Limits::default()).unwrap();
        raw.send_head(1, &call, false);
        SlowSender { raw, payload: bytes(number, ROW_BYTES), sent: 0 }
    }

    /// Waits for the row.
    fn granted(mut self) -> SlowSender {
        self.raw.next_of(Kind::Grant);
        self.raw.send(&Header::data(1, ROW_BYTES as u64, None).encode());
        self
    }

    /// Sends one byte.
    fn send_byte(&mut self) {
        self.raw.send(&self.payload[self.sent..=self.sent]);
        self.sent += 1;
    }

    /// Sends the rest and checks the result.
    fn finish(mut self) {
        self.raw.send(&self.payload[self.sent..]);
        self.raw.next_of(Kind::Result);
        let mut reply = Vec::new();
        while reply.len() < ROW_BYTES {
            reply.extend(self.raw.next_of(Kind::Data).body);
        }
        assert!(reply == self.payload, "the row was changed");
    }
}

/// Returns the method `act`, which answers no call while `gate` is locked.
fn methods(gate: &Arc<Mutex<()>>) -> Methods {
    let gate = gate.clone();
    let act = move |x: Tree| {
        drop(gate.lock().unwrap());
        x
    };
    Methods::new().register("act", Method::batched(Batch::up_to(ROWS), act))
}

fn serve(address: &str, gate: &Arc<Mutex<()>>) -> ServerHandle {
    bind(address).max_memory(MAX_MEMORY).start(methods(gate)).unwrap()
}

/// Makes `calls` calls with up to `in_flight` in flight and checks that each gets its own row.
fn calls(client: &Client, calls: usize, in_flight: usize) {
    let mut open = VecDeque::new();
    for number in 0..calls {
        open.push_back((number, client.call("act", row(number, ROW_BYTES)).send().unwrap()));
        if open.len() == in_flight {
            let (number, future) = open.pop_front().unwrap();
            assert!(future.wait().unwrap() == row(number, ROW_BYTES), "call {number} got a wrong row");
        }
    }
    for (number, future) in open {
        assert!(future.wait().unwrap() == row(number, ROW_BYTES), "call {number} got a wrong row");
    }
}

fn memory() -> u64 {
    Memory::of(std::process::id()).now_bytes
}

#[test]
fn slow_senders_delay_no_batch_and_are_moved_few_times() {
    allow_many_descriptors(4096);
    for_each_address(|address| {
        let gate = Arc::default();
        let server = serve(address, &gate);
        let stats = || server.batches("act").unwrap();
        let client = connect(&server, 4 * ROWS);
        calls(&client, 4 * ROWS, ROWS);
        let before = (memory(), stats());
        let mut senders: Vec<_> =
            (0..SENDERS).map(|number| SlowSender::begin(&server, number).granted()).collect();
        // One call at a time, so that only the slow rows are incomplete when a batch closes.
        let mut one_by_one = |count: usize| {
            for number in 0..count {
                assert!(client.call("act", row(number, ROW_BYTES)).wait().unwrap() == row(number, ROW_BYTES));
                senders.iter_mut().for_each(SlowSender::send_byte);
            }
            stats().moved - before.1.moved
        };
        let moved = one_by_one(50);
        // Each slow row leaves at most two batches, and each gap that it leaves is filled once.
        assert!(moved <= 4 * SENDERS as u64, "{moved} rows were moved");
        assert_eq!(one_by_one(50), moved, "rows were moved again");
        assert_eq!(stats().waiting, SENDERS);

        // Many calls at once still run in full batches.
        let ran = stats();
        let closed = gate.lock().unwrap();
        let send = |number: usize| client.call("act", row(number, ROW_BYTES)).send().unwrap();
        let sent: Vec<_> = (0..4 * ROWS).map(send).collect();
        until("all calls have arrived", || {
            server.stats().queued + (stats().calls - ran.calls) as usize == sent.len()
        });
        drop(closed);
        for (number, sent) in sent.into_iter().enumerate() {
            assert!(sent.wait().unwrap() == row(number, ROW_BYTES), "call {number} got a wrong row");
        }
        // The first batch may have been small.
        assert!(stats().batches - ran.batches <= 6, "{:?}", stats());
        assert!(server.stats().held_bytes <= MAX_MEMORY);
        let growth = memory().saturating_sub(before.0);
        assert!(growth <= MAX_MEMORY + BESIDE_BYTES, "the memory grew by {growth} bytes");

        // Some of the slow calls finish, and the other clients disconnect.
        senders.drain(..10).for_each(SlowSender::finish);
        let dropped = stats().dropped;
        drop(senders);
        nothing_is_left(&server, "act");
        assert_eq!(stats().dropped - dropped, SENDERS as u64 - 10);
        calls_go_on(&client);
    });
}

#[test]
fn slow_senders_that_hold_all_memory_are_given_up_when_others_wait() {
    allow_many_descriptors(4096);
    for_each_address(|address| {
        // Three quarters of this fit rows for fewer than half of the slow senders.
        let server = bind(address).max_memory(6 << 20).min_rate_window(Duration::from_millis(100));
        let server = server.start(methods(&Arc::default())).unwrap();
        let senders: Vec<_> = (0..SENDERS).map(|number| SlowSender::begin(&server, number)).collect();
        until("a call waits for memory", || server.stats().awaiting_memory > 0);
        let client = connect(&server, ROWS);
        calls(&client, ROWS, ROWS);
        assert_eq!(client.stats().connects, 1);
        drop(senders);
        nothing_is_left(&server, "act");
        calls_go_on(&client);
    });
}

fn calls_go_on(client: &Client) {
    calls(client, 2 * ROWS, ROWS);
}

/// Covers slabs that are small, that barely fill a huge page, that fill many, and many slabs at once.
#[test]
fn more_calls_than_fit_into_memory_wait_and_none_is_refused() {
    const CLIENTS: usize = 16;
    for_each_address(|address| {
        for (len, shapes) in [(ROW_BYTES, 4), (140_000, 1), (140_000, 4), (1 << 20, 1), (1 << 20, 16)] {
            let server = serve(address, &Arc::default());
            std::thread::scope(|scope| {
                for _ in 0..CLIENTS {
                    scope.spawn(|| {
                        let client = connect(&server, 64);
                        let call = |number: usize| {
                            let sent = row(number, len + number % shapes);
                            (sent.clone(), client.call("act", sent).send().unwrap())
                        };
                        let futures: Vec<_> = (0..100).map(call).collect();
                        for (sent, future) in futures {
                            assert!(future.wait().unwrap() == sent);
                        }
                    });
                }
            });
            nothing_is_left(&server, "act");
            assert_eq!(server.batches("act").unwrap().calls, 100 * CLIENTS as u64);
        }
    });
}

/// Returns arguments whose signature no other number has.
fn new_kind(number: usize) -> Tree {
    let array = row(number, number / 3);
    match number % 3 {
        0 => array,
        1 => Tree::List((0..number % 30).map(|_| tree!(1.5)).chain([array]).collect()),
        _ => {
            let mut dict = Dict::new();
            dict.insert(format!("key-{number}").as_str(), Tree::from(Array::scalar(number as u64)));
            Tree::Dict(dict)
        }
    }
}

#[test]
fn signatures_that_never_repeat_do_not_use_up_memory() {
    for_each_address(|address| {
        let server = serve(address, &Arc::default());
        let client = connect(&server, 64);
        let mut next = 0;
        let mut some = |count: usize| {
            let numbers = next..next + count;
            next += count;
            let futures: Vec<_> =
                numbers.clone().map(|number| client.call("act", new_kind(number)).send().unwrap()).collect();
            for (number, future) in numbers.zip(futures) {
                assert!(future.wait().unwrap() == new_kind(number), "call {number} got a wrong result");
                assert!(server.stats().held_bytes <= MAX_MEMORY);
            }
        };
        some(1000);
        let before = memory();
        for _ in 0..5 {
            some(1000);
        }
        let growth = memory().saturating_sub(before);
        assert!(growth <= BESIDE_BYTES, "5,000 more shapes took {growth} bytes");
        nothing_is_left(&server, "act");
        assert_eq!(server.batches("act").unwrap().calls, 6000);
    });
}
