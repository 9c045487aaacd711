//! Calls whose connection or time ends before they are complete, and calls that survive their connection.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use teleport::wire::{CallHead, ErrorKind, Header, Kind, Limits, Message, Ran, RemoteError};
use teleport::{Array, Batch, BoxError, CallError, Client, Method, Methods, OnDisconnect, Tree, tree};
use teleport_tests::{Cut, Proxy, Random, Raw, Toward, until};

use crate::{bind, bytes, connect, for_each_address, nothing_is_left, row};

const SOON: Duration = Duration::from_millis(100);

/// The size of a row that needs a grant.
const LARGE: usize = 4 << 20;

#[test]
fn clients_that_vanish_in_the_middle_of_a_row_leave_their_batch() {
    for_each_address(|address| {
        let methods = Methods::new().register("act", Method::batched(Batch::exact(4), |x: Tree| x));
        let server = bind(address).start(methods).unwrap();
        let proxy = Proxy::start(&server.address().to_string());
        let client = connect(&server, 8);
        let send = |number: usize| client.call("act", row(number, LARGE)).send().unwrap();
        for round in 0..3 {
            let mut sent = vec![send(0), send(1)];
            until("two calls are queued", || server.stats().queued == 2);
            let vanishing =
                Client::builder(&proxy.address()).close_timeout(Duration::ZERO).connect().unwrap();
            proxy.stall_after_payload(Toward::Server, 1 << 20);
            let lost = vanishing.call("act", row(9, LARGE)).send().unwrap();
            until("the row is half received", || proxy.is_stalled(Toward::Server));
            // This call gets the row after the incomplete one.
            sent.push(send(2));
            until("three calls are queued", || server.stats().queued == 3);
            proxy.cut(Cut::Reset);
            let Err(CallError::Disconnected { ran: Ran::Maybe, .. }) = lost.wait() else {
                panic!("the call did not fail with its connection")
            };
            proxy.heal();
            until("the incomplete row is free", || server.batches("act").unwrap().waiting == 3);
            sent.push(send(3));
            for (number, sent) in sent.into_iter().enumerate() {
                assert!(
                    sent.wait().unwrap() == row(number, LARGE),
                    "call {number} of round {round} got a wrong row"
                );
            }
        }
        nothing_is_left(&server, "act");
        let stats = server.batches("act").unwrap();
        assert_eq!((stats.calls, stats.batches, stats.dropped), (12, 3, 3));
    });
}

/// Few lengths, so that calls share batches: eager ones, and one that needs a grant.
const LENGTHS: [usize; 4] = [0, 100, 5_000, 70_000];

fn argument(call: usize) -> Tree {
    tree!({"call": call, "data": row(call, LENGTHS[call % LENGTHS.len()])})
}

#[test]
fn calls_that_survive_their_connection_run_once_and_get_their_own_row() {
    const CALLS: usize = 3000;
    for_each_address(|address| {
        let runs: Arc<Mutex<HashMap<usize, u32>>> = Arc::default();
        let noted = runs.clone();
        let step = move |mut x: Tree| -> Result<Tree, BoxError> {
            let mut noted = noted.lock().unwrap();
            for call in x.field::<Vec<usize>>("call")? {
                *noted.entry(call).or_default() += 1;
            }
            let mut data: Array = x.take("data")?;
            data.as_mut_slice::<u8>()?.iter_mut().for_each(|byte| *byte = !*byte);
            Ok(tree!({"call": x.take::<Array>("call")?, "data": data}))
        };
        let methods = Methods::new().register("step", Method::batched(Batch::up_to(8), step));
        let server = bind(address).start(methods).unwrap();
        let proxy = Proxy::start(&server.address().to_string());
        let client = Client::builder(&proxy.address()).max_inflight(32).on_disconnect(OnDisconnect::Resume);
        let client = client.connect().unwrap();
        proxy.cut_every(10_000..3_000_000, Random::from_environment().next_u64());
        let check = |call: usize, future: teleport::CallFuture| {
            let mut reply = future.wait().unwrap();
            assert_eq!(reply.take::<usize>("call").unwrap(), call);
            let data: Array = reply.take("data").unwrap();
            let expected: Vec<u8> =
                bytes(call, LENGTHS[call % LENGTHS.len()]).iter().map(|byte| !byte).collect();
            assert!(data.as_slice::<u8>().unwrap() == expected, "call {call} has a wrong result");
        };
        let mut open = VecDeque::new();
        for call in 0..CALLS {
            open.push_back((call, client.call("step", argument(call)).send().unwrap()));
            if open.len() == 64 {
                let (call, future) = open.pop_front().unwrap();
                check(call, future);
            }
        }
        open.into_iter().for_each(|(call, future)| check(call, future));
        assert!(proxy.cuts() > 10, "only {} cuts", proxy.cuts());
        proxy.heal();
        let noted = runs.lock().unwrap().clone();
        assert!((0..CALLS).all(|call| noted.get(&call) == Some(&1)), "some call did not run exactly once");
        // One more call without cuts lets the client acknowledge all results.
        client.call("step", argument(CALLS)).wait().unwrap();
        until("the server keeps no results", || server.stats().kept_bytes == 0);
        nothing_is_left(&server, "step");
        let stats = server.batches("step").unwrap();
        assert!(stats.batches < stats.calls, "{stats:?}");
    });
}

