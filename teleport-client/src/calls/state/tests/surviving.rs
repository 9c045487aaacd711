//! Calls that survive their connection.

use super::*;
use crate::calls::resume::Resumed;
use teleport_transport::wire::CallAnswer;

impl Fixture {
    /// Sends a call that survives.
    fn send_surviving(&mut self, connection: usize, id: u64, is_idempotent: bool) {
        self.send_with(connection, id, None, Request::surviving(is_idempotent));
    }

    /// Opens the next connection. Returns the calls that it asks the server for.
    fn begin(&mut self, key: usize) -> Vec<(u64, CallState)> {
        match self.state.begin(connection(key, 100), self.now) {
            Opening::Resume(resume) => resume.calls,
            other => panic!("{other:?}"),
        }
    }

    fn resume(&mut self, connection: usize, answers: &[(u64, CallAnswer)]) -> Vec<(u64, Resumed)> {
        self.try_resume(connection, answers).expect("it was asked")
    }

    fn try_resume(
        &mut self,
        connection: usize,
        answers: &[(u64, CallAnswer)],
    ) -> Option<Vec<(u64, Resumed)>> {
        let Fixture { state, wakers, released, .. } = self;
        Some(state.resumed(connection, answers, wakers, released)?.1)
    }

    /// Returns true if the call was sent on the current connection, and keeps its arguments.
    fn is_sent_with_arguments(&mut self, id: u64) -> Option<bool> {
        self.state.table.sent_mut(id).map(|call| call.arguments.is_some())
    }
}

#[test]
fn each_call_goes_on_as_the_server_says() {
    let mut x = Fixture::connected(10, 100);
    (1..=5).for_each(|id| x.send_surviving(1, id, false));
    x.send(1, 6, None);
    let states = [(3, CallState::Part), (4, CallState::Acknowledged), (5, CallState::Unsent)];
    assert_eq!(x.lose(1, &states), Some(1));
    assert!(matches!(x.outcome(6), Some(CallError::Disconnected { ran: Ran::Maybe, .. })));
    assert_eq!(x.state.in_flight(), 5, "those that survive keep their slots");
    let sent = CallState::Sent;
    assert_eq!(
        x.begin(2),
        [(1, sent), (2, sent), (3, CallState::Part), (4, CallState::Acknowledged), (5, CallState::Unsent)]
    );
    assert_eq!(x.state.table.last_id(), 6);
    // New calls wait until earlier ones have gone on.
    let waiter = x.wait(None);
    let (done, running, missing, expired) =
        (CallAnswer::Done, CallAnswer::Running, CallAnswer::Missing, CallAnswer::Expired);
    let resumed = x.resume(2, &[(1, done), (2, running), (3, missing), (4, expired), (5, missing)]);
    assert_eq!(resumed, [(3, Resumed::Again), (4, Resumed::Expired), (5, Resumed::Again)]);
    let sent = [1, 2, 3, 5].map(|id| x.is_sent_with_arguments(id));
    assert_eq!(sent, [Some(false), Some(false), Some(true), Some(true)], "the server has the first two");
    let Some(CallError::Remote(failure)) = x.outcome(4) else { panic!("it has expired") };
    assert_eq!((failure.kind(), failure.ran()), (ErrorKind::Expired, Ran::Yes));
    assert!(x.polled(waiter).is_none());
    x.open(2, 100);
    assert!(x.has_been_admitted(waiter));
    assert!(x.answer(2, 2), "the server keeps its answer");
    assert!(x.is_answered(2));
}

