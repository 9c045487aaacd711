//! Slots, the line for them, time, and calls that survive, without sockets and clocks.

mod surviving;

use std::task::{Context, Poll, Waker};

use super::*;
use crate::calls::resume::Opening;
use crate::calls::table::{Asked, Left};
use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallState, ErrorKind, Id128, Limits, RemoteError};

const MS: Duration = Duration::from_millis(1);

struct Fixture {
    state: ClientState<()>,
    wakers: Wakers,
    released: Released,
    now: Instant,
}

impl Fixture {
    fn new(max_inflight: usize) -> Fixture {
        let now = Instant::now();
        let state = ClientState::new(max_inflight, Some(1000 * MS), "tcp://here:1".into(), false, now);
        Fixture { state, wakers: Wakers::default(), released: Released::new(), now }
    }

    fn connected(max_inflight: usize, max_open_calls: usize) -> Fixture {
        let mut fixture = Fixture::new(max_inflight);
        fixture.open(1, max_open_calls);
        fixture
    }

    /// Opens a connection, or lets new calls go out on one that is resuming.
    fn open(&mut self, key: usize, max_open_calls: usize) {
        if self.state.connection.is_resuming() {
            self.state.opened(key, self.now);
        } else {
            assert!(matches!(self.state.begin(connection(key, max_open_calls), self.now), Opening::Open));
        }
        self.state.admit(&mut self.wakers);
    }

    fn acquire(&mut self, ticket: &mut Option<u64>, time: Option<Duration>) -> Acquired {
        let deadline = time.and_then(|time| Deadline::after(time, self.now));
        let cx = Context::from_waker(Waker::noop());
        self.state.acquire(ticket, &"act".into(), deadline, || self.now, &cx).unwrap()
    }

    fn has_slot(&mut self) -> bool {
        self.acquire(&mut None, None) == Acquired::Slot
    }

    /// Joins the line. Returns the ticket.
    fn wait(&mut self, time: Option<Duration>) -> u64 {
        let mut ticket = None;
        assert!(matches!(self.acquire(&mut ticket, time), Acquired::Place(_)));
        ticket.expect("it stands in the line")
    }

    /// Returns the slot or error of a waiter that has left the line.
    fn polled(&mut self, ticket: u64) -> Option<Result<(), CallError>> {
        match self.state.slots.poll(ticket, &Context::from_waker(Waker::noop())) {
            Poll::Ready(settled) => Some(settled),
            Poll::Pending => None,
        }
    }

    fn has_been_admitted(&mut self, ticket: u64) -> bool {
        matches!(self.polled(ticket), Some(Ok(())))
    }

    /// Sends a call with a free slot.
    fn send(&mut self, connection: usize, id: u64, time: Option<Duration>) {
        self.send_with(connection, id, time, Request::plain());
    }

    fn send_with(&mut self, connection: usize, id: u64, time: Option<Duration>, mut request: Request) {
        request.deadline = time.and_then(|time| Deadline::after(time, self.now));
        let sent = self.state.register(connection, id, &mut request, false);
        assert!(sent.is_ok(), "{sent:?}");
    }

    /// The connection breaks. `states` lists the calls that had not been sent whole.
    fn lose(&mut self, connection: usize, states: &[(u64, CallState)]) -> Option<usize> {
        let reason = Arc::new(Closed::Lost { error: None });
        let Fixture { state, wakers, released, now } = self;
        state.lost(connection, &reason, states, *now, wakers, released)
    }

    /// Answers a call with an error. Returns true if the server keeps it until it is acknowledged.
    fn answer(&mut self, connection: usize, id: u64) -> bool {
        let answer = Err(RemoteError::new(ErrorKind::Failed, Ran::Yes, "answered"));
        let is_kept =
            self.state.answered(connection, id, &mut Some(answer), &mut self.wakers, &mut self.released);
        self.state.admit(&mut self.wakers);
        is_kept
    }

