//! Frames that look like breaches and are legal, mostly because they crossed others.

use super::*;

#[test]
fn an_error_that_crosses_the_abort_of_its_call_is_ignored() {
    let mut client = Side::client(2, 2000);
    assert_eq!(client.outbound.borrow_mut().withdraw(1), Withdrawn::Aborted);
    assert_eq!(client.sent(), [(Kind::Abort, 1, 0)]);
    client.feed(&error(1)).expect("it crossed the abort");
    client.feed(&error(2)).expect("call 2 is open");
    assert_eq!(client.events(), ["error 2 failed"]);
    assert_eq!(client.sent(), [(Kind::Abort, 2, 0)], "its payload is not sent");
    check(client, &[error(1)], "an answer came for call 1, which is not open");
}

#[test]
fn another_answer_may_follow_a_result_that_was_given_up() {
    for first in [result(1, 100, true), result(1, 100, false)] {
        let second = [&result(1, 50, true)[..], &data(1, 50)].concat();
        for (answer, told) in [(second, "result 1"), (error(1), "error 1 failed")] {
            let mut client = Side::client(1, 0);
            client.feed(&first).expect("the call is open");
            client.grant(1);
            client.feed(&data(1, 10)).expect("it was granted");
            client.feed(&empty(Kind::Abort, 1)).expect("a server may give up");
            client.events();
            client.feed(&answer).expect("something must follow");
            assert_eq!(client.events(), [told]);
            check(client, &[error(1)], "an answer came for call 1, which is not open");
        }
    }
}

#[test]
fn a_caller_gets_no_second_answer_after_a_failure() {
    for eager in [true, false] {
        let mut client = Side::client(1, 0);
        client.feed(&result(1, 100, true)).expect("the call is open");
        client.feed(&corrupt_data(1, 50)).expect("it concerns this message only");
        assert_eq!(client.events(), ["error 1 checksum"]);
        client.feed(&empty(Kind::Abort, 1)).expect("a server may give up");
        client.feed(&result(1, 80, eager)).expect("something must follow");
        let mut sent = vec![(Kind::Credit, 100, 0)];
        if !eager {
            sent.push((Kind::Grant, 1, 0)); // the server must be able to send the rest
        }
        assert_eq!(client.sent(), sent);
        client.feed(&data(1, 80)).expect("it is dropped");
        assert!(client.events().is_empty());
        assert_eq!(client.inbound.unfinished(), 0);
        let given_back = if eager { vec![(Kind::Credit, 80, 0)] } else { vec![] };
        assert_eq!(client.sent(), given_back);
    }
}

#[test]
fn a_damaged_inline_payload_fails_its_message_only() {
    let right = teleport_wire::checksum(0, &[0; 10]);
    let mut server = Side::server();
    for id in 1..=10 {
        server.feed(&inline(&call(id, "m", 10, false), &[0; 10], Some(right ^ 1))).expect("it is legal");
        assert_eq!(server.sent(), [(Kind::Credit, 10, 0), (Kind::Error, id, 0)]);
    }
    server.feed(&inline(&call(11, "m", 10, false), &[0; 10], Some(right))).expect("it is legal");
    assert_eq!(server.events(), ["call 11"]);
    let mut client = Side::client(2, 0);
    client.feed(&inline(&result(1, 10, false), &[0; 10], Some(right ^ 1))).expect("it is legal");
    client.feed(&inline(&result(2, 10, false), &[0; 10], Some(right))).expect("it is legal");
    assert_eq!(client.events(), ["error 1 checksum", "result 2"]);
    assert_eq!(client.sent(), [(Kind::Credit, 20, 0)]);
    assert_eq!((server.inbound.unfinished(), client.inbound.unfinished()), (0, 0));
}

#[test]
fn frames_that_crossed_something_are_ignored() {
    let mut client = Side::client(1, 2000);
    client.feed(&ids(Kind::Grant, &[1])).expect("it waits");
    client.feed(&ids(Kind::Grant, &[1])).expect("a second grant is ignored");
    client.feed(&empty(Kind::Pong, 99)).expect("nobody asked for it");
    client.feed(&empty(Kind::Abort, 1)).expect("no result was begun");
    assert_eq!(client.sent(), [(Kind::Data, 1, 0)]);
    client.feed(&result(1, 0, false)).expect("the call is open and whole");
    client.feed(&empty(Kind::Abort, 1)).expect("the result was whole");
    client.feed(&ids(Kind::Grant, &[1])).expect("the call is gone");
    assert_eq!(client.events(), ["result 1"]);
    assert!(client.sent().is_empty());

    let mut server = Side::server();
    server.feed(&call(9, "m", 0, false)).expect("it is legal");
    server.feed(&empty(Kind::Abort, 9)).expect("it was whole");
    server.feed(&empty(Kind::Abort, 3)).expect("ids below the newest count as used");
    server.feed(&call(10, "m", 5, false)).expect("it is legal");
    server.feed(&empty(Kind::Cancel, 10)).expect("it is not whole");
    assert_eq!(server.events(), ["call 9", "wants 10 5"]);
    server.feed(&empty(Kind::Cancel, 9)).expect("it is whole");
    assert_eq!(server.events(), ["cancel 9"]);
    assert!(server.outbound.borrow_mut().send_answer(9, Message::error(&remote())).is_ok());
}

fn remote() -> RemoteError {
    RemoteError::new(ErrorKind::Failed, Ran::Yes, "why")
}

