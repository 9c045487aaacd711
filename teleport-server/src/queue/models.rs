//! Models of pollers that queue calls and workers that wait for them, in every possible order of their steps.
//!
//! Loom runs each model again and again. A model fails if an assertion fails, or if no thread can go on: a
//! worker that goes to sleep beside a call that it may start would wait forever. Each model runs with workers
//! that sleep at once, and with workers that spin before.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use super::fair_queue::{QueuePlace, Queueable};
use super::pool::{self, Work};

type Queue = pool::Queue<Call>;

/// A call without arguments.
#[derive(Debug, Default)]
struct Call {
    needs_slot: bool,
    place: QueuePlace,
}

impl Queueable for Call {
    type Arguments = ();

    fn connection(&self) -> usize {
        0
    }

    fn needs_slot(&self) -> bool {
        self.needs_slot
    }

    fn is_withdrawn(&self) -> bool {
        false
    }

    fn deadline(&self) -> Option<std::time::Instant> {
        None
    }

    fn throttled_by(&self) -> Option<usize> {
        None
    }

    fn place(&self) -> &QueuePlace {
        &self.place
    }
}

fn push(queue: &Queue, needs_slot: bool) {
    let call = std::sync::Arc::new(Call { needs_slot, ..Call::default() });
    assert!(queue.push(call, ()).is_ok(), "the queue is open");
}

/// Starts a worker that takes `calls` calls and ends. `reserve` returns a slot for logs.
fn worker(
    queue: &Arc<Queue>,
    index: usize,
    calls: usize,
    reserve: impl Fn() -> Option<()> + 'static,
) -> JoinHandle<()> {
    let queue = queue.clone();
    thread::spawn(move || {
        for _ in 0..calls {
            assert!(matches!(queue.take(index, &reserve), Some(Work::Call(..))), "the queue is open");
        }
    })
}

fn none() -> Option<()> {
    None
}

/// Runs a model with workers that sleep at once, and with workers that spin before.
fn model(threads: impl Fn(Arc<Queue>) + Clone + Send + Sync + 'static) {
    for spin in [Duration::ZERO, Duration::from_micros(1)] {
        let threads = threads.clone();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(3);
        builder.check(move || threads(Arc::new(Queue::new(spin, &[]))));
    }
}

#[test]
fn a_worker_that_goes_to_sleep_gets_the_call_that_is_queued_meanwhile() {
    model(|queue| {
        let worker = worker(&queue, 0, 2, none);
        push(&queue, false);
        push(&queue, false);
        worker.join().expect("it ends");
        assert_eq!(queue.len(), 0);
    });
}

#[test]
fn each_of_two_workers_gets_a_call() {
    model(|queue| {
        let workers = [0, 1].map(|index| worker(&queue, index, 1, none));
        push(&queue, false);
        push(&queue, false);
        workers.into_iter().for_each(|worker| worker.join().expect("it ends"));
        assert_eq!(queue.len(), 0);
    });
}

#[test]
fn a_worker_that_found_no_slot_gets_the_one_that_becomes_free() {
    model(|queue| {
        let free = Arc::new(AtomicUsize::new(0));
        let slots = free.clone();
        let take = move || {
            let is_free = slots.load(Ordering::Acquire) > 0;
            is_free.then(|| _ = slots.fetch_sub(1, Ordering::AcqRel))
        };
        push(&queue, true);
        let worker = worker(&queue, 0, 1, take);
        free.fetch_add(1, Ordering::AcqRel);
        queue.slots_freed();
        worker.join().expect("it ends");
    });
}

#[test]
fn all_workers_end_when_the_queue_is_closed() {
    model(|queue| {
        let workers = [0, 1].map(|index| {
            let queue = queue.clone();
            thread::spawn(move || while queue.take(index, none).is_some() {})
        });
        queue.close();
        workers.into_iter().for_each(|worker| worker.join().expect("it ends"));
    });
}