    /// The outcome of a call, taken by its future.
    fn outcome(&mut self, id: u64) -> Option<CallError> {
        let mut outcome = None;
        self.state.table.take(id, None, &mut outcome);
        outcome.map(|outcome| outcome.expect_err("the tests answer with errors"))
    }

    fn is_answered(&mut self, id: u64) -> bool {
        matches!(self.outcome(id), Some(CallError::Remote(_)))
    }

    /// Gives up a call that its connection withdraws so.
    fn give_up(&mut self, id: u64, how: Withdrawn) -> Option<Ran> {
        let error = |call: &PendingCall, ran| Some(CallError::Cancelled { method: call.method.clone(), ran });
        self.give_up_with(id, how, error)
    }

    fn give_up_with(
        &mut self,
        id: u64,
        how: Withdrawn,
        error: impl Fn(&PendingCall, Ran) -> Option<CallError>,
    ) -> Option<Ran> {
        let mut withdrawn = None;
        loop {
            let Fixture { state, wakers, released, .. } = self;
            match state.give_up(id, withdrawn, &error, wakers, released) {
                GivenUp::Ended => return None,
                GivenUp::Done(ran) => return Some(ran),
                GivenUp::Withdraw(connection) => withdrawn = Some((connection.key, how)),
            }
        }
    }

    /// Lets the time pass until `now`. The connections withdraw expired calls so.
    fn expire(&mut self, now: Instant, how: Withdrawn) -> Vec<u64> {
        let overdue = self.state.expire(now, &mut self.wakers);
        for id in &overdue {
            self.give_up_with(*id, how, |call, ran| expiry_error(call, ran, now));
        }
        overdue
    }
}

fn connection(key: usize, max_open_calls: usize) -> OpenConnection<()> {
    let (limits, server) = (Limits::default(), Id128([key as u8; 16]));
    OpenConnection { link: (), key, limits, max_open_calls, server }
}

#[test]
fn slots_go_to_the_first_in_line() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, None);
    x.send(1, 2, None);
    let (first, second) = (x.wait(None), x.wait(None));
    assert_eq!((x.state.in_flight(), x.state.slots.line().len()), (2, 2));
    x.answer(1, 2);
    assert!(x.is_answered(2));
    assert!(x.polled(second).is_none());
    assert!(x.has_been_admitted(first));
    // A newcomer does not overtake.
    let refused = x.state.register(1, 3, &mut Request::plain(), false);
    assert!(matches!(refused, Err(Refused::Full)));
    let third = x.wait(None);
    x.state.give_back(&mut x.wakers);
    assert!(x.has_been_admitted(second) && x.polled(third).is_none());
    // A call that leaves makes room for the next one, whether it waited or had a slot that it never took.
    x.state.leave(third, &mut x.wakers);
    let (fourth, fifth) = (x.wait(None), x.wait(None));
    x.state.give_back(&mut x.wakers);
    x.state.leave(fourth, &mut x.wakers);
    assert!(x.has_been_admitted(fifth));
    assert_eq!((x.state.in_flight(), x.state.slots.line().len()), (2, 0));
    assert!(x.state.register(1, 3, &mut Request::plain(), true).is_ok());
    assert_eq!((x.state.in_flight(), x.state.slots.given), (2, 0));
}

#[test]
fn the_server_may_allow_fewer() {
    let mut x = Fixture::connected(16, 2);
    assert!(x.has_slot() && x.has_slot());
    assert!(!x.has_slot());
    assert!(matches!(x.state.register(1, 1, &mut Request::plain(), false), Err(Refused::Full)));
    let error = x.state.no_slot(&"act".into());
    assert!(matches!(error, CallError::Full { max_inflight: 2, .. }));
}