#[test]
fn a_server_without_the_session_gets_only_idempotent_calls_and_those_that_never_left() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, true);
    x.send_surviving(1, 2, false);
    x.send_surviving(1, 3, false);
    x.lose(1, &[(3, CallState::Unsent)]);
    assert_eq!(x.begin(2).len(), 3);
    let unknown = CallAnswer::UnknownSession;
    let resumed = x.resume(2, &[(1, unknown), (2, unknown), (3, unknown)]);
    assert_eq!(resumed, [(1, Resumed::Anew), (3, Resumed::Anew)]);
    assert!(matches!(x.outcome(2), Some(CallError::Disconnected { ran: Ran::Maybe, .. })));
    assert_eq!(x.state.in_flight(), 2, "a call that is sent again keeps its slot");
    assert!(x.state.table.move_to(1, 4) && x.state.table.move_to(3, 5));
    x.open(2, 100);
    assert_eq!((x.state.in_flight(), x.state.table.last_id()), (2, 5));
    // Their futures know them by their first ids.
    assert!(x.answer(2, 5) && !x.answer(2, 3));
    assert!(x.outcome(1).is_none() && x.is_answered(3) && x.outcome(3).is_none());
    let id = x.state.table.current_id(1);
    assert_eq!((id, x.give_up(id, Withdrawn::NeverSent)), (4, Some(Ran::No)));
    assert!(matches!(x.state.table.release(1), Left { outcome: Some(Err(_)), deferred: None, .. }));
    assert_eq!((x.state.in_flight(), x.state.table.futures(), x.state.table.current_id(1)), (0, 0, 1));
}

#[test]
fn a_call_that_moves_twice_keeps_its_future() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, true);
    let (mut server, mut id) = (1, 1);
    for new_id in [2, 3] {
        x.lose(server, &[]);
        server += 1;
        assert_eq!(x.begin(server), [(id, CallState::Sent)]);
        assert_eq!(x.resume(server, &[(id, CallAnswer::UnknownSession)]), [(id, Resumed::Anew)]);
        assert!(x.state.table.move_to(id, new_id));
        assert!(!x.state.table.move_to(id, new_id), "it is there already");
        x.open(server, 100);
        id = new_id;
    }
    assert!(x.answer(server, 3));
    assert!(x.is_answered(1));
}

#[test]
fn a_connection_that_breaks_before_it_answered_loses_nothing() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, false);
    x.send_surviving(1, 2, false);
    x.lose(1, &[(2, CallState::Part)]);
    let asked = x.begin(2);
    assert_eq!(x.lose(2, &[]), Some(0));
    assert_eq!(x.begin(3), asked);
    // One call was sent again, and that connection breaks too.
    let answers = [(1, CallAnswer::Running), (2, CallAnswer::Missing)];
    assert_eq!(x.resume(3, &answers), [(2, Resumed::Again)]);
    assert!(x.try_resume(2, &answers).is_none(), "that one is over");
    x.open(3, 100);
    x.lose(3, &[(1, CallState::Acknowledged), (2, CallState::Sent)]);
    assert_eq!(x.begin(4), [(1, CallState::Acknowledged), (2, CallState::Sent)]);
}

#[test]
fn a_call_can_be_given_up_at_any_moment() {
    let mut x = Fixture::connected(10, 100);
    (1..=4).for_each(|id| x.send_surviving(1, id, false));
    assert_eq!(x.give_up(1, Withdrawn::Requested), Some(Ran::Maybe));
    assert!(x.answer(1, 1), "its answer is kept until it is acknowledged");
    x.lose(1, &[(2, CallState::Unsent)]);
    assert_eq!(x.give_up(2, Withdrawn::NotOpen), Some(Ran::No));
    assert_eq!(x.begin(2).len(), 2);
    assert_eq!(x.give_up(3, Withdrawn::NotOpen), Some(Ran::Maybe));
    let resumed = x.resume(2, &[(3, CallAnswer::Running), (4, CallAnswer::Done)]);
    assert_eq!(resumed, [(3, Resumed::Unwanted)]);
    x.open(2, 100);
    assert!(x.answer(2, 3) && x.answer(2, 4));
    assert!(x.is_answered(4));
    for id in 1..=3 {
        assert!(matches!(x.outcome(id), Some(CallError::Cancelled { .. })));
    }
    assert_eq!((x.state.in_flight(), x.state.table.open_at_server()), (0, 0));
}

