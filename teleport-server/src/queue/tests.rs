//! The queue of a pool: turns, order, slots, throttling and removal, first alone and then among
//! threads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fair_queue::{QueuePlace, Queueable, Queued};
use super::pool::{self, Job, Work};

type Queue<T> = pool::Queue<T>;

/// Call `number` of a connection. Odd calls need a slot.
#[derive(Debug, Default)]
struct Call {
    connection: usize,
    number: u32,
    is_withdrawn: AtomicBool,
    deadline: Option<Instant>,
    throttled_by: Mutex<Option<usize>>,
    place: QueuePlace,
}

impl Queueable for Call {
    type Arguments = Arc<()>;

    fn connection(&self) -> usize {
        self.connection
    }

    fn needs_slot(&self) -> bool {
        self.number % 2 == 1
    }

    fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn throttled_by(&self) -> Option<usize> {
        *self.throttled_by.lock().unwrap()
    }

    fn place(&self) -> &QueuePlace {
        &self.place
    }
}

fn call(connection: usize, number: u32) -> Arc<Call> {
    Arc::new(Call { connection, number, ..Call::default() })
}

fn push(queue: &Queue<Call>, call: Arc<Call>) -> Result<(), Arc<Call>> {
    queue.push(call, Arc::default())
}

fn queue(calls: impl IntoIterator<Item = (usize, u32)>) -> Queue<Call> {
    let queue = Queue::new(Duration::ZERO, &[false, true]);
    calls.into_iter().for_each(|(connection, number)| push(&queue, call(connection, number)).unwrap());
    queue
}

fn free() -> Option<()> {
    Some(())
}

fn none() -> Option<()> {
    None
}

/// Takes the next `count` calls. Returns their connections and numbers.
fn take(queue: &Queue<Call>, count: usize, mut reserve: impl FnMut() -> Option<()>) -> Vec<(usize, u32)> {
    let next = |_| {
        let Some(Work::Call(call, _, slot)) = queue.take(0, &mut reserve) else { panic!("a call") };
        assert_eq!(slot.is_some(), call.needs_slot());
        (call.connection, call.number)
    };
    (0..count).map(next).collect()
}

fn numbers(calls: &[Queued<Call>]) -> Vec<u32> {
    calls.iter().map(|(call, _)| call.number).collect()
}

#[test]
fn calls_of_a_connection_keep_their_order() {
    let queue = queue((0..4).map(|number| (0, number)));
    assert_eq!(take(&queue, 2, free), [(0, 0), (0, 1)]);
    assert_eq!(numbers(&queue.close()), [2, 3]);
    assert!(queue.take(0, free).is_none());
    assert_eq!(push(&queue, call(0, 3)).unwrap_err().number, 3);
}

