//! Payload, credit and checksums that break the rules, and clients that vanish in the middle of a message.

use teleport::Tree;
use teleport::wire::{Header, Kind, MAX_CHUNK_BYTES};
use teleport_tests::Raw;

use crate::case::{Case, cases, liar, liars};
use crate::made::{array_signature, bytes, call, echo, good_frame, ungranted};

fn an_empty_chunk() -> Case {
    liar("0", |peer| {
        peer.send_head(1, &bytes(100), true);
        peer.send(&Header::data(1, 0, None).encode());
    })
}

fn a_chunk_longer_than_chunks_may_be() -> Case {
    liar("1048577", |peer| {
        peer.send_head(1, &bytes(100), true);
        peer.send(&Header::data(1, MAX_CHUNK_BYTES + 1, None).encode());
    })
}

fn more_payload_than_announced() -> Case {
    liar("more payload for message 1 than the 100 bytes", |peer| {
        peer.send_head(1, &bytes(100), true);
        peer.send(&Header::data(1, 101, None).encode());
        peer.send(&[0; 101]);
    })
}

fn payload_after_the_end_of_its_message() -> Case {
    liar("which is not open", |peer| {
        peer.send_eager(1, &bytes(100));
        peer.send(&Header::data(1, 1, None).encode());
        peer.send(&[0]);
    })
}

fn payload_for_a_message_that_was_aborted() -> Case {
    liar("which is not open", |peer| {
        peer.send_head(1, &bytes(100), true);
        peer.send(&Header::empty(Kind::Abort, 1).encode());
        peer.send(&Header::data(1, 100, None).encode());
        peer.send(&[0; 100]);
    })
}

fn payload_without_a_grant() -> Case {
    liars("came before its grant", vec![ungranted()])
}

fn eager_payload_past_the_credit() -> Case {
    Case::new("past the credit of", |address| {
        let (mut peer, hello) = Raw::introduced(address);
        peer.send_head(1, &bytes(hello.eager_credit_bytes as usize), true);
        peer.send_head(2, &bytes(1), true);
        peer.until_closed();
    })
}

fn eager_calls_that_are_past_the_credit_together() -> Case {
    Case::new("past the credit of", |address| {
        let (mut peer, hello) = Raw::introduced(address);
        let message = bytes(60_000);
        // No call is complete, so no credit comes back.
        for id in 1..=hello.eager_credit_bytes / 60_000 + 1 {
            peer.send_head(id, &message, true);
        }
        peer.until_closed();
    })
}

fn eager_without_payload() -> Case {
    let body = echo(&Tree::Null).metadata().to_vec();
    let header = Header { flags: Header::EAGER, ..Header::of_body(Kind::Call, 1, &body) };
    liars("claims eager credit", vec![[&header.encode()[..], &body].concat()])
}

fn credit_that_was_never_taken() -> Case {
    let lie = |amount| Header::empty(Kind::Credit, amount).encode().to_vec();
    liars("of credit given back go past", [1, u64::MAX].map(lie).to_vec())
}

fn checksums_that_do_not_match() -> Case {
    let mut header = Header::empty(Kind::Ping, 1).encode();
    header[28] ^= 1;
    let mut body = good_frame(Kind::Call);
    *body.last_mut().unwrap() ^= 1;
    liars("checksum", vec![header.to_vec(), body])
}

fn more_calls_than_the_server_allows() -> Case {
    Case::new("calls without an answer", |address| {
        let (mut peer, hello) = Raw::introduced(address);
        let message = bytes(100);
        // No payload follows, so no call is ever answered.
        let head = |id| [&message.header(id, false)[..], message.metadata()].concat();
        let calls = (1..=2 * u64::from(hello.max_open_calls) + 1).flat_map(head).collect::<Vec<_>>();
        peer.send(&calls);
        peer.until_closed();
    })
}

fn a_client_that_vanishes_in_the_middle_of_a_chunk() -> Case {
    Case::times("the connection broke", 60, |address, nth| {
        // All repetitions together send more than the server's memory may grow by.
        let (mut peer, _) = Raw::introduced(address);
        let message = bytes(1 << 20);
        peer.send_head(1, &message, true);
        peer.send(&Header::data(1, 1 << 20, None).encode());
        peer.send(&message.pieces()[0][..700_000]);
        if nth % 8 > 0 {
            peer.finish();
            peer.until_silent_end();
        }
    })
}

fn a_client_that_asks_for_much_memory_and_vanishes() -> Case {
    Case::times("the connection broke", 20, |address, _| {
        let (mut peer, _) = Raw::introduced(address);
        peer.send(&call(&array_signature(&[1 << 30])));
        peer.next_of(Kind::Grant);
        peer.send(&Header::data(1, 1 << 20, None).encode());
        peer.send(&[1; 1000]);
    })
}

cases![
    an_empty_chunk,
    a_chunk_longer_than_chunks_may_be,
    more_payload_than_announced,
    payload_after_the_end_of_its_message,
    payload_for_a_message_that_was_aborted,
    payload_without_a_grant,
    eager_payload_past_the_credit,
    eager_calls_that_are_past_the_credit_together,
    eager_without_payload,
    credit_that_was_never_taken,
    checksums_that_do_not_match,
    more_calls_than_the_server_allows,
    a_client_that_vanishes_in_the_middle_of_a_chunk,
    a_client_that_asks_for_much_memory_and_vanishes,
];
