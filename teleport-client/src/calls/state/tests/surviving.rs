//! Calls that survive their connection.

use super::*;
use crate::calls::resume::Resumed;
use teleport_transport::wire::CallAnswer;

impl Fixture {
    /// Sends a call that survives.
    fn send_surviving(&mut self, connection: usize, id: u64, is_idempotent: bool) -> Arc<PendingCall> {
        self.send_with(connection, id, None, Request::surviving(is_idempotent))
    }

    /// Opens the next connection. Returns the calls that it asks the server for.
    fn begin(&mut self, key: usize) -> Vec<(u64, CallState)> {
        match self.state.begin(connection(key, 100), self.now) {
            Opening::Resume(resume) => resume.calls,
            other => panic!("{other:?}"),
        }
    }

    fn resume(&mut self, connection: usize, answers: &[(u64, CallAnswer)]) -> Vec<(u64, Resumed)> {
        self.state.resumed(connection, answers).expect("it was asked").1
    }
}

fn ids(calls: &[Arc<PendingCall>]) -> Vec<u64> {
    calls.iter().map(|call| call.id()).collect()
}

#[test]
fn each_call_goes_on_as_the_server_says() {
    let mut x = Fixture::connected(10, 100);
    let calls: Vec<_> = (1..=5).map(|id| x.send_surviving(1, id, false)).collect();
    let plain = x.send(1, 6, None);
    let states = [(3, CallState::Part), (4, CallState::Acknowledged), (5, CallState::Unsent)];
    let failed = x.lose(1, &states).expect("it was current");
    assert!(matches!(&failed[..], [(call, Ran::Maybe)] if Arc::ptr_eq(call, &plain)));
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
    let [
        (1, Resumed::Arrived(_)),
        (2, Resumed::Arrived(_)),
        (3, Resumed::Again(_)),
        (4, Resumed::Expired(Some(call))),
        (5, Resumed::Again(_)),
    ] = &resumed[..]
    else {
        panic!("{resumed:?}")
    };
    assert!(Arc::ptr_eq(call, &calls[3]));
    assert!(x.polled(waiter).is_none());
    x.open(2, 100);
    assert!(x.has_been_admitted(waiter));
    let (call, is_kept) = x.answer(2, 2);
    assert!(call.is_some_and(|call| Arc::ptr_eq(&call, &calls[1])) && is_kept);
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
    let [(1, Resumed::Anew(first)), (2, Resumed::Lost(lost)), (3, Resumed::Anew(third))] = &resumed[..]
    else {
        panic!("{resumed:?}")
    };
    assert!(matches!(lost.error(), CallError::Disconnected { ran: Ran::Maybe, .. }));
    assert_eq!(x.state.in_flight(), 2, "a call that is sent again keeps its slot");
    for (id, in_doubt) in (4..).zip([first, third]) {
        assert!(x.state.sent(2, id, &in_doubt.call));
    }
    x.open(2, 100);
    assert_eq!((x.state.in_flight(), x.state.table.last_id()), (2, 5));
}

#[test]
fn a_connection_that_breaks_before_it_answered_loses_nothing() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, false);
    x.send_surviving(1, 2, false);
    x.lose(1, &[(2, CallState::Part)]);
    let asked = x.begin(2);
    assert_eq!(x.lose(2, &[]).map(|failed| failed.len()), Some(0));
    assert_eq!(x.begin(3), asked);
    // One call was sent again, and that connection breaks too.
    let answers = [(1, CallAnswer::Running), (2, CallAnswer::Missing)];
    assert!(matches!(x.resume(3, &answers)[..], [(1, Resumed::Arrived(_)), (2, Resumed::Again(_))]));
    assert!(x.state.resumed(2, &answers).is_none(), "that one is over");
    x.open(3, 100);
    x.lose(3, &[(1, CallState::Acknowledged), (2, CallState::Sent)]);
    assert_eq!(x.begin(4), [(1, CallState::Acknowledged), (2, CallState::Sent)]);
}

