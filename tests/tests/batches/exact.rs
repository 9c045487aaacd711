//! Exact batches that do not become full: the log reports them, and their calls time out.

use std::time::Duration;

use teleport::{Batch, CallError, Client, Method, Methods, Ran, Tree};
use teleport_tests::{Log, until};

use crate::{bind, connect, for_each_address, nothing_is_left, row};

#[test]
fn a_batch_that_waits_is_logged_once_with_its_clients() {
    for_each_address(|address| {
        let log = Log::open();
        // Other servers of this process log too.
        let method = if address.starts_with("tcp") { "over-tcp" } else { "over-unix" };
        let methods = Methods::new().register(method, Method::batched(Batch::exact(5), |x: Tree| x));
        let server = bind(address).start(methods).unwrap();
        let named = |name: &str, max_inflight| {
            let client = Client::builder(&server.address().to_string()).name(name);
            client.max_inflight(max_inflight).connect().unwrap()
        };
        let (one, two) = (named("one-actor", 1), named("two-actor", 7));
        let mut sent = vec![
            one.call(method, 1u8).send().unwrap(),
            two.call(method, 2u8).send().unwrap(),
            two.call(method, 3u8).send().unwrap(),
        ];
        let lines = || log.lines(&format!("method=\"{method}\""));
        until("the log reports the batch", || !lines().is_empty());
        for text in [
            "a batch waits until it is full: it has 3 of 5 calls, from 2 clients",
            "one-actor with 1 (`max_inflight` 1)",
            "two-actor with 2 (`max_inflight` 7)",
        ] {
            assert!(lines()[0].contains(text), "{:?}\nhas no {text:?}", lines());
        }
        sent.push(two.call(method, 4u8).send().unwrap());
        sent.push(two.call(method, 5u8).send().unwrap());
        for (number, sent) in (1u8..).zip(sent) {
            assert_eq!(sent.wait().unwrap(), teleport::tree!(number));
        }
        assert_eq!(lines().len(), 1, "the batch was logged more than once");
        nothing_is_left(&server, method);
    });
}

#[test]
fn half_full_batches_of_two_shapes_that_hold_all_memory_time_out() {
    const ROWS: usize = 6;
    const LEN: usize = 1 << 20;
    for_each_address(|address| {
        let batch = Batch::exact(ROWS).full_timeout(Duration::from_millis(500));
        let methods = Methods::new().register("act", Method::batched(batch, |x: Tree| x));
        // Three quarters of this fit four rows of each shape, with overhead.
        let server = bind(address).max_memory(14 << 20).start(methods).unwrap();
        let client = connect(&server, 2 * ROWS);
        let lens = [LEN, LEN + 1];
        let send = |number: usize, len: usize| client.call("act", row(number, len)).send().unwrap();
        // These are too few calls to fill a batch, so the test does not depend on timing.
        let futures: Vec<_> = (0..ROWS - 1).flat_map(|number| lens.map(|len| send(number, len))).collect();
        until("memory is short", || server.stats().awaiting_memory > 0 || server.stats().failed > 0);
        for future in futures {
            let error = future.wait().unwrap_err();
            assert!(matches!(error, CallError::Deadline { ran: Ran::No, .. }), "{error:?}");
            for text in ["6 calls of one shape", "max_inflight", "Batch::up_to"] {
                assert!(error.to_string().contains(text), "{error}\nhas no {text:?}");
            }
        }
        nothing_is_left(&server, "act");
        // A full batch of one shape fits into memory.
        for len in lens {
            let futures: Vec<_> = (0..ROWS).map(|number| send(number, len)).collect();
            for (number, future) in futures.into_iter().enumerate() {
                assert!(future.wait().unwrap() == row(number, len), "call {number} got a wrong result");
            }
        }
    });
}
