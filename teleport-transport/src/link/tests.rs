//! The threads and the event loop of one link, step by step. The poller has no thread: each test runs
//! its commands.

use std::sync::Arc;
#[cfg(loom)]
mod models;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use teleport_wire::{Array, CallHead, Hello, Limits, Message, RemoteError, Tree, tree};

use super::link::Link;
use super::port::Flush;
use super::reader::{UNWATCHED, handle_timeout, read};
use super::reader_role::ReaderRole;
use super::status::{Flag, QuietTimeout};
use super::{Answers, Calls, Handler, TurnClock, coalesce, flush_coalesced};
use crate::config::{Config, random_id};
use crate::net::socket::Socket;
use crate::net::socket::listener::Listener;
use crate::protocol::{Call, Closed, Gate, Lease, Role, Withdrawn};
use crate::reactor::StillPoller;
use crate::reactor::mailbox::Command;
use crate::reactor::source::{READ_AHEAD_BYTES, Scratch, Source, Turn};
use crate::reactor::wakers::Wakers;

/// The layer above both ends.
#[derive(Default)]
struct Above {
    is_waited_for: AtomicBool,
    /// Woken by each answer.
    waker: Mutex<Option<Waker>>,
    calls: Mutex<Vec<Call>>,
    /// The ids of messages that the peer has acknowledged.
    acknowledged: Mutex<Vec<u64>>,
}

impl Gate for Above {
    fn admit(&self, _method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        Ok(0)
    }
}

impl Handler for Above {
    fn opened(&self, _link: &Arc<Link>, _peer: &Hello) {}

    fn called(&self, _link: &Arc<Link>, calls: Calls<'_, '_>, _: &mut TurnClock) {
        self.calls.lock().extend(calls);
    }

    fn answered(&self, _: &Arc<Link>, _: Answers<'_, '_>, wakers: &mut Wakers) {
        self.waker.lock().iter().for_each(|waker| wakers.push(waker.clone()));
    }

    fn acknowledged(&self, _link: &Arc<Link>, ids: &[u64]) {
        self.acknowledged.lock().extend_from_slice(ids);
    }

    fn is_waited_for(&self) -> bool {
        self.is_waited_for.load(Ordering::SeqCst)
    }

    fn closed(&self, _link: &Arc<Link>, _reason: &Arc<Closed>, _wakers: &mut Wakers) {}
}

/// Both ends of an open connection.
struct Pair {
    poller: StillPoller,
    client: Arc<Link>,
    server: Arc<Link>,
    above_client: Arc<Above>,
    above_server: Arc<Above>,
    scratch: Scratch,
}

impl Pair {
    fn new() -> Pair {
        Pair::with(Config::default())
    }

    fn with(config: Config) -> Pair {
        let poller = StillPoller::new();
        let [client, server] = sockets();
        let config = Arc::new(config);
        let (above_client, above_server) = (Arc::new(Above::default()), Arc::new(Above::default()));
        let client = Link::new(&poller.poller, client, Role::Client, &config, None, above_client.clone());
        let server = Link::new(&poller.poller, server, Role::Server, &config, None, above_server.clone());
        let mut pair = Pair { poller, client, server, above_client, above_server, scratch: Scratch::new() };
        for link in [&pair.client, &pair.server] {
            link.writer.lock().try_register(&link.port).expect("there are descriptors");
            link.flush();
        }
        pair.read_both();
        assert!(pair.client.peer().is_some() && pair.server.peer().is_some());
        pair.poller.commands();

        pair
    }

    /// Reads until each socket is empty. On a slow machine, that takes more than one turn.
    fn read_both(&mut self) {
        for link in [&self.client, &self.server] {
            let mut turn = Turn::More;
            while turn == Turn::More {
                turn = read(link, &mut self.scratch, Instant::now());
            }
            assert!(matches!(turn, Turn::Drained | Turn::Empty));
        }
    }

    fn call(&self, tree: &Tree) -> u64 {
        let message = Message::call(&CallHead::new("act"), tree, &Limits::default()).expect("it is small");
        self.client.call(message, |_| true).expect("it is open")
    }

    /// Takes the calls that have arrived, with their leases.
    fn calls(&mut self) -> Vec<Call> {
        self.read_both();
        std::mem::take(&mut self.above_server.calls.lock())
    }

    fn answer(&mut self, id: u64) {
        let message = Message::result(&Tree::Null, &Limits::default()).expect("it is small");
        self.server.answer(id, message).expect("it is open");
        self.read_both();
    }