#[test]
fn connections_take_turns() {
    let queue = queue((0..9).map(|number| (usize::from(number >= 6), number)));
    assert_eq!(take(&queue, 3, free), [(0, 0), (1, 6), (0, 1)]);
    // A new connection is behind those that wait, once.
    push(&queue, call(7, 10)).unwrap();
    push(&queue, call(7, 12)).unwrap();
    assert_eq!(take(&queue, 7, free), [(1, 7), (0, 2), (7, 10), (1, 8), (0, 3), (7, 12), (0, 4)]);
    // The line of the connection was empty, and begins again.
    push(&queue, call(1, 14)).unwrap();
    assert_eq!(take(&queue, 2, free), [(0, 5), (1, 14)]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_polite_call_waits_for_one_of_each_other() {
    const FLOODING: usize = 100;
    // The cases are: no call needs a slot, all calls need one, or some do.
    for parity in [|_| 0, |_| 1, |number: u32| number % 3 % 2] {
        let flood = (0..1000).flat_map(|number| {
            (0..FLOODING).map(move |connection| (connection, 2 * number + parity(number)))
        });
        let queue = queue(flood);
        let mut slots = 0..50;
        take(&queue, 50, || slots.next().map(drop));
        push(&queue, call(FLOODING, 0)).unwrap();
        let before = (0..).find(|_| take(&queue, 1, free)[0].0 == FLOODING).unwrap();
        assert!(before <= FLOODING, "{before}");
    }
}

#[test]
fn a_call_that_finds_no_slot_is_set_aside() {
    let queue = queue([1, 3, 4, 5, 6, 7].map(|number| (0, number)));
    assert_eq!(take(&queue, 2, none), [(0, 4), (0, 6)]);
    // Calls that were set aside keep their order, also before a later call that would find a slot.
    let mut slots = [None, Some(())].into_iter();
    push(&queue, call(0, 8)).unwrap();
    assert_eq!(take(&queue, 1, || slots.next().flatten()), [(0, 8)]);
    assert_eq!(take(&queue, 4, free), [1, 3, 5, 7].map(|number| (0, number)));
    assert_eq!(queue.len(), 0);
}

#[test]
fn blocked_connections_share_slots_and_take_every_other_turn() {
    let queue = queue([(0, 1), (0, 3), (0, 5), (1, 1), (1, 3), (2, 0)]);
    assert_eq!(take(&queue, 1, none), [(2, 0)]);
    (1..4).for_each(|number| push(&queue, call(2, 2 * number)).unwrap());
    push(&queue, call(1, 5)).unwrap();
    let order = [(0, 1), (2, 2), (1, 1), (2, 4), (0, 3), (2, 6), (1, 3), (0, 5), (1, 5)];
    assert_eq!(take(&queue, order.len(), free), order);
}

#[test]
fn a_blocked_connection_has_its_turn_again_for_other_calls() {
    let queue = queue([(0, 1), (1, 0), (1, 2)]);
    assert_eq!(take(&queue, 1, none), [(1, 0)]);
    push(&queue, call(0, 2)).unwrap();
    assert_eq!(take(&queue, 2, none), [(1, 2), (0, 2)]);
    assert_eq!(take(&queue, 1, free), [(0, 1)]);
}

/// Three connections whose calls found no slot.
fn blocked() -> Queue<Call> {
    let queue =
        queue([0, 1, 2].into_iter().flat_map(|connection| (0..20).map(move |n| (connection, 2 * n + 1))));
    push(&queue, call(3, 0)).unwrap();
    assert_eq!(take(&queue, 1, none), [(3, 0)]);
    queue
}

/// Gives out one slot.
fn one() -> impl FnMut() -> Option<()> {
    let mut slots = 0..1;
    move || slots.next().map(drop)
}

#[test]
fn a_blocked_connection_keeps_its_turn_for_a_slot_whatever_else_it_calls() {
    let queue = blocked();
    for round in 0..10 {
        for connection in 0..3 {
            // The other call is made before each slot, so that the connection would go behind the
            // others if it lost its turn.
            push(&queue, call(0, 2)).unwrap();
            assert_eq!(take(&queue, 1, none), [(0, 2)]);
            assert_eq!(take(&queue, 1, one()), [(connection, 2 * round + 1)]);
        }
    }
}

#[test]
fn a_blocked_connection_keeps_its_turn_for_a_slot_when_it_withdraws_another_call() {
    let queue = blocked();
    for connection in [0, 1, 2, 0] {
        (0..3).for_each(|connection| {
            let withdrawn = call(connection, 2);
            push(&queue, withdrawn.clone()).unwrap();
            assert!(queue.remove(&withdrawn).is_some());
        });
        assert_eq!(take(&queue, 1, one())[0].0, connection);
    }
}

#[test]
fn a_slot_in_a_turn_among_all_counts_as_a_turn_for_slots() {
    let queue = blocked();
    assert_eq!(take(&queue, 1, one()), [(0, 1)]);
    // The second connection has its turn among all, which its first call takes.
    push(&queue, call(1, 2)).unwrap();
    assert_eq!(take(&queue, 1, one()), [(1, 1)]);
    assert_eq!(take(&queue, 2, one()), [(2, 1), (1, 2)]);
}

#[test]
fn withdrawn_calls_leave_at_once() {
    let queue = queue([]);
    let calls: Vec<_> = (0..6).map(|number| call(number as usize / 4, number)).collect();
    calls.iter().for_each(|call| push(&queue, call.clone()).unwrap());
    // 1 and 3 are set aside.
    assert_eq!(take(&queue, 1, none), [(0, 0)]);
    assert_eq!(take(&queue, 2, none), [(1, 4), (0, 2)]);
    for (number, is_there) in [(3, true), (3, false), (0, false), (5, true), (1, true)] {
        calls[number].is_withdrawn.store(true, Ordering::Relaxed);
        assert_eq!(queue.remove(&calls[number]).is_some(), is_there, "{number}");
    }
    assert_eq!(queue.len(), 0);
    // This call was withdrawn before it came to the queue.
    push(&queue, calls[5].clone()).unwrap();
    push(&queue, call(1, 6)).unwrap();
    assert_eq!((queue.len(), take(&queue, 1, none)), (1, vec![(1, 6)]));
}

#[test]
fn late_calls_are_removed_by_expire() {
    let now = Instant::now();
    let at = |seconds: u64| now + Duration::from_secs(seconds);
    let queue = queue([(0, 2), (1, 4)]);
    for (number, seconds) in [(1, 1), (3, 5), (5, 2), (6, 3), (8, 9)] {
        let deadline = Some(at(seconds));
        let late = Call { connection: number as usize % 2, number, deadline, ..Call::default() };
        push(&queue, Arc::new(late)).unwrap();
    }
    // The odd calls are set aside.
    assert_eq!(take(&queue, 3, none), [(0, 2), (1, 4), (0, 6)]);
    let (late, next) = queue.expire(at(2));
    assert_eq!((numbers(&late), next), (vec![1, 5], Some(at(5))));
    assert_eq!(take(&queue, 2, free), [(1, 3), (0, 8)]);
    assert_eq!(queue.expire(at(9)).1, None);
}

/// Sets the key of the link that throttles each call.
fn throttle<'a>(calls: impl IntoIterator<Item = &'a Arc<Call>>, by: Option<usize>) {
    calls.into_iter().for_each(|call| *call.throttled_by.lock().unwrap() = by);
}

#[test]
fn a_throttled_connection_has_no_turn_until_it_is_released() {
    let queue = queue([]);
    let calls: Vec<_> = (0..6).map(|number| call(number as usize % 2, 2 * number)).collect();
    calls.iter().for_each(|call| push(&queue, call.clone()).unwrap());
    throttle(calls.iter().step_by(2), Some(7));
    assert_eq!(take(&queue, 2, free), [(1, 2), (1, 6)]);
    // The connection is not asked again, and later calls stay behind the others.
    throttle(&calls, None);
    push(&queue, call(0, 12)).unwrap();
    assert_eq!(take(&queue, 1, free), [(1, 10)]);
    assert_eq!(queue.len(), 4);
    queue.release(8);
    assert!(queue.remove(&calls[0]).is_some());
    push(&queue, call(1, 14)).unwrap();
    assert_eq!(take(&queue, 1, free), [(1, 14)]);
    queue.release(7);
    assert_eq!(take(&queue, 3, free), [(0, 4), (0, 8), (0, 12)]);
}

#[test]
fn a_throttled_connection_takes_no_slots() {
    let queue = queue([]);
    let calls: Vec<_> = (0..2).map(|connection| call(connection, 1)).collect();
    calls.iter().for_each(|call| push(&queue, call.clone()).unwrap());
    push(&queue, call(2, 0)).unwrap();
    // Both are set aside, then the first is throttled.
    assert_eq!(take(&queue, 1, none), [(2, 0)]);
    throttle(&calls[..1], Some(7));
    assert_eq!(take(&queue, 1, one()), [(1, 1)]);
    queue.release(7);
    push(&queue, call(2, 2)).unwrap();
    assert_eq!(take(&queue, 1, free), [(2, 2)], "it is throttled again");
    throttle(&calls, None);
    queue.release(7);
    assert_eq!(take(&queue, 1, free), [(0, 1)]);
}

#[test]
fn a_connection_whose_throttled_calls_have_gone_has_its_turn_again() {
    let queue = queue([]);
    let (first, last) = (call(0, 0), call(1, 2));
    throttle([&first], Some(7));
    push(&queue, first.clone()).unwrap();
    push(&queue, last).unwrap();
    assert_eq!(take(&queue, 1, free), [(1, 2)]);
    assert!(queue.remove(&first).is_some());
    push(&queue, call(0, 4)).unwrap();
    assert_eq!(take(&queue, 1, free), [(0, 4)]);
}

#[test]
fn workers_wake_when_a_connection_is_released() {
    let (queue, first) = (queue([]), call(0, 0));
    throttle([&first], Some(7));
    push(&queue, first.clone()).unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| take(&queue, 1, free));
        while queue.lock().calls.has_turns() {
            std::thread::yield_now();
        }
        throttle([&first], None);
        queue.release(7);
        assert_eq!(worker.join().unwrap(), [(0, 0)]);
    });
}

