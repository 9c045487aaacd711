//! Slots, the line for them, time, and calls that survive, without sockets and clocks.

mod surviving;

use std::task::{Context, Poll, Waker};

use super::*;
use crate::calls::pending::{Asked, Request, Waiters};
use crate::calls::resume::Opening;
use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallState, Id128, Limits};

const MS: Duration = Duration::from_millis(1);

struct Fixture {
    state: ClientState<()>,
    wakers: Wakers,
    now: Instant,
}

impl Fixture {
    fn new(max_inflight: usize) -> Fixture {
        let now = Instant::now();
        let state = ClientState::new(max_inflight, Some(1000 * MS), "tcp://here:1".into(), now);
        Fixture { state, wakers: Wakers::default(), now }
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

    /// Takes a slot and sends a call with it.
    fn send(&mut self, connection: usize, id: u64, time: Option<Duration>) -> Arc<PendingCall> {
        self.send_with(connection, id, time, Request::plain())
    }

    fn send_with(
        &mut self,
        connection: usize,
        id: u64,
        time: Option<Duration>,
        request: Request,
    ) -> Arc<PendingCall> {
        assert!(self.has_slot());
        let deadline = time.and_then(|time| Deadline::after(time, self.now));
        let call = Arc::new(PendingCall::new(&request, deadline).with_id(id));
        assert!(self.state.sent(connection, id, &call));
        call
    }

    /// The connection breaks. `states` lists the calls that had not been sent whole.
    fn lose(
        &mut self,
        connection: usize,
        states: &[(u64, CallState)],
    ) -> Option<Vec<(Arc<PendingCall>, Ran)>> {
        let reason = Arc::new(Closed::Lost { error: None });
        self.state.lost(connection, &reason, &states.iter().copied().collect(), self.now)
    }

    fn answer(&mut self, connection: usize, id: u64) -> (Option<Arc<PendingCall>>, bool) {
        self.state.answered(connection, id, &mut self.wakers)
    }

    fn withdraw(&mut self, id: u64) -> Option<GivenUp> {
        self.state.withdraw(id, &mut self.wakers)
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
    assert!(x.answer(1, 2).0.is_some());
    assert!(x.polled(second).is_none());
    assert!(x.has_been_admitted(first));
    // A newcomer does not overtake.
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
}

#[test]
fn the_server_may_allow_fewer() {
    let mut x = Fixture::connected(16, 2);
    assert!(x.has_slot() && x.has_slot());
    assert!(!x.has_slot());
    let error = x.state.no_slot(&"act".into());
    assert!(matches!(error, CallError::Full { max_inflight: 2, .. }));
}

#[test]
fn a_withdrawn_call_frees_its_slot_but_stays_open_at_the_server() {
    let mut x = Fixture::connected(1, 2);
    x.send(1, 1, None);
    assert!(matches!(x.withdraw(1), Some(GivenUp::Sent(1, _))));
    assert!(x.withdraw(1).is_none());
    assert_eq!(x.state.in_flight(), 0);
    x.send(1, 2, None);
    assert!(matches!(x.withdraw(2), Some(GivenUp::Sent(2, _))));
    // Two calls are open at the server, which allows no more, though none counts here.
    let waiter = x.wait(None);
    assert!(x.answer(1, 1).0.is_none());
    assert!(x.has_been_admitted(waiter));
    x.state.forget(1, 2, &mut x.wakers);
    x.state.forget(1, 2, &mut x.wakers);
    assert_eq!(x.state.in_flight(), 1);
}

#[test]
fn a_lost_connection_fails_what_was_sent_and_keeps_what_waits() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, None);
    x.send(1, 2, None);
    let waiter = x.wait(None);
    assert!(x.lose(7, &[]).is_none());
    assert!(!x.state.needs_dial());
    let mut failed = x.lose(1, &[(2, CallState::Unsent)]).unwrap();
    failed.sort_by_key(|(call, _)| call.id());
    assert_eq!(failed.iter().map(|(_, ran)| *ran).collect::<Vec<_>>(), [Ran::Maybe, Ran::No]);
    assert!(x.state.needs_dial() && !x.state.needs_dial());
    assert!(x.lose(1, &[]).is_none());
    assert!(matches!(x.state.no_slot(&"act".into()), CallError::Connect { .. }));
    assert!(x.answer(1, 1).0.is_none());
    x.open(2, 100);
    assert!(x.has_been_admitted(waiter));
    // A call that took long to encode learns that its first connection is over.
    let call = Arc::new(PendingCall::new(&Request::plain(), None));
    assert!(!x.state.sent(1, 2, &call));
    x.state.give_back(&mut x.wakers);
    assert_eq!(x.state.in_flight(), 0);
}

#[test]
fn time_ends_calls_in_line_and_in_flight() {
    let mut x = Fixture::connected(2, 100);
    let call = x.send(1, 1, Some(30 * MS));
    x.send(1, 2, None);
    let (soon, later, never) = (x.wait(Some(10 * MS)), x.wait(Some(50 * MS)), x.wait(None));
    assert_eq!(x.state.next_expiry(), Some(x.now + 10 * MS));
    assert!(x.state.expire(x.now + 10 * MS, &mut x.wakers).is_empty());
    assert!(matches!(x.polled(soon), Some(Err(CallError::Deadline { ran: Ran::No, .. }))));
    assert_eq!(x.state.next_expiry(), Some(x.now + 30 * MS));
    let overdue = x.state.expire(x.now + 30 * MS, &mut x.wakers);
    assert!(matches!(&overdue[..], [GivenUp::Sent(1, late)] if Arc::ptr_eq(late, &call)));
    // The slot of the call whose time was over is free.
    assert!(x.has_been_admitted(later) && x.polled(never).is_none());
    assert_eq!(x.state.next_expiry(), None);
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
    (1..=4).for_each(|id| drop(x.send(1, id, None)));
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
    let call = x.send(1, 1, None);
    let waiter = x.wait(None);
    x.state.begin_close(&mut x.wakers);
    assert!(matches!(x.polled(waiter), Some(Err(CallError::Closed { ran: Ran::No, .. }))));
    let cx = Context::from_waker(Waker::noop());
    assert!(x.state.acquire(&mut None, &"act".into(), None, || x.now, &cx).is_err());
    assert_eq!((x.state.in_flight(), x.state.table.futures()), (1, 1));
    drop(call.release(&Waiters::default()));
    assert_eq!((x.state.in_flight(), x.state.table.futures()), (1, 0));
    let (last, calls) = x.state.end(&mut x.wakers);
    assert!(last.is_some() && calls.len() == 1 && x.state.connection.is_over() && x.state.in_flight() == 0);
    assert!(matches!(x.state.begin(connection(2, 1), x.now), Opening::TooLate) && !x.state.needs_dial());
}

#[test]
fn deferred_results_are_checked_when_a_later_call_is_waited_for_long() {
    let mut x = Fixture::connected(10, 100);
    let calls: Vec<_> = (1..=4).map(|id| x.send(1, id, None)).collect();
    assert!(!calls[0].accepts() && !calls[3].accepts());
    let blocking = |x: &Fixture| {
        x.state.table.deferred_before_awaited().iter().map(|call| call.id()).collect::<Vec<_>>()
    };
    assert!(matches!(calls[2].ask(), Asked::Pending { deferred: None }));
    assert!(blocking(&x).is_empty(), "it has not waited for long");
    assert_eq!(blocking(&x), [1], "the result of the fourth call blocks nobody");
}