    /// Returns the time of a check of the client's link, if one was requested since commands were last
    /// taken.
    fn asked_check(&self) -> Option<Instant> {
        self.poller.commands().into_iter().find_map(|command| match command {
            Command::Check(key, at) if key == self.client.key() => Some(at),
            _ => None,
        })
    }

    fn check(&self, now: Instant) -> Option<Instant> {
        coalesce::check(&self.client.port, &self.client.writer, now, true)
    }

    /// Leaves the link as a thread does that finds the socket full.
    fn fill_socket(&self) {
        self.client.writer.block(&self.client.port);
    }

    fn is_held(&self) -> bool {
        self.client.port.status.has(Flag::COALESCED)
    }
}

/// Two ends of one stream.
fn sockets() -> [Socket; 2] {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let address = format!("ipc://@teleport-link-test-{}-{number}", std::process::id());
    let listener = Listener::bind(&address.parse().expect("it is an address")).expect("it is free");
    let client = Socket::connect(listener.address(), None).expect("it listens");
    let server = listener.accept().expect("there are descriptors").expect("the client has connected");
    [client, server]
}

fn is_watched(link: &Link) -> bool {
    link.port.status.interest().is_some_and(mio::Interest::is_readable)
}

// ---- Reading ----

#[test]
fn the_event_loop_reads_after_a_leader_if_a_thread_waits() {
    let pair = Pair::new();
    pair.call(&Tree::Null);
    let role = pair.client.lead().expect("nobody reads");
    // While a thread leads, the event loop does not watch.
    pair.client.expect_answers();
    assert!(!is_watched(&pair.client) && pair.client.lead().is_none());
    pair.above_client.is_waited_for.store(true, Ordering::SeqCst);
    drop(role);
    assert!(is_watched(&pair.client), "nobody reads");
}

#[test]
fn a_link_whose_last_call_is_withdrawn_is_watched_again() {
    let mut pair = Pair::new();
    // The socket is full, so no answer can come.
    pair.fill_socket();
    let id = pair.call(&Tree::Null);
    drop(pair.client.lead().expect("nobody reads"));
    let commands = pair.poller.commands();
    assert!(!is_watched(&pair.client));
    assert_eq!(pair.client.withdraw(id), Withdrawn::NeverSent);
    let mut now = Instant::now();
    for command in commands {
        match command {
            Command::Check(..) => while pair.check(now).is_some() {},
            Command::Timeout(_, at) => {
                for _ in 0..2 {
                    now = now.max(at) + UNWATCHED;
                    handle_timeout(&pair.client, &mut pair.scratch, now).expect("it goes on");
                }
            }
            _ => {}
        }
    }
    assert!(is_watched(&pair.client), "nobody reads");
}

