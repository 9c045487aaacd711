//! The rules of calls that survive their connection.

use std::collections::BTreeMap;

use teleport_wire::{CallAnswer, CallState, Resume, ResumeAnswer};

use super::*;

const SESSION: Id128 = Id128([7; 16]);

/// Creates a side that can resume calls, with a peer that can too.
fn side(role: Role) -> Side {
    let own = if role == Role::Client { SESSION } else { Id128::NONE };
    let peers = if role == Role::Client { Id128::NONE } else { SESSION };
    let mut side = Side::new(role, Config { resume: true, session: own, ..config() });
    side.feed(&introduction_of(Hello::RESUME, peers)).expect("a plain hello");
    side.events.clear();
    side
}

fn resume(calls: &[(u64, CallState)]) -> Vec<u8> {
    let resume = Resume { server: Id128([1; 16]), calls: calls.to_vec() };
    encode_frame(Kind::Resume, 0, &resume.encode())
}

fn answer(calls: &[(u64, CallAnswer)]) -> Vec<u8> {
    encode_frame(Kind::ResumeAnswer, 0, &ResumeAnswer { calls: calls.to_vec() }.encode())
}

fn resumable_call(id: u64) -> Vec<u8> {
    let head_of = CallHead { resume: true, ..CallHead::new("m") };
    let message = Message::call(&head_of, &Tree::Null, &Limits::default()).expect("it is small");
    head(id, &message, false)
}

/// Creates a client that asked for calls 3 (sent), 5 (sent in part) and 6 (not sent). Its next call is
/// 7.
fn asking_client() -> Side {
    let client = side(Role::Client);
    let calls = vec![(3, CallState::Sent), (5, CallState::Part), (6, CallState::Unsent)];
    let mut outbound = client.outbound.borrow_mut();
    outbound.send_resume(&Resume { server: Id128([1; 16]), calls }).expect("nothing was sent yet");
    outbound.number_after(6);
    drop(outbound);
    client
}

#[test]
fn resuming_is_refused_unless_both_sides_can() {
    let plain = || {
        let mut side = Side::new(Role::Server, Config { resume: true, ..config() });
        side.feed(&introduction(Hello::RESUME)).expect("a plain hello");
        side
    };
    let text = "Resume is not allowed here: this is the Server and the hellos agreed on no such thing";
    check(plain(), &[resume(&[])], text); // the client has no session
    check(Side::server(), &[resume(&[])], text);
    let text = "Ack is not allowed here: this is the Server and the hellos agreed on no such thing";
    check(Side::server(), &[call(1, "m", 0, false), ids(Kind::Ack, &[1])], text);
}

#[test]
fn a_resume_stands_before_all_calls_and_calls_wait_for_its_answer() {
    let turn = "a resume stands before all calls, which wait for its answer of the same ids";
    let text = format!("Resume came out of turn: {turn}");
    check(side(Role::Server), &[call(1, "m", 0, false), resume(&[])], &text);
    check(side(Role::Server), &[resume(&[]), resume(&[])], &text);
    check(
        side(Role::Server),
        &[resume(&[]), call(1, "m", 0, false)],
        &format!("Call came out of turn: {turn}"),
    );
    let text = format!("ResumeAnswer came out of turn: {turn}");
    check(side(Role::Client), &[answer(&[])], &text);
    check(asking_client(), &[answer(&[(3, CallAnswer::Done)])], &text);
}

