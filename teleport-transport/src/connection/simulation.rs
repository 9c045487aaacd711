//! Two connections against each other in virtual time: seeded sizes, splits, stalls, orders of polling, hellos that
//! differ, calls that are refused or withdrawn while their answer is on the way, results that are given up.
//!
//! Each seed is a run of its own; a failure names it. Invariants: every call ends exactly once and with its own bytes;
//! credits and grants are never exceeded (either side would refuse); budget and credits return to what they were; after
//! the last call nothing is left in either half.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_wire::{Array, CallHead, ErrorKind, Limits, Message, Ran, RemoteError, Tree};

use super::*;
use crate::budget::Budget;
use crate::pool::Pool;

/// A small generator: the runs must be the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

struct AllowAllButOne;

impl Gate for AllowAllButOne {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        match method {
            "unknown" => Err(RemoteError::new(ErrorKind::UnknownMethod, Ran::No, "no such method")),
            _ => Ok(7),
        }
    }
}

struct End {
    inbound: Inbound,
    outbound: RefCell<Outbound>,
    staged: Staged,
    /// Bytes on their way to this end.
    arriving: VecDeque<u8>,
    ahead: Vec<u8>,
    events: Vec<Event>,
}

impl End {
    fn new(role: Role, config: &Arc<Config>, now: Instant) -> End {
        let (inbound, outbound) = halves(role, config, now);
        End {
            inbound,
            outbound: RefCell::new(outbound),
            staged: Staged::default(),
            arriving: VecDeque::new(),
            ahead: vec![0; 16 << 10],
            events: Vec::new(),
        }
    }

    /// Writes as much as the "socket" takes; true if anything went.
    fn write_to(&mut self, other: &mut End, at_most: usize) -> bool {
        if self.staged.is_empty() {
            self.outbound.borrow_mut().stage(&mut self.staged);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
        let filled = self.staged.slices(&mut slices);
        let mut written = 0;
        for slice in &slices[..filled] {
            let bytes = slice.len().min(at_most - written);
            other.arriving.extend(&slice[..bytes]);
            written += bytes;
        }
        self.staged.advance(written);
        written > 0
    }

    fn read(&mut self, now: Instant, at_most: usize) -> Result<Received, Closed> {
        let arriving = &mut self.arriving;
        self.inbound.receive(
            now,
            &mut self.ahead,
            &self.outbound,
            &AllowAllButOne,
            &mut self.events,
            |slices: &mut [IoSliceMut<'_>]| {
                if arriving.is_empty() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let mut read = 0;
                for slice in slices {
                    let bytes = slice.len().min(at_most - read).min(arriving.len());
                    arriving.read_exact(&mut slice[..bytes])?;
                    read += bytes;
                }
                Ok(read)
            },
        )
    }
}

struct World {
    random: Random,
    now: Instant,
    client: End,
    server: End,
    budget: Budget,
    granted: Arc<Mutex<Vec<(u64, Charge)>>>,
    /// Calls that the client waits for, with what they carry.
    open: HashMap<u64, Tree>,
    /// Calls that the server has and did not answer.
    serving: Vec<IncomingCall>,
    /// What pays for results that the client has not read.
    unread: Vec<Hold>,
    seen: Seen,
}

/// What came of the calls of one run, or of several.
#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    refused: usize,
    overloaded: usize,
    given_up: usize,
    never_sent: usize,
    aborted: usize,
    cancelled: usize,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.overloaded += other.overloaded;
        self.given_up += other.given_up;
        self.never_sent += other.never_sent;
        self.aborted += other.aborted;
        self.cancelled += other.cancelled;
    }
}