#[test]
fn a_call_can_be_given_up_at_any_moment() {
    let mut x = Fixture::connected(10, 100);
    let calls: Vec<_> = (1..=4).map(|id| x.send_surviving(1, id, false)).collect();
    assert_eq!(ids(&calls), [1, 2, 3, 4]);
    assert!(matches!(x.withdraw(1), Some(GivenUp::Sent(1, _))));
    assert!(matches!(x.answer(1, 1), (None, true)), "its answer is kept until it is acknowledged");
    x.lose(1, &[(2, CallState::Unsent)]);
    assert!(matches!(x.withdraw(2), Some(GivenUp::InDoubt(in_doubt)) if in_doubt.ran() == Ran::No));
    assert_eq!(x.begin(2).len(), 2);
    assert!(matches!(x.withdraw(3), Some(GivenUp::InDoubt(in_doubt)) if in_doubt.ran() == Ran::Maybe));
    let resumed = x.resume(2, &[(3, CallAnswer::Running), (4, CallAnswer::Done)]);
    assert!(matches!(resumed[..], [(3, Resumed::Unwanted), (4, Resumed::Arrived(_))]));
    x.open(2, 100);
    assert!(matches!(x.answer(2, 3), (None, true)));
    assert!(matches!(x.answer(2, 4), (Some(_), true)));
    assert_eq!(x.state.in_flight(), 0);
}

#[test]
fn calls_in_doubt_wait_only_until_their_time_is_over() {
    let mut x = Fixture::connected(10, 100);
    let late = x.send_with(1, 1, Some(10 * MS), Request::surviving(false));
    let lost = x.send_surviving(1, 2, false);
    x.lose(1, &[(1, CallState::Unsent)]);
    assert_eq!(x.state.next_expiry(), Some(x.now + 10 * MS));
    let overdue = x.state.expire(x.now + 10 * MS, &mut x.wakers);
    let [GivenUp::InDoubt(in_doubt)] = &overdue[..] else { panic!("{overdue:?}") };
    assert!(Arc::ptr_eq(&in_doubt.call, &late) && in_doubt.ran() == Ran::No);
    assert_eq!(x.state.next_expiry(), Some(x.now + 1000 * MS), "the client's connect_timeout");
    let overdue = x.state.expire(x.now + 1000 * MS, &mut x.wakers);
    let [GivenUp::InDoubt(in_doubt)] = &overdue[..] else { panic!("{overdue:?}") };
    assert!(Arc::ptr_eq(&in_doubt.call, &lost) && in_doubt.ran() == Ran::Maybe);
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
    assert!(matches!(x.answer(2, 1), (Some(_), true)));
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
    assert!(matches!(x.resume(2, &[(1, CallAnswer::UnknownSession)])[..], [(1, Resumed::Anew(_))]));
}

#[test]
fn a_connection_that_ends_while_calls_go_on_does_not_count_as_open() {
    let mut x = Fixture::connected(10, 100);
    x.send_surviving(1, 1, true);
    x.send_surviving(1, 2, true);
    x.lose(1, &[]);
    x.begin(2);
    let mut resumed = x.resume(2, &[(1, CallAnswer::UnknownSession), (2, CallAnswer::Missing)]);
    assert!(x.lose(2, &[]).is_some_and(|failed| failed.is_empty()));
    // A call that was about to be sent on this connection waits for the next one, and so does one that
    // was sent.
    let Resumed::Anew(in_doubt) = resumed.remove(0).1 else { panic!("it may run twice") };
    assert!(x.state.hold_again(1, in_doubt).is_none());
    x.state.opened(2, x.now);
    assert!(x.state.connection.open().is_none() && x.state.needs_dial());
    assert_eq!(x.begin(3), [(1, CallState::Sent), (2, CallState::Sent)]);
    assert_eq!(x.state.in_flight(), 2);
}