#[test]
fn a_withdrawn_call_frees_its_slot_but_stays_open_at_the_server() {
    let mut x = Fixture::connected(1, 2);
    x.send(1, 1, None);
    assert_eq!(x.give_up(1, Withdrawn::Requested), Some(Ran::Maybe));
    assert_eq!(x.give_up(1, Withdrawn::Requested), None);
    assert_eq!(x.state.in_flight(), 0);
    x.send(1, 2, None);
    assert_eq!(x.give_up(2, Withdrawn::NotOpen), Some(Ran::Maybe));
    // Two calls are open at the server, which allows no more, though none counts here.
    let waiter = x.wait(None);
    x.answer(1, 1);
    assert!(matches!(x.outcome(1), Some(CallError::Cancelled { ran: Ran::Maybe, .. })));
    assert!(x.has_been_admitted(waiter));
    for _ in 0..2 {
        x.state.forget(1, 2, &mut x.wakers, &mut x.released);
    }
    assert_eq!(x.state.in_flight(), 1);
    // A call of which nothing was sent gets no answer.
    assert!(x.state.register(1, 3, &mut Request::plain(), true).is_ok());
    assert_eq!(x.give_up(3, Withdrawn::NeverSent), Some(Ran::No));
    assert_eq!((x.state.in_flight(), x.state.table.open_at_server()), (0, 0));
    assert!(x.released.outcomes.is_empty(), "their futures have not read the outcomes");
}

#[test]
fn a_lost_connection_fails_what_was_sent_and_keeps_what_waits() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, None);
    x.send(1, 2, None);
    let waiter = x.wait(None);
    assert!(x.lose(7, &[]).is_none());
    assert!(!x.state.needs_dial());
    assert_eq!(x.lose(1, &[(2, CallState::Unsent)]), Some(2));
    assert!(matches!(x.outcome(1), Some(CallError::Disconnected { ran: Ran::Maybe, .. })));
    assert!(matches!(x.outcome(2), Some(CallError::Disconnected { ran: Ran::No, .. })));
    assert!(x.state.needs_dial() && !x.state.needs_dial());
    assert!(x.lose(1, &[]).is_none());
    assert!(matches!(x.state.no_slot(&"act".into()), CallError::Connect { .. }));
    assert!(!x.answer(1, 1));
    x.open(2, 100);
    assert!(x.has_been_admitted(waiter));
    // A call that took long to encode learns that its first connection is over.
    assert!(matches!(x.state.register(1, 2, &mut Request::plain(), true), Err(Refused::Stale)));
    x.state.give_back(&mut x.wakers);
    assert_eq!(x.state.in_flight(), 0);
}

#[test]
fn time_ends_calls_in_line_and_in_flight() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, Some(30 * MS));
    x.send(1, 2, None);
    let (soon, later, never) = (x.wait(Some(10 * MS)), x.wait(Some(50 * MS)), x.wait(None));
    assert_eq!(x.state.next_expiry(), Some(x.now + 10 * MS));
    assert!(x.expire(x.now + 10 * MS, Withdrawn::Requested).is_empty());
    assert!(matches!(x.polled(soon), Some(Err(CallError::Deadline { ran: Ran::No, .. }))));
    assert_eq!(x.state.next_expiry(), Some(x.now + 30 * MS));
    assert_eq!(x.state.next_expiry_after(x.now + 30 * MS), Some(x.now + 50 * MS));
    assert_eq!(x.expire(x.now + 30 * MS, Withdrawn::Requested), [1]);
    assert!(matches!(x.outcome(1), Some(CallError::Deadline { ran: Ran::Maybe, .. })));
    // The slot of the call whose time was over is free.
    assert!(x.has_been_admitted(later) && x.polled(never).is_none());
    assert_eq!(x.state.next_expiry(), None);
}

#[test]
fn a_call_that_ends_while_it_expires_keeps_its_result() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, Some(10 * MS));
    assert_eq!(x.state.expire(x.now + 10 * MS, &mut x.wakers), [1]);
    x.answer(1, 1);
    let late = x.now + 10 * MS;
    assert_eq!(x.give_up_with(1, Withdrawn::NotOpen, |call, ran| expiry_error(call, ran, late)), None);
    assert!(x.is_answered(1));
}

