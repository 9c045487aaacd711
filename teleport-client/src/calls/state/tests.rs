//! Slots, the line for them, time, and calls that survive, without sockets and clocks.

mod surviving;

use std::task::{Context, Poll, Waker};

use super::*;
use crate::calls::pending::{Survival, Waiting};
use teleport_transport::protocol::Closed;
use teleport_transport::wire::{CallState, ErrorKind, Id128, Limits, RemoteError};

const MS: Duration = Duration::from_millis(1);

struct Fixture {
    state: State<()>,
    wakers: Wakers,
    now: Instant,
}

impl Fixture {
    fn new(max_inflight: usize) -> Fixture {
        let now = Instant::now();
        let state = State::new(max_inflight, Some(1000 * MS), "tcp://here:1".into(), now);
        Fixture { state, wakers: Wakers::default(), now }
    }

    fn connected(max_inflight: usize, max_open_calls: usize) -> Fixture {
        let mut fixture = Fixture::new(max_inflight);
        fixture.open(1, max_open_calls);
        fixture
    }

    fn open(&mut self, connection: usize, max_open_calls: usize) {
        assert!(self.state.opened(door(connection, max_open_calls), self.now));
        self.state.admit(&mut self.wakers);
    }

    fn acquire(&mut self, time: Option<Duration>) -> Acquired<()> {
        let deadline = time.and_then(|time| Deadline::after(time, self.now));
        self.state.acquire(&"act".into(), deadline, || self.now).unwrap()
    }

    fn has_slot(&mut self) -> bool {
        matches!(self.acquire(None), Acquired::Now(_))
    }

    fn wait(&mut self, time: Option<Duration>) -> Arc<SlotWaiter<()>> {
        match self.acquire(time) {
            Acquired::Later(pass) => pass,
            Acquired::Now(_) => panic!("there was a slot"),
        }
    }

    /// Takes a slot and sends a call with it.
    fn send(&mut self, connection: usize, id: u64, time: Option<Duration>) -> Arc<PendingCall> {
        self.send_with(connection, id, time, None)
    }

    fn send_with(
        &mut self,
        connection: usize,
        id: u64,
        time: Option<Duration>,
        survival: Option<Survival>,
    ) -> Arc<PendingCall> {
        assert!(matches!(self.acquire(None), Acquired::Now(_)));
        let deadline = time.and_then(|time| Deadline::after(time, self.now));
        let flight = Arc::new(PendingCall::new("act".into(), deadline, survival));
        let place = Place { connection, id };
        flight.set_place(place);
        assert!(self.state.sent(place, &flight));
        flight
    }

    /// The connection breaks, when these calls had not been sent whole.
    fn lose(
        &mut self,
        connection: usize,
        states: &[(u64, CallState)],
    ) -> Option<Vec<(Arc<PendingCall>, Ran)>> {
        let reason = Arc::new(Closed::Lost { error: None });
        self.state.lost(connection, &reason, &states.iter().copied().collect(), self.now)
    }

    fn answer(&mut self, connection: usize, id: u64) -> (Option<Arc<PendingCall>>, bool) {
        self.state.answered(Place { connection, id }, &mut self.wakers)
    }
}

fn door(connection: usize, max_open_calls: usize) -> Arc<OpenConnection<()>> {
    let (limits, server) = (Limits::default(), Id128([connection as u8; 16]));
    Arc::new(OpenConnection { link: (), connection, limits, max_open_calls, server })
}

fn polled(pass: &SlotWaiter<()>) -> Option<Result<usize, CallError>> {
    match pass.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(admitted) => Some(admitted.map(|door| door.connection)),
        Poll::Pending => None,
    }
}

#[test]
fn slots_go_to_the_first_in_line() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, None);
    x.send(1, 2, None);
    let (first, second) = (x.wait(None), x.wait(None));
    assert_eq!((x.state.in_flight(), x.state.waiting()), (2, 2));
    assert!(x.answer(1, 2).0.is_some());
    assert!(polled(&second).is_none());
    assert!(matches!(polled(&first), Some(Ok(1))));
    // A newcomer does not overtake.
    let third = x.wait(None);
    x.state.give_back(&mut x.wakers);
    assert!(matches!(polled(&second), Some(Ok(1))) && polled(&third).is_none());
    // Who leaves makes room for the next, whether it waited or had a slot it never took.
    x.state.leave(&third, &mut x.wakers);
    let (fourth, fifth) = (x.wait(None), x.wait(None));
    x.state.give_back(&mut x.wakers);
    x.state.leave(&fourth, &mut x.wakers);
    assert!(matches!(polled(&fifth), Some(Ok(1))));
    assert_eq!((x.state.in_flight(), x.state.waiting()), (2, 0));
}

#[test]
fn the_server_may_allow_fewer() {
    let mut x = Fixture::connected(16, 2);
    assert!(x.has_slot() && x.has_slot());
    let error = x.state.try_acquire(&"act".into()).unwrap_err();
    assert!(matches!(error, CallError::Full { max_inflight: 2, .. }));
}

#[test]
fn a_withdrawn_call_frees_its_slot_but_stays_open_at_the_server() {
    let mut x = Fixture::connected(1, 2);
    let place = Place { connection: 1, id: 1 };
    x.send(1, 1, None);
    assert!(x.state.withdraw(place, &mut x.wakers).is_some());
    assert!(x.state.withdraw(place, &mut x.wakers).is_none());
    assert!(x.state.is_idle());
    x.send(1, 2, None);
    assert!(x.state.withdraw(Place { connection: 1, id: 2 }, &mut x.wakers).is_some());
    // Two are open at the server, which allows no more, though none counts here.
    let pass = x.wait(None);
    assert!(x.answer(1, 1).0.is_none());
    assert!(matches!(polled(&pass), Some(Ok(1))));
    x.state.forget(Place { connection: 1, id: 2 }, &mut x.wakers);
    x.state.forget(Place { connection: 1, id: 2 }, &mut x.wakers);
    assert_eq!(x.state.in_flight(), 1);
}

