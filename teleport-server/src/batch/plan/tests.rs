//! Random sequences of events against a model of the memory, and tests of single decisions.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::api::batch_options::Batch;
use crate::batch::plan::ids::{GroupId, Key, Seat, SlabId};
use crate::batch::plan::policy::BatchPolicy;
use crate::batch::plan::scheduler::Scheduler;
use crate::batch::plan::select::{CloseDecision, SelectedBatch};
use crate::batch::plan::starvation::{LateBy, late, next_expiry, starved};

const MS: Duration = Duration::from_millis(1);
const ROW_BYTES: u64 = 1 << 10;

/// The content of a row: the number of its call, and how many of its parts have arrived.
type Content = (u64, u32);
const PARTS: u32 = 3;

/// Links that throttle calls.
const LINKS: usize = 4;

/// A call of the simulation, by its own number.
#[derive(Clone, Copy, Debug, Default)]
struct Call {
    number: u64,
    deadline: Option<Instant>,
}

/// A batch whose moves are not done.
struct Pending {
    closing: SelectedBatch<Call>,
    moved: usize,
}

struct World {
    random: u64,
    now: Instant,
    policy: BatchPolicy,
    scheduler: Scheduler<Call>,
    groups: Vec<GroupId>,
    memory: HashMap<(SlabId, usize), Content>,
    /// The seat of each call that has not ended, and how many of its parts have arrived.
    places: BTreeMap<u64, (Key, Seat, u32)>,
    numbers: HashMap<Key, u64>,
    group_of: HashMap<u64, GroupId>,
    pending: Vec<Pending>,
    running: Vec<(GroupId, usize)>,
    last_number: u64,
    ended: u64,
    moves: u64,
}