#[test]
fn a_refused_call_ends_with_its_abort_or_its_last_byte() {
    for method_bytes in [1, 600_u64] {
        let mut server = Side::server();
        server.feed(&call(1, "refused", method_bytes as usize, true)).expect("it is within the credit");
        assert_eq!(server.sent(), [(Kind::Error, 1, 0)]);
        let end = if method_bytes == 1 { data(1, 1) } else { empty(Kind::Abort, 1) };
        server.feed(&end).expect("the client goes on as it likes");
        assert_eq!((server.events(), server.sent()), (vec![], vec![(Kind::Credit, method_bytes, 0)]));
        assert_eq!((server.inbound.unfinished(), server.outbound.borrow().open_calls()), (0, 0));
    }
}

#[test]
fn an_abort_takes_back_the_answer_that_was_not_sent() {
    let mut server = Side::server();
    for id in 1..20 {
        server.feed(&call(id, "refused", 10, false)).expect("the client counts none as open");
        server.feed(&empty(Kind::Abort, id)).expect("it was not sent whole");
    }
    assert!(server.sent().is_empty() && server.events().is_empty());
}

#[test]
fn a_grant_that_was_meant_for_another_message_pays_for_none() {
    let budget = crate::memory::budget::Budget::new(1000);
    let charge = |bytes| Some(budget.try_charge(bytes).expect("there is room"));
    let mut client = Side::client(1, 0);
    client.feed(&result(1, 100, false)).expect("the call is open");
    client.feed(&empty(Kind::Abort, 1)).expect("a server may give up");
    assert_eq!(client.events(), ["wants 1 100", "withdrawn 1"]);
    client.feed(&result(1, 900, false)).expect("another answer follows");
    client.inbound.send_grant(1, charge(100), &client.outbound);
    assert!(client.sent().is_empty());
    client.inbound.send_grant(1, charge(900), &client.outbound);
    client.inbound.send_grant(1, None, &client.outbound);
    assert_eq!(client.sent(), [(Kind::Grant, 1, 0)], "once");
    assert_eq!(budget.used_bytes(), 900);
}

#[test]
fn payload_has_a_checksum_where_either_side_asks_for_it() {
    for (own, peers) in [(false, 0), (true, 0), (false, Hello::CHECKSUM), (true, Hello::CHECKSUM)] {
        let mut client = Side::new(Role::Client, Config { checksum: own, ..config() });
        client.feed(&introduction(peers | 1 << 63)).expect("unknown features are ignored");
        client.outbound.borrow_mut().send_call(call_message("m", 10), |_| true).expect("it is open");
        let is_checked = own || peers != 0;
        let flags = Header::EAGER | Header::INLINE | if is_checked { Header::CHECKED } else { 0 };
        assert_eq!(client.sent(), [(Kind::Call, 1, flags)]);
        client.outbound.borrow_mut().send_call(call_message("m", 2000), |_| true).expect("it is open");
        assert_eq!(client.sent(), [(Kind::Call, 2, 0)], "past the credit");
        client.feed(&ids(Kind::Grant, &[2])).expect("it waits");
        assert_eq!(client.sent(), [(Kind::Data, 2, if is_checked { Header::CHECKSUM } else { 0 })]);
        // Payload without a checksum is accepted all the same.
        client.feed(&[result(1, 4, true), data(1, 4)].concat()).expect("it is legal");
        let hello = Config { checksum: own, ..config() }.hello(Role::Client);
        assert_eq!(hello.features, if own { Hello::CHECKSUM } else { 0 });
    }
}

#[test]
fn calls_of_too_much_structure_are_refused_one_by_one() {
    let config = Config { max_structure_bytes: 300 << 10, ..config() };
    let mut server = Side::new(Role::Server, config);
    server.feed(&introduction(0)).expect("a plain hello");
    let nulls = |id| {
        let tree = Tree::List(vec![Tree::Null; 2000]);
        head(id, &Message::call(&CallHead::new("m"), &tree, &Limits::default()).expect("it fits"), false)
    };
    for id in 1..=2 {
        server.feed(&nulls(id)).expect("it is legal");
    }
    assert_eq!(server.events(), ["open", "call 1"]);
    assert_eq!(server.sent(), [(Kind::Error, 2, 0)]);
    server.feed(&call(3, "m", 1, false)).expect("small ones still fit");
    assert_eq!(server.events(), ["wants 3 1"]);
    server.outbound.borrow_mut().send_answer(1, Message::error(&remote())).expect("it is open");
    server.feed(&nulls(4)).expect("it is legal");
    assert_eq!(server.events(), ["call 4"]);
}

#[test]
fn a_side_sends_nothing_after_its_own_goodbye() {
    let mut client = Side::client(0, 0);
    client.outbound.borrow_mut().send_goodbye(None, "enough");
    assert_eq!(client.sent(), [(Kind::Goodbye, 0, 0)]);
    client.feed(&empty(Kind::Ping, 1)).expect("the server has not read it yet");
    for _ in 0..2 {
        assert!(client.sent().is_empty());
        client.outbound.borrow_mut().poll_write(&mut WriteBuffer::default());
        assert!(client.outbound.borrow().is_finished());
        let refused = client.outbound.borrow_mut().send_call(call_message("m", 0), |_| true);
        assert_eq!(refused, Err(SendError::Closed));
    }
}