#[test]
fn a_server_answers_on_the_new_connection_what_it_has() {
    let mut server = side(Role::Server);
    let asked = [(3, CallState::Sent), (5, CallState::Part), (8, CallState::Acknowledged)];
    server.feed(&resume(&asked)).expect("it comes first");
    assert_eq!(server.events(), ["resume [(3, Sent), (5, Part), (8, Acknowledged)]"]);
    let answers = vec![(3, CallAnswer::Done), (5, CallAnswer::Missing), (8, CallAnswer::Running)];
    let mut outbound = server.outbound.borrow_mut();
    assert_eq!(outbound.send_resume_answer(vec![(3, CallAnswer::Done)]), Err(SendError::NotReady));
    outbound.send_resume_answer(answers).expect("the same ids");
    outbound
        .send_answer(3, Message::error(&RemoteError::new(ErrorKind::Failed, Ran::Yes, "why")))
        .expect("it is open");
    drop(outbound);
    assert_eq!(server.sent(), [(Kind::ResumeAnswer, 0, 0), (Kind::Error, 3, 0)]);
    // A cancel may cross the answer. The missing call is sent again, and new ones follow it.
    server.feed(&empty(Kind::Cancel, 8)).expect("it runs");
    for id in [5, 9] {
        server.feed(&resumable_call(id)).expect("its turn has come");
    }
    assert_eq!(server.events(), ["cancel 8", "call 5", "call 9"]);
    let error = server.feed(&resumable_call(8)).expect_err("it is open already");
    assert!(matches!(error, ProtocolError::ReusedId { id: 8, .. }));
}

#[test]
fn a_client_takes_the_answers_of_what_the_server_has() {
    let mut client = asking_client();
    assert_eq!(
        client.outbound.borrow_mut().send_call(call_message("m", 0), |_| true),
        Err(SendError::NotReady)
    );
    assert_eq!(client.sent(), [(Kind::Resume, 0, 0)]);
    let answers = [(3, CallAnswer::Running), (5, CallAnswer::Missing), (6, CallAnswer::Missing)];
    client.feed(&answer(&answers)).expect("the ids fit");
    let mut outbound = client.outbound.borrow_mut();
    assert_eq!(outbound.call_states(), [(3, CallState::Acknowledged)]);
    outbound.send_call_again(5, call_message("m", 0)).expect("it is missing");
    outbound.send_call_again(6, call_message("m", 0)).expect("it is missing");
    assert_eq!(outbound.send_call(call_message("m", 0), |_| true), Ok(7));
    drop(outbound);
    assert_eq!(client.sent(), [(Kind::Call, 5, 0), (Kind::Call, 6, 0), (Kind::Call, 7, 0)]);
    client.feed(&[result(3, 0, false), error(6)].concat()).expect("both are open");
    assert_eq!(client.events()[1..], ["result 3", "error 6 failed"]);
}

#[test]
fn acknowledgements_say_what_arrived() {
    let mut server = side(Role::Server);
    server.feed(&resumable_call(4)).expect("a plain call");
    assert!(matches!(&server.events[..], [Event::Call(call)] if call.resume));
    server.outbound.borrow_mut().send_ack(4);
    assert_eq!(server.sent(), [(Kind::Ack, 0, 0)]);
    server.feed(&ids(Kind::Ack, &[4])).expect("it is known");
    assert_eq!(server.events()[1..], ["acknowledged [4]"]);
    check(server, &[ids(Kind::Ack, &[5])], "Ack names message 5, which is not open");

    let mut client = side(Role::Client);
    for bytes in [0, 100_000] {
        client.outbound.borrow_mut().send_call(call_message("m", bytes), |_| true).expect("few are open");
    }
    let states =
        |client: &Side| client.outbound.borrow().call_states().into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(states(&client), [(1, CallState::Unsent), (2, CallState::Unsent)].into());
    client.sent();
    client.feed(&ids(Kind::Ack, &[1, 2])).expect("both are known");
    // The second call was not sent in full, so an acknowledgement of it does not count.
    assert_eq!(states(&client), [(1, CallState::Acknowledged), (2, CallState::Part)].into());
}

#[test]
fn a_client_acknowledges_that_an_answer_has_expired() {
    let mut server = side(Role::Server);
    server.feed(&resume(&[(3, CallState::Sent), (7, CallState::Sent)])).expect("it comes first");
    let answers = vec![(3, CallAnswer::Done), (7, CallAnswer::Expired)];
    server.outbound.borrow_mut().send_resume_answer(answers).expect("the same ids");
    server.feed(&ids(Kind::Ack, &[7])).expect("the server has just named it");
    check(server, &[ids(Kind::Ack, &[8])], "Ack names message 8, which is not open");
}