impl World {
    fn new(seed: u64, batch: Batch) -> World {
        let policy = batch.check().unwrap();
        let mut scheduler = Scheduler::new(policy.clone());
        let groups = (0..3).map(|_| scheduler.groups.add(policy.max_rows, ROW_BYTES)).collect();
        World {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: Instant::now(),
            policy,
            scheduler,
            groups,
            memory: HashMap::new(),
            places: BTreeMap::new(),
            numbers: HashMap::new(),
            group_of: HashMap::new(),
            pending: Vec::new(),
            running: Vec::new(),
            last_number: 0,
            ended: 0,
            moves: 0,
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % below.max(1)
    }

    fn some_call(&mut self) -> Option<u64> {
        let index = self.random(self.places.len());
        self.places.keys().nth(index).copied()
    }

    fn step(&mut self) {
        match self.random(20) {
            0..=5 => self.place(),
            6..=12 => self.receive(),
            13 => self.remove(),
            14 => self.release(),
            15..=16 => self.select(),
            17 => self.move_one(),
            18 => self.finish(),
            _ => self.now += MS / 4,
        }
        self.check();
    }

    fn place(&mut self) {
        if self.places.len() > 60 {
            return;
        }
        self.last_number += 1;
        let index = self.random(self.groups.len());
        let group = self.groups[index];
        let deadline = (self.random(8) == 0).then_some(self.now + 3 * MS);
        let call = Call { number: self.last_number, deadline };
        let placed = self.scheduler.place(group, call);
        assert!(placed.seat.index < self.policy.max_rows);
        let before = self.memory.insert((placed.seat.slab, placed.seat.index), (call.number, 0));
        assert_eq!(before, None, "the seat was free");
        self.places.insert(call.number, (placed.key, placed.seat, 0));
        self.numbers.insert(placed.key, call.number);
        self.group_of.insert(call.number, group);
    }

    /// Receives the next part of a call into the memory where it lies now.
    fn receive(&mut self) {
        let Some(number) = self.some_call() else { return };
        let Some((key, seat, parts)) = self.places.get_mut(&number) else { return };
        if *parts == PARTS {
            return;
        }
        *parts += 1;
        let (key, seat, parts) = (*key, *seat, *parts);
        self.memory.insert((seat.slab, seat.index), (number, parts));
        if parts == PARTS {
            let call = *self.scheduler.value_mut(key).unwrap();
            assert!(self.scheduler.arrive(key, call.deadline, self.now));
        }
    }

    fn remove(&mut self) {
        let Some(number) = self.some_call() else { return };
        let (key, seat, _) = self.places[&number];
        let removed = self.scheduler.remove(key).expect("it has not started");
        assert_eq!(removed.number, number);
        assert!(self.scheduler.remove(key).is_none() && !self.scheduler.arrive(key, None, self.now));
        self.forget(number);
        // The seat stays taken while the row is moved.
        if !self.pending.iter().any(|pending| pending.closing.outs.iter().any(|out| out.key == key)) {
            self.memory.remove(&(seat.slab, seat.index));
        }
    }

    fn forget(&mut self, number: u64) {
        self.places.remove(&number).unwrap();
        self.ended += 1;
    }

    fn release(&mut self) {
        let by = self.random(LINKS);
        self.scheduler.release(by, self.now);
    }

    fn select(&mut self) {
        let now = self.now;
        // A few are throttled.
        let unlucky = self.random(10) as u64;
        let judge = |call: &Call| match call.deadline {
            Some(deadline) if deadline <= now => CloseDecision::Late,
            _ if call.number % 10 == unlucky => CloseDecision::Throttled(call.number as usize % LINKS),
            _ => CloseDecision::Runs,
        };
        let is_due = self.scheduler.next_due().is_some_and(|due| due <= now);
        let Some(selected) = self.scheduler.select(now, judge) else { return assert!(!is_due) };
        for call in selected.late {
            let seat = self.places[&call.number].1;
            self.memory.remove(&(seat.slab, seat.index));
            self.forget(call.number);
        }
        let Some(closing) = selected.batch else { return };
        let rows = closing.rows.len();
        assert!(
            rows > 0
                && rows <= self.policy.max_rows
                && (!self.policy.is_exact() || rows == self.policy.max_rows)
        );
        assert!(closing.padded >= rows);
        for call in &closing.rows {
            assert_eq!(self.group_of[&call.number], closing.group, "other shapes never meet");
            assert_eq!(self.places[&call.number].2, PARTS, "all of it has come");
            self.forget(call.number);
        }
        self.pending.push(Pending { closing, moved: 0 });
    }

    /// Does one move of a closed batch, or starts the batch if all are done.
    fn move_one(&mut self) {
        let index = self.random(self.pending.len());
        let Some(pending) = self.pending.get_mut(index) else { return };
        let (outs, at) = (&pending.closing.outs, pending.moved);
        pending.moved += 1;
        if let Some(out) = outs.get(at) {
            self.moves += 1;
            let number = self.numbers[&out.key];
            if let Some((_, seat, _)) = self.places.get_mut(&number) {
                let content = self.memory.remove(&(seat.slab, seat.index)).expect("it lies there");
                assert_eq!(content.0, number);
                *seat = out.to;
                let before = self.memory.insert((out.to.slab, out.to.index), content);
                assert_eq!(before, None, "the seat was free");
            }
            return;
        }
        let base = pending.closing.base;
        if let Some(fill) = pending.closing.fills.get(at - outs.len()) {
            self.moves += 1;
            let content = self.memory.remove(&(fill.from.slab, fill.from.index)).expect("it lies there");
            let before = self.memory.insert((base, fill.to), content);
            assert!(before.is_none_or(|(number, _)| !self.places.contains_key(&number)), "a hole");
            return;
        }
        let closing = self.pending.remove(index).closing;
        self.scheduler.moved(&closing.outs, &closing.fills);
        for out in closing.outs.iter().filter(|out| !self.places.contains_key(&self.numbers[&out.key])) {
            self.memory.remove(&(out.to.slab, out.to.index));
        }
        for (index, call) in closing.rows.iter().enumerate() {
            assert_eq!(self.memory.remove(&(base, index)), Some((call.number, PARTS)), "row {index}");
        }
        self.memory.retain(|(slab, _), _| *slab != base);
        self.running.push((closing.group, closing.padded));
    }

    fn finish(&mut self) {
        let index = self.random(self.running.len());
        if index < self.running.len() {
            let (group, rows) = self.running.swap_remove(index);
            self.scheduler.finished(group, Some((rows, MS)));
        }
    }

    fn check(&mut self) {
        assert_eq!(self.pending.len() + self.running.len(), self.scheduler.in_progress);
        assert!(self.scheduler.in_progress <= self.policy.max_in_progress);
        let unused = self.scheduler.take_unused();
        for slab in unused.slabs {
            self.memory.retain(|(at, _), (number, _)| *at != slab || self.places.contains_key(number));
            assert!(self.places.values().all(|(_, seat, _)| seat.slab != slab), "no row lies there");
        }
        assert!(unused.groups.is_empty(), "three groups are few");
    }

    /// Ends all calls.
    fn end(&mut self) {
        while self.pending.iter().any(|pending| !pending.closing.rows.is_empty()) {
            self.move_one();
        }
        while !self.running.is_empty() {
            self.finish();
        }
        for call in self.scheduler.drain() {
            self.forget(call.number);
        }
        assert_eq!(
            (self.scheduler.waiting(), self.scheduler.groups.busy(), self.scheduler.in_progress),
            (0, 0, 0)
        );
        assert!(self.scheduler.groups.is_empty() && self.scheduler.next_due().is_none());
        assert_eq!(self.ended, self.last_number, "each ended once");
    }
}

fn simulate(batch: &Batch, seeds: std::ops::Range<u64>) -> u64 {
    let mut moves = 0;
    for seed in seeds {
        let mut world = World::new(seed, batch.clone());
        for _ in 0..2_000 {
            world.step();
        }
        world.end();
        moves += world.moves;
    }
    moves
}

#[test]
fn each_row_lies_where_its_batch_is_read() {
    let batches = [
        Batch::up_to(1),
        Batch::up_to(4).max_wait(MS).pad_to([2, 4]),
        Batch::up_to(7).max_in_progress(2),
        Batch::up_to(16).adaptive(2 * MS),
        Batch::exact(3),
        Batch::exact(8).max_in_progress(1),
    ];
    for batch in &batches {
        let moves = simulate(batch, 0..60);
        assert!(moves > 0 || *batch == batches[0], "some rows were moved in {batch:?}");
    }
}

/// A scheduler with one group and `calls` complete calls.
fn with_ready(batch: Batch, calls: usize) -> (Scheduler<u64>, GroupId, Instant, Vec<Key>) {
    let mut scheduler = Scheduler::new(batch.check().unwrap());
    let (group, now) = (scheduler.groups.add(scheduler.policy.max_rows, ROW_BYTES), Instant::now());
    let keys = (0..calls).map(|number| {
        let key = scheduler.place(group, number as u64).key;
        assert!(scheduler.arrive(key, None, now));
        key
    });
    let keys = keys.collect();
    (scheduler, group, now, keys)
}

fn runs<T>(_: &T) -> CloseDecision {
    CloseDecision::Runs
}

#[test]
fn a_batch_is_due_when_it_is_full_or_its_first_call_has_waited() {
    let (mut scheduler, group, now, _) = with_ready(Batch::up_to(3).max_wait(5 * MS), 2);
    assert_eq!(scheduler.next_due(), Some(now + 5 * MS));
    assert!(scheduler.select(now + 4 * MS, runs).is_none());
    let key = scheduler.place(group, 2).key;
    scheduler.arrive(key, None, now + MS);
    assert_eq!(scheduler.next_due(), Some(now), "it is full");
    let batch = scheduler.select(now + MS, runs).unwrap().batch.unwrap();
    assert_eq!((batch.rows, batch.waited), (vec![0, 1, 2], 2 * MS));
}

#[test]
fn an_exact_batch_waits_until_it_is_full_or_its_time_is_over() {
    let (mut scheduler, group, now, keys) = with_ready(Batch::exact(3).full_timeout(10 * MS), 2);
    assert_eq!(scheduler.next_due(), None);
    assert_eq!(next_expiry(&scheduler), Some(now + 10 * MS));
    assert!(late(&scheduler, now + 9 * MS).is_empty());
    let mut late = late(&scheduler, now + 10 * MS);
    late.sort_unstable();
    assert_eq!(late, [(keys[0], LateBy::FullTimeout), (keys[1], LateBy::FullTimeout)]);
    let found = starved(&mut scheduler, now + Duration::from_secs(1));
    assert_eq!((found[0].keys.len(), found[0].rows), (2, 3));
    assert!(starved(&mut scheduler, now + Duration::from_secs(2)).is_empty(), "it is logged once");
    let key = scheduler.place(group, 2).key;
    scheduler.arrive(key, None, now);
    assert_eq!(scheduler.select(now, runs).unwrap().batch.unwrap().rows.len(), 3);
}

#[test]
fn a_batch_waits_for_rows_that_are_being_received_but_not_for_long() {
    let (mut scheduler, group, now, _) = with_ready(Batch::up_to(4), 1);
    assert_eq!(scheduler.next_due(), Some(now));
    let key = scheduler.place(group, 1).key;
    let due = scheduler.next_due().unwrap();
    assert!(due > now && due < now + MS, "{:?}", due - now);
    let batch = scheduler.select(due, runs).unwrap().batch.unwrap();
    assert_eq!(
        (batch.rows, batch.outs.len()),
        (vec![0], 1),
        "the call that has not come by then goes to the next"
    );
    scheduler.moved(&batch.outs, &batch.fills);
    assert!(scheduler.arrive(key, None, due));
    assert_eq!(scheduler.select(due, runs).unwrap().batch.unwrap().rows, [1]);
}

#[test]
fn a_row_that_is_never_complete_is_moved_twice_and_then_left_alone() {
    let (mut scheduler, group, now, _) = with_ready(Batch::up_to(2), 0);
    let slow = scheduler.place(group, 99).key;
    let mut moves = 0;
    for number in 0..10 {
        let key = scheduler.place(group, number).key;
        scheduler.arrive(key, None, now);
        let due = scheduler.next_due().unwrap();
        let batch = scheduler.select(due, runs).unwrap().batch.unwrap();
        assert_eq!(batch.rows, [number]);
        moves += batch.outs.len();
        scheduler.moved(&batch.outs, &batch.fills);
        scheduler.finished(group, None);
    }
    assert_eq!(moves, 2);
    scheduler.arrive(slow, None, now);
    let batch = scheduler.select(now, runs).unwrap().batch.unwrap();
    assert_eq!((batch.rows, batch.fills.len(), batch.is_new_slab), (vec![99], 1, true));
}

#[test]
fn groups_take_turns_by_their_oldest_call() {
    let (mut scheduler, first, now, _) = with_ready(Batch::up_to(2), 1);
    let second = scheduler.groups.add(2, ROW_BYTES);
    for (group, after) in [(second, MS), (first, 2 * MS), (first, 3 * MS), (second, 4 * MS)] {
        let key = scheduler.place(group, 7).key;
        scheduler.arrive(key, None, now + after);
    }
    let order: Vec<GroupId> =
        (0..3).map(|_| scheduler.select(now + 9 * MS, runs).unwrap().batch.unwrap().group).collect();
    assert_eq!(order, [first, second, first]);
}

#[test]
fn a_deadline_closes_a_batch_earlier() {
    let batch = Batch::up_to(8).max_wait(100 * MS);
    let (mut scheduler, group, now, _) = with_ready(batch, 1);
    let key = scheduler.place(group, 1).key;
    scheduler.arrive(key, Some(now + 50 * MS), now);
    let unknown = scheduler.next_due().unwrap();
    assert!(unknown >= now + 40 * MS && unknown < now + 50 * MS, "{:?}", unknown - now);
    scheduler.in_progress = 1;
    scheduler.finished(group, Some((2, 20 * MS)));
    let known = scheduler.next_due().unwrap();
    assert!(known >= now + 20 * MS && known < now + 30 * MS, "it ran for 20 ms: {:?}", known - now);
}

#[test]
fn as_many_batches_run_as_may() {
    let (mut scheduler, group, now, _) = with_ready(Batch::up_to(1).max_in_progress(2), 3);
    assert!(scheduler.select(now, runs).is_some() && scheduler.select(now, runs).is_some());
    assert_eq!(scheduler.next_due(), None);
    scheduler.finished(group, None);
    assert!(scheduler.select(now, runs).is_some());
}

#[test]
fn all_but_a_few_groups_without_calls_are_removed() {
    let mut scheduler: Scheduler<u64> = Scheduler::new(Batch::up_to(4).check().unwrap());
    let mut forgotten = 0;
    for number in 0..1_000 {
        let group = scheduler.groups.add(4, ROW_BYTES);
        let key = scheduler.place(group, number).key;
        assert_eq!(scheduler.groups.busy(), 1);
        scheduler.remove(key);
        forgotten += scheduler.take_unused().groups.len();
    }
    assert_eq!((scheduler.groups.all().count(), forgotten), (16, 984));
}