#[test]
fn a_lost_connection_fails_what_was_sent_and_keeps_what_waits() {
    let mut x = Fixture::connected(2, 100);
    x.send(1, 1, None);
    x.send(1, 2, None);
    let pass = x.wait(None);
    assert!(x.lose(7, &[]).is_none());
    assert!(!x.state.needs_dial());
    let mut failed = x.lose(1, &[(2, CallState::Unsent)]).unwrap();
    failed.sort_by_key(|(flight, _)| flight.place().unwrap().id);
    assert_eq!(failed.iter().map(|(_, ran)| *ran).collect::<Vec<_>>(), [Ran::Maybe, Ran::No]);
    assert!(x.state.needs_dial() && !x.state.needs_dial());
    assert!(x.lose(1, &[]).is_none());
    assert!(matches!(x.state.try_acquire(&"act".into()), Err(CallError::Connect { .. })));
    assert!(x.answer(1, 1).0.is_none());
    x.open(2, 100);
    assert!(matches!(polled(&pass), Some(Ok(2))));
    // Its first connection is over: a call that took long to encode learns it.
    let flight = Arc::new(PendingCall::new("act".into(), None, None));
    assert!(!x.state.sent(Place { connection: 1, id: 2 }, &flight));
    x.state.give_back(&mut x.wakers);
    assert!(x.state.is_idle());
}

#[test]
fn time_ends_calls_in_line_and_in_flight() {
    let mut x = Fixture::connected(2, 100);
    let flight = x.send(1, 1, Some(30 * MS));
    x.send(1, 2, None);
    let (soon, later, never) = (x.wait(Some(10 * MS)), x.wait(Some(50 * MS)), x.wait(None));
    assert_eq!(x.state.next_expiry(), Some(x.now + 10 * MS));
    assert!(x.state.expire(x.now + 10 * MS, &mut x.wakers).is_empty());
    assert!(matches!(polled(&soon), Some(Err(CallError::Deadline { ran: Ran::No, .. }))));
    assert_eq!(x.state.next_expiry(), Some(x.now + 30 * MS));
    let overdue = x.state.expire(x.now + 30 * MS, &mut x.wakers);
    assert!(matches!(&overdue[..], [Overdue::Sent(late)] if Arc::ptr_eq(late, &flight)));
    // The slot of the call whose time was over is free.
    assert!(matches!(polled(&later), Some(Ok(1))) && polled(&never).is_none());
    assert_eq!(x.state.next_expiry(), None);
}

#[test]
fn without_a_connection_calls_wait_only_so_long() {
    let mut x = Fixture::new(4);
    let (pass, hurried) = (x.wait(None), x.wait(Some(10 * MS)));
    assert_eq!(x.state.next_expiry(), Some(x.now + 10 * MS));
    x.state.expire(x.now + 1000 * MS, &mut x.wakers);
    assert!(matches!(polled(&hurried), Some(Err(CallError::Deadline { .. }))));
    let Some(Err(CallError::Connect { waited, .. })) = polled(&pass) else { panic!("it waits on") };
    assert_eq!(waited, 1000 * MS);
    // The time counts from when the connection was lost, not from when the call began to wait for a slot.
    x.open(1, 100);
    (1..=4).for_each(|id| drop(x.send(1, id, None)));
    let patient = x.wait(None);
    assert_eq!(x.state.next_expiry(), None);
    x.now += 5000 * MS;
    assert!(x.lose(1, &[]).is_some());
    assert_eq!(x.state.next_expiry(), Some(x.now + 1000 * MS));
    assert!(polled(&patient).is_none());
}

#[test]
fn failures_are_kept_in_order_and_bounded() {
    let mut x = Fixture::new(1);
    let failure = |at: usize| {
        CallError::remote("act".into(), RemoteError::new(ErrorKind::Failed, Ran::Yes, at.to_string()))
    };
    assert!((0..MAX_FAILURES).all(|at| x.state.report(failure(at))));
    assert!(!x.state.report(failure(MAX_FAILURES)));
    assert!(x.state.take_failure_if(false).is_none());
    assert_eq!(x.state.take_failure().unwrap().to_string(), "act: failed: 0");
    assert_eq!(x.state.take_failure_if(true).unwrap().to_string(), "act: failed: 1");
}

#[test]
fn closing_refuses_what_was_not_sent() {
    let mut x = Fixture::connected(1, 100);
    let flight = x.send(1, 1, None);
    let pass = x.wait(None);
    x.state.begin_close(&mut x.wakers);
    assert!(matches!(polled(&pass), Some(Err(CallError::Closed { ran: Ran::No, .. }))));
    assert!(x.state.acquire(&"act".into(), None, || x.now).is_err());
    assert!(x.state.try_acquire(&"act".into()).is_err());
    assert!(x.state.has_held() && !x.state.has_detached());
    drop(flight.release(&Waiting::default()));
    assert!(!x.state.has_held() && x.state.has_detached());
    let (last, flights) = x.state.end(&mut x.wakers);
    assert!(last.is_some() && flights.len() == 1 && x.state.is_over() && x.state.is_idle());
    assert!(!x.state.opened(door(2, 1), x.now) && !x.state.needs_dial());
}