#[test]
fn withdrawn_calls_take_at_most_as_much_memory_as_the_others() {
    let queue = queue((0..100).map(|number| (0, 2 * number)));
    let calls: Vec<_> = (0..1_000).map(|number| call(0, 1_000 + number)).collect();
    calls.iter().for_each(|call| push(&queue, call.clone()).unwrap());
    assert!(calls.iter().all(|call| queue.remove(call).is_some()));
    let weak: Vec<_> = calls.iter().map(Arc::downgrade).collect();
    drop(calls);
    assert!(weak.iter().filter(|call| call.strong_count() > 0).count() <= 100);
    assert_eq!((queue.len(), take(&queue, 2, free)), (100, vec![(0, 0), (0, 2)]));
}

#[test]
fn connections_that_come_and_leave_take_no_memory() {
    let queue = queue([]);
    for number in 0..10_000 {
        let call = call(number, 2 * number as u32);
        push(&queue, call.clone()).unwrap();
        assert!(queue.remove(&call).is_some());
    }
    assert_eq!(queue.lock().calls.entries(), (0, 16));
}

#[test]
fn workers_wake_for_calls_that_were_set_aside() {
    let (queue, allowed) = (queue([(0, 7)]), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| take(&queue, 1, || allowed.load(Ordering::SeqCst).then_some(())));
        allowed.store(true, Ordering::SeqCst);
        queue.slots_freed();
        assert_eq!(worker.join().unwrap(), [(0, 7)]);
    });
}