#[test]
fn events_from_before_a_link_is_attached_are_reported_again() {
    let mut pair = Pair::new();
    // This holds while a thread leads, too.
    let role = pair.client.lead().expect("nobody reads");
    pair.fill_socket();
    assert!(pair.poller.is_writable(pair.client.key()));
    assert!(!pair.poller.is_writable(pair.client.key()), "the kernel tells of it once");
    pair.client.clone().on_attached();
    assert!(pair.poller.is_writable(pair.client.key()));
    drop(role);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn an_answer_does_not_wait_for_the_large_one_behind_it() {
    let mut pair = Pair::new();
    let ids = [pair.call(&tree!(1)), pair.call(&tree!(2))];
    flush_coalesced();
    drop(pair.calls());
    let woken = Arc::new(Woken::default());
    *pair.above_client.waker.lock() = Some(woken.clone().into());
    let answer = |pair: &Pair, id, bytes: usize| {
        let tree = tree!(Array::from(vec![0u8; bytes]));
        let message = Message::result(&tree, &Limits::default()).expect("it comes within the limits");
        pair.server.answer(id, message).expect("it is open");
    };
    answer(&pair, ids[0], 4 << 20);
    // The large answer is granted, and fills the socket.
    pair.read_both();
    assert!(pair.server.port.status.has(Flag::BLOCKED));
    answer(&pair, ids[1], 1);
    while woken.0.load(Ordering::SeqCst) == 0 {
        read(&pair.client, &mut pair.scratch, Instant::now());
        pair.server.writer.on_writable(&pair.server.port);
    }
    // The turn of reading ended before the socket was empty.
    let remaining = pair.client.receiving.lock().inbound.chunk_remaining();
    assert!(remaining >= (256 << 10) - READ_AHEAD_BYTES, "{remaining}");
}

// ---- Coalescing ----

#[test]
fn calls_that_are_left_behind_are_held_back_ever_less_often() {
    let pair = Pair::new();
    pair.call(&Tree::Null);
    assert!(!pair.is_held(), "it is the only one");
    for let_pass in [0, 4, 8, 16, 32] {
        let not_held = (0..).take_while(|_| {
            pair.call(&Tree::Null);
            !pair.is_held()
        });
        assert_eq!(not_held.count(), let_pass);
        pair.asked_check().expect("the event loop checks");
        let now = Instant::now();
        assert!(pair.check(now).is_some() && pair.is_held());
        assert!(pair.check(now).is_some() && !pair.is_held(), "it was sent at the second check");
        while pair.check(now).is_some() {}
    }
}

#[test]
fn a_link_in_motion_is_checked_less_often() {
    let pair = Pair::new();
    pair.call(&Tree::Null);
    let now = Instant::now();
    let pause = |pair: &Pair| (pair.check(now).expect("it goes on") - now).as_micros();
    let hold = |pair: &Pair| {
        pair.call(&Tree::Null);
        assert!(pair.is_held());
    };
    hold(&pair);
    pair.asked_check().expect("the event loop checks");
    for expected in [200, 400, 800, 1600, 1600] {
        assert_eq!(pause(&pair), expected);
        flush_coalesced();
        hold(&pair);
    }
    assert_eq!(pause(&pair), 1600);
    assert!(pair.is_held());
    assert_eq!(pause(&pair), 200);
    assert!(!pair.is_held(), "it was left behind");
}

#[test]
fn nothing_is_held_back_from_a_socket_that_is_full() {
    let pair = Pair::new();
    pair.call(&Tree::Null);
    pair.fill_socket();
    for _ in 0..3 {
        pair.call(&Tree::Null);
        assert!(!pair.is_held(), "it goes when the socket is writable");
    }
    assert!(pair.asked_check().is_none());
    pair.client.writer.on_writable(&pair.client.port);
    pair.call(&Tree::Null);
    assert!(pair.is_held());
}

#[test]
fn answers_of_one_thread_go_together() {
    let mut pair = Pair::new();
    let ids: Vec<u64> = (0..3).map(|_| pair.call(&Tree::Null)).collect();
    pair.client.flush();
    drop(pair.calls());
    let answer = |pair: &Pair, id| {
        let message = Message::result(&Tree::Null, &Limits::default()).expect("it is small");
        pair.server.answer(id, message).expect("it is open");
    };
    let server = pair.server.clone();
    let together = server.answers_together();
    answer(&pair, ids[0]);
    answer(&pair, ids[1]);
    pair.read_both();
    assert_eq!(pair.client.writer.lock().outbound.open_calls(), 3, "both wait for more");
    drop(together);
    pair.read_both();
    assert_eq!(pair.client.writer.lock().outbound.open_calls(), 1, "nobody is left to hold them");
    pair.answer(ids[2]);
    assert_eq!(pair.client.writer.lock().outbound.open_calls(), 0, "it waits for no other");
}

#[test]
fn what_a_leader_acknowledges_goes_with_its_next_call_or_before_it_waits_or_soon_after_it_left() {
    let session = random_id();
    let mut pair = Pair::with(Config { session, resume: true, ..Config::default() });
    let next_steps: [fn(&mut Pair, ReaderRole); 3] = [
        |pair, _| {
            let id = pair.call(&Tree::Null);
            assert_eq!(pair.calls().len(), 1);
            pair.answer(id);
        },
        |pair, mut role| assert_eq!(role.spin(&mut pair.scratch, Some(Duration::ZERO)), Turn::Empty),
        |pair, role| {
            drop(role);
            let link = &pair.client;
            let asked = pair.poller.commands().into_iter().any(|command| {
                matches!(command, Command::Timeout(key, at) if key == link.key() && at <= Instant::now() + UNWATCHED)
            });
            assert!(asked || link.port.status.handle_quiet_timeout(&mut 0) != QuietTimeout::Done);
            handle_timeout(link, &mut pair.scratch, Instant::now());
        },
    ];
    for next_step in next_steps {
        let role = pair.client.lead().expect("nobody leads");
        let id = pair.call(&Tree::Null);
        pair.calls();
        pair.answer(id);
        pair.client.acknowledge(&[id]);
        pair.read_both();
        assert!(pair.is_held() && pair.above_server.acknowledged.lock().is_empty());
        next_step(&mut pair, role);
        pair.read_both();
        assert!(!pair.is_held());
        assert_eq!(std::mem::take(&mut *pair.above_server.acknowledged.lock()), [id]);
    }
}

#[test]
fn expecting_answers_sends_the_calls_of_other_threads() {
    let mut pair = Pair::new();
    pair.call(&Tree::Null);
    std::thread::scope(|scope| {
        scope.spawn(|| pair.call(&Tree::Null)).join().expect("it does not panic");
    });
    assert!(pair.is_held());
    pair.client.expect_answers();
    assert!(!pair.is_held());
    assert_eq!(pair.calls().len(), 2);
}

// ---- Eager credit ----

const CREDIT_BYTES: u64 = 128 << 10;

impl Pair {
    fn credit_bytes(&self) -> u64 {
        self.client.writer.lock().outbound.ledger().credit_bytes()
    }
}

#[test]
fn credit_goes_along_from_a_sixteenth_on_and_by_itself_from_a_quarter_on() {
    let mut pair = Pair::with(Config { eager_credit_bytes: CREDIT_BYTES, ..Config::default() });
    let sixteenth = tree!(Array::from(vec![0u8; CREDIT_BYTES as usize / 16]));
    let ids: Vec<u64> = (0..12).map(|_| pair.call(&sixteenth)).collect();
    flush_coalesced();
    let mut leases: Vec<Lease> = pair.calls().into_iter().map(|call| call.lease).collect();
    let (whole, sixteenths) = (CREDIT_BYTES, |n: u64| n * CREDIT_BYTES / 16);
    assert_eq!(pair.credit_bytes(), whole - sixteenths(12));

    // Returned credit is sent with the next answer, not before.
    pair.answer(ids[0]);
    leases.truncate(10);
    pair.read_both();
    assert_eq!(pair.credit_bytes(), whole - sixteenths(12));
    pair.answer(ids[1]);
    assert_eq!(pair.credit_bytes(), whole - sixteenths(10));
    pair.answer(ids[2]);
    assert_eq!(pair.credit_bytes(), whole - sixteenths(10));

    // From a quarter of the credit on, it is sent at once.
    leases.truncate(7);
    pair.read_both();
    assert_eq!(pair.credit_bytes(), whole - sixteenths(10));
    leases.truncate(6);
    pair.read_both();
    assert_eq!(pair.credit_bytes(), whole - sixteenths(6));
}

#[test]
fn the_credit_of_small_messages_goes_along_while_they_are_held() {
    let mut pair = Pair::with(Config { eager_credit_bytes: CREDIT_BYTES, ..Config::default() });
    let small = tree!(Array::from(vec![0u8; CREDIT_BYTES as usize / 32]));
    let ids: Vec<u64> = (0..4).map(|_| pair.call(&small)).collect();
    flush_coalesced();
    let calls = pair.calls();
    assert_eq!(pair.credit_bytes(), CREDIT_BYTES / 32 * 28);
    pair.answer(ids[0]);
    assert_eq!(pair.credit_bytes(), CREDIT_BYTES);
    // A quarter is sent without an answer.
    let ids: Vec<u64> = (0..8).map(|_| pair.call(&small)).collect();
    flush_coalesced();
    assert_eq!((pair.calls().len(), calls.len(), ids.len()), (8, 4, 8));
    pair.read_both();
    assert_eq!(pair.credit_bytes(), CREDIT_BYTES);
}

#[test]
fn little_credit_goes_along_with_nothing() {
    let mut pair = Pair::with(Config { eager_credit_bytes: CREDIT_BYTES, ..Config::default() });
    let id = pair.call(&tree!(Array::from(vec![0u8; CREDIT_BYTES as usize / 16 - 1])));
    drop(pair.calls());
    pair.answer(id);
    assert_eq!(pair.credit_bytes(), CREDIT_BYTES / 16 * 15 + 1);
}

#[test]
fn a_busy_link_does_not_starve_others() {
    let mut pair = Pair::new();
    let id = pair.call(&tree!(0));
    flush_coalesced();
    pair.calls();
    let answer = Message::result(&tree!(0), &Limits::default()).expect("it is small");
    pair.server.answer(id, answer).expect("it is open");
    // The client's answer must be found, while the server's end has another call in each round.
    let (client, server) = (pair.client.clone(), pair.server.clone());
    let rounds = pair.poller.rounds_until_found(Box::new(server), client.key(), || {
        let call = Message::call(&CallHead::new("act"), &tree!(1), &Limits::default()).expect("it is small");
        client.call(call, |_| true).expect("it is open");
        flush_coalesced();
    });
    assert!(rounds.is_some(), "the client is never read");
}

#[test]
fn more_pieces_than_a_system_call_takes_do_not_mean_a_full_socket() {
    let pair = Pair::new();
    // Each array is too large to be copied next to its neighbour.
    let arrays = (0..80).map(|_| tree!(Array::from(vec![0u8; 3000]))).collect();
    pair.call(&Tree::List(arrays));
    assert!(pair.client.writer.lock().is_idle() && pair.client.queued_bytes() == 0);
}
