//! Each rule of the protocol, broken once: the connection ends, with the reason.

use super::*;

#[test]
fn bytes_that_are_not_the_format() {
    let error = check(Side::new(Role::Server, config()), &[b"GET / HTTP/1.1\r\n".to_vec()], {
        "the peer speaks HTTP, not Teleport: check the address and port on its side"
    });
    assert!(error.is_stranger());
    let mut ping = empty(Kind::Ping, 1);
    ping[8] = 2;
    let error = check(Side::server(), &[ping], {
        "the frame header's checksum is 0x21a92fec, its bytes give 0x786d372b"
    });
    assert!(!error.is_stranger());
}

#[test]
fn frames_before_the_hello() {
    for (frame, text) in [
        (empty(Kind::Ping, 1), "Ping came before the hello"),
        (call(1, "m", 0, false), "Call came before the hello"),
        (data(1, 1), "Data came before the hello"),
    ] {
        check(Side::new(Role::Server, config()), &[Preface::BYTES.to_vec(), frame], text);
    }
}

#[test]
fn frames_after_the_goodbye() {
    for (frame, text) in [
        (empty(Kind::Ping, 1), "Ping came after the goodbye"),
        (data(1, 1), "Data came after the goodbye"),
        (goodbye(), "Goodbye came after the goodbye"),
    ] {
        check(Side::server(), &[goodbye(), frame], text);
    }
}

#[test]
fn frames_of_the_other_side_and_of_features_that_were_not_agreed_on() {
    let server = " is not allowed here: this is the Server and the hellos agreed on no such thing";
    let client = " is not allowed here: this is the Client and the hellos agreed on no such thing";
    check(Side::server(), &[result(1, 0, false)], &format!("Result{server}"));
    check(Side::server(), &[error(1)], &format!("Error{server}"));
    check(Side::client(0, 0), &[call(1, "m", 0, false)], &format!("Call{client}"));
    check(Side::client(1, 0), &[empty(Kind::Cancel, 1)], &format!("Cancel{client}"));
    check(Side::server(), &[introduction(0)[16..].to_vec()], &format!("Hello{server}"));
    check(Side::server(), &[ids(Kind::Ack, &[1])], &format!("Ack{server}"));
    check(Side::server(), &[empty(Kind::Release, 1)], &format!("Release{server}"));
    let shared = Header { flags: Header::SHARED, ..Header::data(1, 24, None) }.encode().to_vec();
    check(Side::server(), &[call(1, "m", 24, true), shared], &format!("Data{server}"));
}

#[test]
fn frames_about_messages_that_were_never_begun() {
    let text = |kind: &str, id: u64| format!("{kind} names message {id}, which is not open");
    check(Side::server(), &[data(1, 1)], &text("Data", 1));
    check(Side::server(), &[call(1, "m", 4, true), data(1, 4), data(1, 1)], &text("Data", 1));
    for kind in [Kind::Abort, Kind::Cancel] {
        let text = text(&kind.to_string(), 8);
        check(Side::server(), &[call(7, "m", 0, false), empty(kind, 7), empty(kind, 8)], &text);
    }
    check(Side::client(2, 0), &[empty(Kind::Abort, 2), empty(Kind::Abort, 3)], &text("Abort", 3));
    check(Side::client(2, 0), &[ids(Kind::Grant, &[1, 2]), ids(Kind::Grant, &[3])], &text("Grant", 3));
    let client = Side::client(0, 0);
    client.outbound.borrow_mut().send_call(call_message("m", 1), |_| true).expect("none is open");
    check(client, &[ids(Kind::Grant, &[1])], &text("Grant", 1)); // it was not sent yet
}

#[test]
fn ids_that_do_not_increase() {
    let text = "call 5 came after call 6: ids must increase";
    check(Side::server(), &[call(6, "m", 0, false), call(5, "m", 0, false)], text);
    let text = "call 6 came after call 6: ids must increase";
    check(Side::server(), &[call(6, "m", 5, false), empty(Kind::Abort, 6), call(6, "m", 0, false)], text);
}

#[test]
fn answers_to_calls_that_are_not_open() {
    let text = "an answer came for call 1, which is not open";
    for answer in [result(1, 0, false), result(1, 8, true), error(1)] {
        check(Side::client(0, 0), std::slice::from_ref(&answer), text);
        check(Side::client(1, 0), &[error(1), answer.clone()], text);
        check(Side::client(1, 0), &[result(1, 0, false), answer.clone()], text);
        // The result is in progress and was not given up.
        check(Side::client(1, 0), &[result(1, 8, true), data(1, 4), answer.clone()], text);
        let client = Side::client(0, 0);
        client.outbound.borrow_mut().send_call(call_message("m", 1), |_| true).expect("none is open");
        check(client, &[answer], text); // it was not sent yet
    }
}