/// Two sides need not want the same.
fn config(random: &mut Random) -> Arc<Config> {
    let eager_credit_bytes = match random.below(4) {
        0 => 0,
        1 => random.below(1000),
        2 => random.below(200_000),
        _ => random.below(3_000_000),
    };
    Arc::new(Config {
        eager_credit_bytes,
        max_open_calls: if random.one_in(3) { 1 + random.below(5) as u32 } else { 40 },
        max_structure_bytes: if random.one_in(3) { 3000 } else { 64 << 20 },
        checksum: random.one_in(2),
        pool: Pool::global().clone(),
        ..Config::default()
    })
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let (client, server) = (config(&mut random), config(&mut random));
        World { random, ..World::of(seed, client, server) }
    }

    fn of(seed: u64, client: Arc<Config>, server: Arc<Config>) -> World {
        let now = Instant::now();
        World {
            random: Random(seed),
            now,
            client: End::new(Role::Client, &client, now),
            server: End::new(Role::Server, &server, now),
            budget: Budget::new(4 << 20),
            granted: Arc::default(),
            open: HashMap::new(),
            serving: Vec::new(),
            unread: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn tree(&mut self) -> Tree {
        let random = &mut self.random;
        let mut list = Vec::new();
        for _ in 0..random.below(4) {
            let bytes = match random.below(10) {
                0 => 0,
                1..5 => random.below(100),
                5..9 => random.below(50_000),
                _ => random.below(1_400_000),
            };
            let fill = random.next() as u8;
            list.push(Tree::Array(Array::from(vec![fill; bytes as usize])));
        }
        Tree::List(list)
    }

    fn call(&mut self) {
        let Some(max_open_calls) = self.client.outbound.borrow().peer().map(|peer| peer.max_open_calls)
        else {
            return;
        };
        if self.client.outbound.borrow().open_calls() >= max_open_calls as usize {
            return;
        }
        let tree = self.tree();
        let method = if self.random.one_in(5) { "unknown" } else { "echo" };
        let message = Message::call(&CallHead::new(method), &tree, &Limits::default())
            .expect("it is within the limits");
        let open = &mut self.open;
        let register = |id| drop(open.insert(id, tree));
        self.client.outbound.borrow_mut().push_call(message, register).expect("one more is allowed");
    }

    fn answer(&mut self) {
        if self.serving.is_empty() {
            return;
        }
        let index = self.random.below(self.serving.len() as u64) as usize;
        let call = self.serving.swap_remove(index);
        self.settle_on_server(call.hold);
        let tree = call.tree.expect("nothing was changed on the way");
        let message = Message::result(&tree, &Limits::default()).expect("it came within the limits");
        self.server.outbound.borrow_mut().push_answer(call.id, message).expect("it is open");
    }

    fn settle_on_server(&mut self, hold: Hold) {
        if let Hold::Eager { bytes } = hold {
            self.server.outbound.borrow_mut().give_credit(bytes);
        }
    }

    fn withdraw(&mut self) {
        let mut open: Vec<u64> = self.open.keys().copied().collect();
        open.sort_unstable();
        if open.is_empty() {
            return;
        }
        let id = open[self.random.below(open.len() as u64) as usize];
        let withdrawn = self.client.outbound.borrow_mut().withdraw(id);
        match withdrawn {
            Withdrawn::NeverSent => self.seen.never_sent += 1,
            Withdrawn::Aborted => self.seen.aborted += 1,
            Withdrawn::Requested => self.seen.cancelled += 1,
            // Its answer is on the way: the head has come.
            Withdrawn::NotOpen => {}
        }
        if matches!(withdrawn, Withdrawn::NeverSent | Withdrawn::Aborted) {
            self.open.remove(&id);
        }
    }

    /// The server gives up a result that has not gone whole, if the one it picks has not.
    fn give_up(&mut self) {
        if let Some(newest) = self.open.keys().max() {
            let id = 1 + self.random.below(*newest);
            let error = RemoteError::new(ErrorKind::TooSlow, Ran::Yes, "the receiver is too slow");
            self.server.outbound.borrow_mut().replace_answer(id, &error);
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_micros(self.random.below(1000));
        let amount = match self.random.below(3) {
            0 => 1 + self.random.below(40) as usize,
            1 => 1 + self.random.below(20_000) as usize,
            _ => usize::MAX,
        };
        match self.random.below(4) {
            0 => drop(self.client.write_to(&mut self.server, amount)),
            1 => drop(self.server.write_to(&mut self.client, amount)),
            2 => drop(self.client.read(self.now, amount).expect("both keep the rules")),
            _ => drop(self.server.read(self.now, amount).expect("both keep the rules")),
        }
        self.handle_events();
    }

    fn handle_events(&mut self) {
        for event in std::mem::take(&mut self.server.events) {
            match event {
                Event::Call(call) => self.serving.push(call),
                Event::Wants { id, bytes } => {
                    let granted = self.granted.clone();
                    let on_grant =
                        || -> crate::OnGrant { Box::new(move |charge| granted.lock().push((id, charge))) };
                    if let Some(charge) = self.budget.request(1, id, bytes, on_grant) {
                        self.granted.lock().push((id, charge));
                    }
                }
                Event::Withdrawn { id } => self.budget.forget_message(1, id),
                Event::Dropped { hold } => self.settle_on_server(hold),
                Event::Open(_) | Event::Cancel { .. } => {}
                event => panic!("a client sends no {event:?}"),
            }
        }
        for (id, charge) in std::mem::take(&mut *self.granted.lock()) {
            self.server.inbound.grant(id, Hold::Charged(charge), &self.server.outbound);
        }
        for event in std::mem::take(&mut self.client.events) {
            match event {
                Event::Answer { id, answer } => self.answered(id, answer),
                Event::Dropped { hold } => self.unread.push(hold),
                Event::Withdrawn { .. } => {}
                Event::Wants { id, .. } => self.client.inbound.grant(id, Hold::None, &self.client.outbound),
                Event::Open(_) => {}
                event => panic!("the server sent {event:?}"),
            }
        }
    }

    fn answered(&mut self, id: u64, answer: Result<(Result<Tree, DecodeError>, Hold), RemoteError>) {
        let sent = self.open.remove(&id).expect("each call ends once");
        self.seen.answered += 1;
        match answer {
            Ok((tree, hold)) => {
                assert!(tree.expect("nothing was changed on the way") == sent, "call {id} came back changed");
                self.unread.push(hold);
            }
            Err(error) => match error.kind {
                ErrorKind::UnknownMethod => self.seen.refused += 1,
                ErrorKind::Overloaded => self.seen.overloaded += 1,
                ErrorKind::TooSlow => self.seen.given_up += 1,
                _ => panic!("nothing else fails: {error}"),
            },
        }
    }

    fn read_a_result(&mut self) {
        if let Some(Hold::Eager { bytes }) = self.unread.pop() {
            self.client.outbound.borrow_mut().give_credit(bytes);
        }
    }

    /// Lets everything that was begun come to its end.
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 20 {
            let before = (self.seen.answered, self.client.arriving.len() + self.server.arriving.len());
            for _ in 0..10 {
                self.step();
                self.answer();
                self.read_a_result();
            }
            let after = (self.seen.answered, self.client.arriving.len() + self.server.arriving.len());
            idle = if before == after { idle + 1 } else { 0 };
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..600 {
        match world.random.below(12) {
            0 => world.call(),
            1 => world.answer(),
            2 => world.read_a_result(),
            3 if world.random.one_in(3) => world.withdraw(),
            4 if world.random.one_in(3) => world.give_up(),
            _ => world.step(),
        }
    }
    world.settle();
    world
}

/// Names the seed when a run fails, whatever fails it.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing seed is {}", self.0);
        }
    }
}