#[test]
fn a_call_that_was_given_up_and_forgotten_is_withdrawn_from_the_next_connection() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, false);
    x.lose(1, &[]);
    assert_eq!(x.begin(2).len(), 1);
    assert_eq!(x.give_up(1, Withdrawn::NotOpen), Some(Ran::Maybe));
    assert!(x.outcome(1).is_some() && x.state.table.futures() == 0);
    assert_eq!(x.resume(2, &[(1, CallAnswer::Running)]), [(1, Resumed::Unwanted)]);
    assert_eq!((x.state.in_flight(), x.state.table.open_at_server()), (0, 1));
    x.open(2, 100);
    assert!(x.answer(2, 1), "its answer is kept until it is acknowledged");
    assert_eq!(x.state.table.open_at_server(), 0);
}

#[test]
fn a_withdrawal_from_an_earlier_connection_does_not_count_on_the_next_one() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, false);
    let error = |call: &PendingCall, ran| Some(CallError::Cancelled { method: call.method.clone(), ran });
    let Fixture { state, wakers, released, .. } = &mut x;
    assert!(matches!(state.give_up(1, None, error, wakers, released), GivenUp::Withdraw(_)));
    // Meanwhile the call goes on on another connection.
    x.lose(1, &[]);
    x.begin(2);
    x.resume(2, &[(1, CallAnswer::Running)]);
    let Fixture { state, wakers, released, .. } = &mut x;
    let withdrawn = Some((1, Withdrawn::NeverSent));
    let given_up = state.give_up(1, withdrawn, error, wakers, released);
    assert!(matches!(given_up, GivenUp::Withdraw(connection) if connection.key == 2));
}

#[test]
fn calls_in_doubt_wait_only_until_their_time_is_over() {
    let mut x = Fixture::connected(10, 100);
    x.send_with(1, 1, Some(10 * MS), Request::surviving(false));
    x.send_surviving(1, 2, false);
    x.lose(1, &[(1, CallState::Unsent)]);
    assert_eq!(x.state.next_expiry(), Some(x.now + 10 * MS));
    assert_eq!(x.expire(x.now + 10 * MS, Withdrawn::NotOpen), [1]);
    assert!(matches!(x.outcome(1), Some(CallError::Deadline { ran: Ran::No, .. })));
    assert_eq!(x.state.next_expiry(), Some(x.now + 1000 * MS), "the client's connect_timeout");
    assert_eq!(x.expire(x.now + 1000 * MS, Withdrawn::NotOpen), [2]);
    assert!(matches!(x.outcome(2), Some(CallError::Disconnected { ran: Ran::Maybe, .. })));
    assert_eq!(x.state.in_flight(), 0);
}

#[test]
fn a_closing_client_still_waits_for_surviving_calls() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, false);
    x.state.begin_close(&mut x.wakers);
    x.lose(1, &[]);
    assert!(x.state.needs_dial() && x.state.in_flight() > 0);
    assert_eq!(x.begin(2).len(), 1);
    x.resume(2, &[(1, CallAnswer::Done)]);
    x.open(2, 100);
    assert!(x.answer(2, 1) && x.is_answered(1));
    assert!(x.state.in_flight() == 0 && !x.state.wants_connection());
}

#[test]
fn a_call_that_a_closing_server_did_not_start_waits_for_the_next_server() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, false);
    assert!(x.state.put_off(1, 1, Closed::Here, x.now));
    assert_eq!(x.state.in_flight(), 1);
    x.lose(1, &[]);
    assert_eq!(x.begin(2), [(1, CallState::Unsent)]);
    assert_eq!(x.resume(2, &[(1, CallAnswer::UnknownSession)]), [(1, Resumed::Anew)]);
}

#[test]
fn a_connection_that_ends_while_calls_go_on_does_not_count_as_open() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, true);
    x.send_surviving(1, 2, true);
    x.lose(1, &[]);
    x.begin(2);
    let resumed = x.resume(2, &[(1, CallAnswer::UnknownSession), (2, CallAnswer::Missing)]);
    assert_eq!(resumed, [(1, Resumed::Anew), (2, Resumed::Again)]);
    // A call that was about to be sent on this connection waits for the next one, and so does one that
    // was sent.
    assert_eq!(x.lose(2, &[]), Some(0));
    x.state.opened(2, x.now);
    assert!(x.state.connection.open().is_none() && x.state.needs_dial());
    assert_eq!(x.begin(3), [(1, CallState::Sent), (2, CallState::Sent)]);
    assert_eq!(x.state.in_flight(), 2);
}