#[test]
fn an_answer_to_the_withdrawal_of_an_expired_call_tells_of_its_deadline() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, Some(10 * MS));
    let (late, Fixture { state, wakers, released, .. }) = (x.now + 10 * MS, &mut x);
    let error = |call: &PendingCall, ran| expiry_error(call, ran, late);
    let given_up = state.give_up(1, None, error, wakers, released);
    let GivenUp::Withdraw(connection) = given_up else { panic!("it was sent") };
    // The server answers before the call is given up.
    let cancelled = RemoteError::new(ErrorKind::Cancelled, Ran::No, "the caller withdrew the call");
    state.answered(connection.key, 1, &mut Some(Err(cancelled)), wakers, released);
    assert!(matches!(x.outcome(1), Some(CallError::Deadline { ran: Ran::No, time: Some(_), .. })));
}

#[test]
fn calls_wait_for_a_connection_only_until_their_time_is_over() {
    let mut x = Fixture::new(4);
    let (waiter, hurried) = (x.wait(None), x.wait(Some(10 * MS)));
    assert_eq!(x.state.next_expiry(), Some(x.now + 10 * MS));
    x.state.expire(x.now + 1000 * MS, &mut x.wakers);
    assert!(matches!(x.polled(hurried), Some(Err(CallError::Deadline { .. }))));
    let Some(Err(CallError::Connect { waited, .. })) = x.polled(waiter) else { panic!("it waits on") };
    assert_eq!(waited, 1000 * MS);
    // The time counts from when the connection was lost, not from when the call began to wait for a slot.
    x.open(1, 100);
    (1..=4).for_each(|id| x.send(1, id, None));
    let patient = x.wait(None);
    assert_eq!(x.state.next_expiry(), None);
    x.now += 5000 * MS;
    assert!(x.lose(1, &[]).is_some());
    assert_eq!(x.state.next_expiry(), Some(x.now + 1000 * MS));
    assert!(x.polled(patient).is_none());
}

#[test]
fn closing_refuses_what_was_not_sent() {
    let mut x = Fixture::connected(1, 100);
    x.send(1, 1, None);
    let waiter = x.wait(None);
    x.state.begin_close(&mut x.wakers);
    assert!(matches!(x.polled(waiter), Some(Err(CallError::Closed { ran: Ran::No, .. }))));
    let cx = Context::from_waker(Waker::noop());
    assert!(x.state.acquire(&mut None, &"act".into(), None, || x.now, &cx).is_err());
    let refused = x.state.register(1, 2, &mut Request::plain(), false);
    let Err(Refused::Failed(error)) = refused else { panic!("{refused:?}") };
    assert!(matches!(*error, CallError::Closed { .. }));
    assert_eq!((x.state.in_flight(), x.state.table.in_flight_futures()), (1, 1));
    assert!(matches!(x.state.table.release(1), Left { outcome: None, deferred: None, .. }));
    assert_eq!((x.state.in_flight(), x.state.table.in_flight_futures()), (1, 0));
    let last = x.state.end(&mut x.wakers, &mut x.released);
    assert!(last.is_some() && x.state.connection.is_over() && x.state.in_flight() == 0);
    assert!(matches!(x.released.outcomes[..], [Err(CallError::Closed { ran: Ran::Maybe, .. })]));
    assert!(matches!(x.state.begin(connection(2, 1), x.now), Opening::TooLate) && !x.state.needs_dial());
}

#[test]
fn deferred_results_are_checked_when_a_later_call_is_waited_for_long() {
    let mut x = Fixture::connected(10, 100);
    (1..=4).for_each(|id| x.send(1, id, None));
    for id in [1, 4] {
        assert!(!x.state.pending(1, id).expect("it was sent").demand.accepts());
    }
    assert!(matches!(x.state.table.ask(3, None), Asked::Pending { deferred: None, .. }));
    assert!(x.state.table.ask_before_awaited().is_empty(), "it has not waited for long");
    assert_eq!(x.state.table.ask_before_awaited(), [1], "the result of the fourth call blocks nobody");
    assert!(x.state.table.ask_before_awaited().is_empty(), "it is fetched once");
}