#[test]
fn every_call_ends_once_whatever_the_network_does() {
    let mut seen = Seen::default();
    for seed in 0..300 {
        let _named = Named(seed);
        let world = run(seed);
        assert!(world.open.is_empty(), "calls {:?} never ended", world.open.keys());
        assert_eq!(world.budget.used_bytes(), 0, "the budget is whole again");
        assert_eq!(world.budget.waiting(), 0);
        for (end, other) in [(&world.client, &world.server), (&world.server, &world.client)] {
            assert_eq!(end.inbound.unfinished(), 0);
            let outbound = end.outbound.borrow();
            assert_eq!((outbound.queued_bytes(), outbound.open_calls()), (0, 0));
            let whole = outbound.peer().expect("they said hello").eager_credit_bytes;
            assert_eq!(outbound.credit_bytes(), whole, "all credit came back, and nothing waits to be given");
            assert!(!other.outbound.borrow().has_work());
        }
        seen.add(&world.seen);
    }
    assert!(seen.answered > 3000, "the runs do something: {seen:?}");
    let rare = [seen.refused, seen.overloaded, seen.given_up, seen.never_sent, seen.aborted, seen.cancelled];
    assert!(rare.iter().all(|count| *count > 50), "each case occurs: {seen:?}");
}

fn opened() -> World {
    opened_with(Config::default(), Config::default())
}

fn opened_with(client: Config, server: Config) -> World {
    let mut world = World::of(1, Arc::new(client), Arc::new(server));
    while world.client.outbound.borrow().peer().is_none() || world.server.outbound.borrow().peer().is_none() {
        world.step();
    }
    world
}