#[test]
fn results_of_calls_that_were_not_sent_whole() {
    let text = "a result came for call 1, whose payload was not sent to its end";
    check(Side::client(1, 2000), &[result(1, 0, false)], text);
    let withdrawn = Side::client(1, 2000);
    assert_eq!(withdrawn.outbound.borrow_mut().withdraw(1), Withdrawn::Aborted);
    check(withdrawn, &[result(1, 0, false)], "an answer came for call 1, which is not open");
}

#[test]
fn more_calls_than_the_hello_allows() {
    let text = "more than 3 calls without an answer, or twice as many not sent whole (the server's `max_open_calls`)";
    let calls: Vec<_> = (1..=4).map(|id| call(id, "m", 0, false)).collect();
    check(Side::server(), &calls, text);
    // Unread answers are not staged.
    let refused: Vec<_> = (1..=4).map(|id| call(id, "refused", 0, false)).collect();
    check(Side::server(), &refused, text);
}

#[test]
fn refused_calls_that_are_never_ended() {
    let mut server = Side::server();
    for id in 1..=6 {
        server.feed(&call(id, "refused", 10, id % 2 == 0)).expect("six may be unfinished");
        assert_eq!(server.sent(), [(Kind::Error, id, 0)]);
    }
    let text = "more than 3 calls without an answer, or twice as many not sent whole (the server's `max_open_calls`)";
    server.feed(&call(7, "m", 0, false)).expect("it is whole at once");
    check(server, &[call(8, "m", 1, false)], text);
}

#[test]
fn payload_that_was_not_granted() {
    let text = "payload of message 1 came before its grant";
    check(Side::server(), &[call(1, "m", 10, false), data(1, 10)], text);
    check(Side::server(), &[call(1, "refused", 10, false), data(1, 10)], text);
    check(Side::client(1, 0), &[result(1, 10, false), data(1, 10)], text);
}

#[test]
fn payload_past_the_end_of_its_message() {
    let text = "more payload for message 1 than the 10 bytes that its metadata announced";
    check(Side::server(), &[call(1, "m", 10, true), data(1, 11)], text);
    check(Side::server(), &[call(1, "refused", 10, true), data(1, 6), data(1, 5)], text);
    check(Side::client(1, 0), &[result(1, 10, true), data(1, 9), data(1, 2)], text);
}

#[test]
fn eager_payload_past_the_credit() {
    let text = "600 eager bytes go past the credit of 1000";
    for method in ["m", "refused"] {
        check(Side::server(), &[call(1, method, 600, true), call(2, method, 600, true)], text);
    }
    check(Side::client(2, 0), &[result(1, 600, true), result(2, 600, true)], text);
}

#[test]
fn credit_that_was_never_used() {
    let text = "1 bytes of credit given back go past the 1000 that there are";
    check(Side::server(), &[empty(Kind::Credit, 1)], text);
    let text = "18446744073709551615 bytes of credit given back go past the 1000 that there are";
    check(Side::client(1, 10), &[empty(Kind::Credit, 10), empty(Kind::Credit, u64::MAX)], text);
}

#[test]
fn eager_messages_without_payload() {
    // `Message::header` would not write this.
    let eager = |mut frame: Vec<u8>| {
        frame[1] = Header::EAGER;
        let crc = teleport_wire::checksum(0, &frame[..28]);
        frame[28..32].copy_from_slice(&crc.to_le_bytes());
        frame
    };
    let text = "message 1 has no payload but claims eager credit";
    check(Side::server(), &[eager(call(1, "m", 0, false))], text);
    check(Side::server(), &[eager(call(1, "refused", 0, false))], text);
    check(Side::client(1, 0), &[eager(result(1, 0, false))], text);
    check(Side::server(), &[inline(&call(1, "m", 0, false), &[0], None)], text);
    check(Side::client(1, 0), &[inline(&result(1, 0, false), &[0], None)], text);
}

#[test]
fn inline_payload_of_another_length_than_announced() {
    for bytes in [1, 9, 11] {
        let text = format!("{bytes} bytes of inline payload for message 1, whose metadata announced 10");
        for method in ["m", "refused"] {
            let call = inline(&call(1, method, 10, false), &vec![0; bytes], None);
            check(Side::server(), &[call], &text);
        }
        check(Side::client(1, 0), &[inline(&result(1, 10, false), &vec![0; bytes], Some(1))], &text);
        // Also if nobody waits for the result.
        let given_up = [result(1, 100, true), corrupt_data(1, 50), empty(Kind::Abort, 1)].concat();
        let second = inline(&result(1, 10, false), &vec![0; bytes], None);
        check(Side::client(1, 0), &[given_up, second], &text);
    }
}

#[test]
fn inline_payload_past_the_credit() {
    let text = "600 eager bytes go past the credit of 1000";
    for method in ["m", "refused"] {
        let second = inline(&call(2, method, 600, false), &[0; 600], None);
        check(Side::server(), &[call(1, "m", 600, true), second], text);
    }
    let second = inline(&result(2, 600, false), &[0; 600], None);
    check(Side::client(2, 0), &[result(1, 600, true), second], text);
}
