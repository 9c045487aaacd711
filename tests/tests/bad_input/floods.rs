//! Floods of calls and control frames.

use teleport::wire::{CallHead, Header, Kind, Limits, Message};
use teleport::{Tree, tree};
use teleport_tests::Raw;

use crate::case::{Case, cases, flood, flood_after};
use crate::made::{bytes, echo};

fn calls_whose_results_nobody_reads() -> Case {
    let message = bytes(100);
    flood(500_000, move |id| {
        let data = Header::data(id, 100, None).encode();
        [&message.header(id, true)[..], message.metadata(), &data, message.payload().next().unwrap()].concat()
    })
}

fn empty_calls_whose_results_nobody_reads() -> Case {
    let message = echo(&Tree::Null);
    flood(500_000, move |id| [&message.header(id, false)[..], message.metadata()].concat())
}

fn calls_of_no_method_whose_errors_nobody_reads() -> Case {
    let message = Message::call(&CallHead::new("nothing"), &tree!("text"), &Limits::default()).unwrap();
    flood(500_000, move |id| [&message.header(id, false)[..], message.metadata()].concat())
}

fn pings_whose_pongs_nobody_reads() -> Case {
    flood(1_000_000, |id| Header::empty(Kind::Ping, id).encode().to_vec())
}

fn calls_that_are_withdrawn_again() -> Case {
    let message = echo(&tree!("x".repeat(10_000)));
    flood(500_000, move |id| {
        [&message.header(id, false)[..], message.metadata(), &Header::empty(Kind::Abort, id).encode()]
            .concat()
    })
}

fn empty_chunks() -> Case {
    let message = bytes(100);
    let head = [&message.header(1, true)[..], message.metadata()].concat();
    flood_after(
        "does not keep to the protocol",
        move |peer| peer.send(&head),
        500_000,
        |_| Header::data(1, 0, None).encode().to_vec(),
    )
}

/// The first cancel ends a call that would never return. The others have no effect.
fn cancels_of_one_call() -> Case {
    let message =
        Message::call(&CallHead::new("sleep"), &tree!({"seconds": 1e6}), &Limits::default()).unwrap();
    flood_after(
        "a connection ended",
        move |peer| peer.send_eager(1, &message),
        500_000,
        |_| Header::empty(Kind::Cancel, 1).encode().to_vec(),
    )
}

fn cancels_and_aborts_of_calls_that_are_over() -> Case {
    let message = echo(&Tree::Null);
    let finish = move |peer: &mut Raw| {
        peer.send_eager(1, &message);
        peer.next_of(Kind::Result);
    };
    flood_after("a connection ended", finish, 250_000, |_| {
        [Kind::Cancel, Kind::Abort].map(|kind| Header::empty(kind, 1).encode()).concat()
    })
}

cases![
    calls_whose_results_nobody_reads,
    empty_calls_whose_results_nobody_reads,
    calls_of_no_method_whose_errors_nobody_reads,
    pings_whose_pongs_nobody_reads,
    calls_that_are_withdrawn_again,
    empty_chunks,
    cancels_of_one_call,
    cancels_and_aborts_of_calls_that_are_over,
];
