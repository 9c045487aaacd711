//! Outcomes, futures, waiters and places of calls.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::*;
use crate::calls::pending::Request;
use crate::error::call::CallError;
use teleport_transport::wire::{ErrorKind, Ran, RemoteError};

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

fn waker() -> Waker {
    Waker::from(Arc::new(Nothing))
}

struct Fixture {
    table: CallTable,
    wakers: Wakers,
    released: Released,
    /// The wakers that the table returned, because they wait for nothing any more.
    dropped_wakers: usize,
    /// Of the task that waits.
    waker: Waker,
}

impl Fixture {
    /// Sends a call with each of these ids.
    fn with(ids: impl IntoIterator<Item = u64>) -> Fixture {
        let (table, wakers, released) = (CallTable::default(), Wakers::default(), Released::new());
        let mut fixture = Fixture { table, wakers, released, dropped_wakers: 0, waker: waker() };
        for id in ids {
            fixture.table.send(id, &mut Request::plain());
        }
        fixture
    }

    fn answer(&mut self, id: u64) -> Option<bool> {
        let answer = Err(RemoteError::new(ErrorKind::Failed, Ran::Yes, id.to_string()));
        self.table.answer(id, &mut Some(answer), &mut self.wakers, &mut self.released)
    }

    /// The id in the outcome of a call, if its future finds one.
    fn take(&mut self, id: u64) -> Option<String> {
        let mut outcome = None;
        let asked = self.table.take(id, Some(&Context::from_waker(&self.waker)), &mut outcome);
        assert_eq!(matches!(asked, Asked::Ready), outcome.is_some());
        outcome.as_ref().map(text)
    }

    fn release(&mut self, id: u64) -> (Option<String>, Option<u64>) {
        let Left { outcome, deferred, waker } = self.table.release(id);
        self.dropped_wakers += usize::from(waker.is_some());
        (outcome.map(|outcome| text(&outcome)), deferred)
    }

    fn released(&self) -> Vec<String> {
        self.released.outcomes.iter().map(text).collect()
    }
}

fn text(outcome: &Outcome) -> String {
    match outcome {
        Err(CallError::Remote(failure)) => failure.message().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_outcome_counts() {
    let mut x = Fixture::with([1]);
    assert_eq!(x.take(1), None);
    assert_eq!(x.answer(1), Some(false));
    assert_eq!(x.answer(1), None);
    let late = CallError::Closed { method: "act".into(), ran: Ran::Maybe };
    x.table.end(1, Stage::Over, Err(late), &mut x.wakers, &mut x.released);
    assert!(matches!(x.table.ask(1, None), Asked::Ready));
    assert_eq!(x.take(1).as_deref(), Some("1"));
    assert!(x.released().is_empty() && x.table.futures() == 0);
}

#[test]
fn an_outcome_without_a_future_is_released() {
    let mut x = Fixture::with([1, 2]);
    assert_eq!(x.release(1), (None, None));
    assert_eq!(x.answer(1), Some(false));
    assert_eq!(x.released(), ["1"]);
    x.answer(2);
    assert_eq!(x.release(2), (Some("2".into()), None));
    assert!(x.table.calls.is_empty());
}

#[test]
fn waiters_count_until_the_outcome_is_there_or_unwanted() {
    let mut x = Fixture::with([1, 2]);
    for _ in 0..2 {
        assert_eq!((x.take(1), x.take(2)), (None, None));
    }
    assert!(x.wakers.is_empty() && x.table.has_waiter());
    x.answer(1);
    assert!(!x.wakers.is_empty() && x.table.has_waiter());
    x.release(2);
    assert_eq!((x.table.has_waiter(), x.dropped_wakers), (false, 1));
    x.release(1);
    assert!(!x.table.has_waiter());
}

#[test]
fn a_new_waker_replaces_the_earlier_one() {
    let mut x = Fixture::with([1]);
    assert_eq!(x.take(1), None);
    let waker = waker();
    let mut ask = || match x.table.ask(1, Some(&Context::from_waker(&waker))) {
        Asked::Ready => panic!("it has not come"),
        Asked::Pending { earlier, .. } => earlier,
    };
    let first = ask().expect("it is dropped without the lock");
    assert!(first.will_wake(&x.waker) && ask().is_none());
    x.answer(1);
    assert!(!x.table.has_waiter());
}

#[test]
fn a_deferred_result_is_fetched_by_the_first_that_asks() {
    fn pending(asked: Asked) -> Option<u64> {
        match asked {
            Asked::Ready => panic!("it has not come"),
            Asked::Pending { deferred, .. } => deferred,
        }
    }
    let asks: [fn(&mut Fixture) -> Option<u64>; 5] = [
        |x| pending(x.table.take(7, None, &mut None)),
        |x| pending(x.table.ask(7, Some(&Context::from_waker(&x.waker)))),
        |x| pending(x.table.ask(7, None)),
        |x| x.table.ask_all().pop(),
        |x| x.release(7).1,
    ];
    for ask in asks {
        let mut x = Fixture::with([7]);
        let demand = &mut x.table.sent_mut(7).expect("it was sent").demand;
        assert!(!demand.accepts() && demand.is_deferred());
        assert_eq!(ask(&mut x), Some(7));
        assert_eq!(ask(&mut x), None);
        let mut x = Fixture::with([7]);
        assert_eq!(ask(&mut x), None);
        assert!(x.table.sent_mut(7).expect("it was sent").demand.accepts());
    }
}

#[test]
fn a_place_that_is_free_again_has_no_outcome_of_another_call() {
    let mut x = Fixture::with([1, 2]);
    x.answer(1);
    assert_eq!(x.take(1).as_deref(), Some("1"));
    // The next calls use the memory of the first one, but not its id.
    for id in 3..200 {
        x.table.send(id, &mut Request::plain());
        x.answer(id);
        assert_eq!((x.take(1), x.release(1)), (None, (None, None)));
        assert_eq!(x.answer(1), None);
        assert_eq!(x.take(id), Some(id.to_string()));
    }
    x.answer(2);
    assert_eq!(x.take(2).as_deref(), Some("2"));
    assert!(x.table.calls.is_empty());
}