#[test]
fn each_call_is_taken_once() {
    const CALLS: usize = 10_000;
    let (queue, taken) = (queue([]), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while queue.take(0, free).is_some() {
                    if taken.fetch_add(1, Ordering::Relaxed) + 1 == CALLS {
                        queue.close();
                    }
                }
            });
        }
        (0..CALLS).for_each(|number| push(&queue, call(number % 7, number as u32)).unwrap());
    });
    assert_eq!(taken.load(Ordering::Relaxed), CALLS);
}

#[test]
fn the_spinning_worker_takes_one_call_and_others_are_woken_for_the_rest() {
    let queue = Queue::new(Duration::from_millis(1), &[]);
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while queue.take(0, free).is_some() {
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..500 {
            // Bursts of one to four calls, which find the workers spinning, asleep, or in between.
            for number in 0..=round % 4 {
                push(&queue, call(0, 2 * number)).unwrap();
            }
            while queue.len() > 0 {
                std::thread::yield_now();
            }
        }
        assert!(queue.close().is_empty());
    });
    assert_eq!(taken.into_inner(), 125 * (1 + 2 + 3 + 4));
}

/// Takes the next item. Returns the number of a call, or 1,000 plus the number of a batched method.
fn next(queue: &Queue<Call>, reserve: impl FnMut() -> Option<()>) -> u32 {
    match queue.take(0, reserve) {
        Some(Work::Call(call, ..)) => call.number,
        Some(Work::Batch(method, slot)) => {
            assert_eq!(slot.is_some(), method == 1);
            1_000 + method as u32
        }
        None => panic!("the queue was closed"),
    }
}

#[test]
fn calls_and_batches_take_turns() {
    let queue = queue([(0, 0), (0, 2), (0, 4)]);
    let past = Instant::now();
    queue.set_batch_timer(0, Some(past));
    queue.set_batch_timer(1, Some(past + Duration::from_nanos(1)));
    let order: [u32; 5] = std::array::from_fn(|_| next(&queue, free));
    assert_eq!(order, [0, 1_000, 2, 1_001, 4]);
    queue.set_batch_timer(0, Some(past));
    queue.set_batch_timer(0, None);
    push(&queue, call(0, 6)).unwrap();
    assert_eq!(next(&queue, free), 6, "there is no batch any more");
}

#[test]
fn a_batch_without_a_slot_is_passed_over_until_slots_are_freed() {
    let queue = queue([]);
    let past = Instant::now();
    queue.set_batch_timer(1, Some(past));
    push(&queue, call(0, 0)).unwrap();
    assert_eq!(next(&queue, free), 0);
    push(&queue, call(0, 2)).unwrap();
    assert_eq!(next(&queue, none), 2, "it was its turn");
    push(&queue, call(0, 4)).unwrap();
    assert_eq!(next(&queue, || panic!("it is not asked for again")), 4);
    queue.slots_freed();
    assert_eq!(next(&queue, free), 1_001);
}

#[test]
fn workers_wake_when_a_batch_is_due() {
    let queue = Arc::new(queue([]));
    let taken = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(Work::Batch(method, _)) = queue.take(0, free) {
                    assert_eq!(method, 0);
                    // This batch is due before some batches that are due already, and after others.
                    let count = taken.fetch_add(1, Ordering::SeqCst) as u64;
                    if count == 200 {
                        queue.close();
                    }
                    let now = Instant::now();
                    queue.set_batch_timer(1, Some(now + Duration::from_secs(3_600)));
                    queue.set_batch_timer(0, Some(now + Duration::from_micros(count * 7 % 300)));
                }
            });
        }
        queue.set_batch_timer(1, Some(Instant::now() + Duration::from_secs(3_600)));
        queue.set_batch_timer(0, Some(Instant::now() + Duration::from_millis(1)));
    });
    assert!(taken.load(Ordering::SeqCst) > 200);
}

#[test]
fn the_job_of_a_worker_is_known_until_it_takes_the_next() {
    let queue = queue([(0, 0)]);
    let Some(Work::Call(call, arguments, None)) = queue.take(1, free) else { panic!("a call") };
    assert!(queue.take_job(0).is_none() && queue.take_job(5).is_none());
    assert!(
        matches!(queue.take_job(1), Some(Job::Call(job)) if job.upgrade().unwrap().number == call.number)
    );
    drop((call, arguments));
    let batch = Arc::new(());
    queue.runs_batch(1, &batch);
    queue.close();
    assert!(queue.take(1, free).is_none());
    assert!(queue.take_job(1).is_none(), "the batch has ended");
}