fn push(world: &mut World, bytes: usize) -> u64 {
    let tree = Tree::Array(Array::from(vec![0u8; bytes]));
    let message =
        Message::call(&CallHead::new("echo"), &tree, &Limits::default()).expect("it is within the limits");
    let open = &mut world.open;
    world
        .client
        .outbound
        .borrow_mut()
        .push_call(message, |id| drop(open.insert(id, Tree::Null)))
        .expect("it is open")
}

/// Stages and delivers until a call with this id has arrived; gives the bytes that went before it.
fn bytes_before(world: &mut World, id: u64) -> usize {
    let mut bytes = 0;
    loop {
        world.client.write_to(&mut world.server, usize::MAX);
        bytes += world.server.arriving.len();
        while !world.server.arriving.is_empty() {
            world.server.read(world.now, usize::MAX).expect("the client keeps the rules");
        }
        world.server.write_to(&mut world.client, usize::MAX);
        while !world.client.arriving.is_empty() {
            world.client.read(world.now, usize::MAX).expect("the server keeps the rules");
        }
        world.handle_events();
        if world.serving.iter().any(|call| call.id == id) {
            return bytes;
        }
    }
}

#[test]
fn a_small_call_waits_for_one_large_chunk_at_most() {
    let mut world = opened();
    let large = push(&mut world, 3 << 20);
    // Let the large call's transfer begin.
    for _ in 0..3 {
        let warm_up = push(&mut world, 10);
        bytes_before(&mut world, warm_up);
    }
    assert!(!world.serving.iter().any(|call| call.id == large));
    let small = push(&mut world, 1024);
    let before = bytes_before(&mut world, small);
    assert!(before <= (1 << 20) + 4096, "{before} bytes went before a small call and with it");
    bytes_before(&mut world, large);
}

#[test]
fn a_flood_of_small_calls_does_not_starve_a_large_one() {
    let mut world = opened();
    let large = push(&mut world, 3 << 20);
    let mut small_bytes = 0;
    while !world.serving.iter().any(|call| call.id == large) {
        assert!(small_bytes < 20 << 20, "the large call never arrives");
        let id = push(&mut world, 60_000);
        bytes_before(&mut world, id);
        small_bytes += 60_000;
        world.answer_all_but(large);
    }
}

impl World {
    fn answer_all_but(&mut self, large: u64) {
        let serving = std::mem::take(&mut self.serving);
        for call in serving {
            if call.id == large {
                self.serving.push(call);
                continue;
            }
            self.settle_on_server(call.hold);
            let message = Message::result(&Tree::Null, &Limits::default()).expect("null fits");
            self.server.outbound.borrow_mut().push_answer(call.id, message).expect("it is open");
        }
    }
}

#[test]
fn results_that_a_client_does_not_fetch_are_calls_that_it_has_open() {
    let client = Config { eager_credit_bytes: 0, ..Config::default() };
    let server = Config { max_open_calls: 40, ..Config::default() };
    let mut world = opened_with(client.clone(), server.clone());
    let large = Tree::Array(Array::from(vec![0u8; 300_000]));
    for _ in 0..40 {
        let id = push(&mut world, 10);
        bytes_before(&mut world, id);
        let call = world.serving.pop().expect("it has arrived");
        world.settle_on_server(call.hold);
        let message = Message::result(&large, &Limits::default()).expect("it is within the limits");
        world.server.outbound.borrow_mut().push_answer(call.id, message).expect("it is open");
        // The head of the result goes to the client, which never hears of it, and so grants nothing.
        let mut lost = End::new(Role::Client, &Arc::new(client.clone()), world.now);
        world.server.write_to(&mut lost, usize::MAX);
    }
    let mut outbound = world.server.outbound.borrow_mut();
    let overrun = outbound.call_arrived(1000, 0, &server);
    assert!(matches!(overrun, Err(ProtocolError::TooManyCalls { max_open_calls: 40 })), "{overrun:?}");
}

#[test]
fn a_call_that_was_queued_when_the_connection_ended_was_never_sent() {
    let mut world = opened();
    let id = push(&mut world, 10);
    let mut outbound = world.client.outbound.borrow_mut();
    outbound.end();
    assert_eq!(outbound.withdraw(id), Withdrawn::NeverSent);
}
