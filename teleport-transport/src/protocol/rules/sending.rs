//! The sending half without a peer that answers.

use super::*;

#[test]
fn results_that_a_client_does_not_fetch_are_calls_that_it_has_open() {
    let config = Config { max_open_calls: 40, ..Config::default() };
    let mut server = Side::new(Role::Server, config.clone());
    server.feed(&introduction(0)).expect("a plain hello");
    let large = Tree::Array(Array::from(vec![0u8; 300_000]));
    for id in 1..=40 {
        server.feed(&call(id, "m", 0, false)).expect("this number is allowed");
        let message = Message::result(&large, &Limits::default()).expect("it is within the limits");
        server.outbound.borrow_mut().send_answer(id, message).expect("it is open");
        // The head of the result is sent, but the payload is never granted.
        assert!(server.sent().contains(&(Kind::Result, id, 0)));
    }
    let overrun = server.outbound.borrow_mut().queue.on_call(1000, 0, &config);
    assert!(matches!(overrun, Err(ProtocolError::TooManyCalls { max_open_calls: 40 })), "{overrun:?}");
}

#[test]
fn a_call_that_was_queued_when_the_connection_ended_was_never_sent() {
    let client = Side::open(Role::Client);
    let mut outbound = client.outbound.borrow_mut();
    let id = outbound.send_call(call_message("m", 10), |_| true).expect("none is open");
    outbound.end();
    assert_eq!(outbound.withdraw(id), Withdrawn::NeverSent);
}

#[test]
fn a_refused_call_takes_no_id_and_sends_nothing() {
    let mut client = Side::open(Role::Client);
    client.sent();
    let outbound = client.outbound.get_mut();
    assert_eq!(outbound.send_call(call_message("m", 10), |id| id != 1), Err(SendError::Refused));
    assert!(!outbound.has_work() && outbound.open_calls() == 0);
    assert_eq!(outbound.send_call(call_message("m", 10), |id| id == 1), Ok(1));
}