#[test]
fn a_deadline_in_the_middle_of_a_row_frees_it() {
    for_each_address(|address| {
        let methods = Methods::new().register("act", Method::batched(Batch::exact(2), |x: Tree| x));
        let server = bind(address).start(methods).unwrap();
        let proxy = Proxy::start(&server.address().to_string());
        let client = Client::builder(&proxy.address()).connect().unwrap();
        proxy.stall_after_payload(Toward::Server, 1 << 20);
        let late = client.call("act", row(0, LARGE)).deadline(20 * SOON).send().unwrap();
        until("the row is half received", || proxy.is_stalled(Toward::Server));
        // The client may have sent the whole row into the buffers of the network.
        let error = late.wait().unwrap_err();
        assert!(matches!(error, CallError::Deadline { .. }) && error.ran() != Ran::Yes, "{error:?}");
        proxy.resume();
        nothing_is_left(&server, "act");
        let both = [1, 2].map(|number| client.call("act", row(number, LARGE)).send().unwrap());
        for (number, future) in (1..).zip(both) {
            assert!(future.wait().unwrap() == row(number, LARGE));
        }
        assert_eq!((client.stats().connects, server.batches("act").unwrap().dropped), (1, 1));
    });
}

/// The client here does not enforce deadlines itself.
#[test]
fn a_row_that_is_complete_too_late_runs_in_no_batch() {
    for_each_address(|address| {
        let methods = Methods::new()
            .register("act", Method::batched(Batch::exact(2), |x: Tree| x))
            .register("never", Method::batched(Batch::exact(9), |x: Tree| x));
        let server = bind(address).start(methods).unwrap();
        let head = |method| CallHead { deadline: Some(SOON), ..CallHead::new(method) };
        let (mut peer, _) = Raw::introduced(&server.address().to_string());
        let call = Message::call(&head("act"), &row(0, LARGE / 8), &Limits::default()).unwrap();
        let payload = &call.pieces()[0];
        peer.send_head(1, &call, true);
        peer.send(&Header::data(1, payload.len() as u64, None).encode());
        peer.send(&payload[..payload.len() / 2]);
        until("the call has a row", || server.batches("act").unwrap().waiting == 1);
        // A call that arrived later with as much time has expired, so the first one has too.
        let (mut other, _) = Raw::introduced(&server.address().to_string());
        let later = Message::call(&head("never"), &tree!(1), &Limits::default()).unwrap();
        other.send_eager(1, &later);
        other.next_of(Kind::Error);
        peer.send(&payload[payload.len() / 2..]);
        let error = RemoteError::decode(&peer.next_of(Kind::Error).body).unwrap();
        assert_eq!((error.kind, error.ran), (ErrorKind::Deadline, Ran::No), "{error}");
        nothing_is_left(&server, "act");
        let client = connect(&server, 8);
        let both = [1, 2].map(|number| client.call("act", row(number, LARGE / 8)).send().unwrap());
        for (number, future) in (1..).zip(both) {
            assert!(future.wait().unwrap() == row(number, LARGE / 8));
        }
    });
}
