//! Peers that move memory too slowly while others wait for it. The tests run one connection of a server
//! in virtual time.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use teleport_wire::{
    Array, CallHead, FrameHeader, Header, Hello, Kind, Limits, Message, Preface, RemoteError, Tree,
    encode_frame, encode_ids,
};

use crate::memory::budget::Budget;
use crate::protocol::*;

const S: Duration = Duration::from_secs(1);
const BYTES: usize = 100_000;

struct AllowAll;

impl Gate for AllowAll {
    fn admit(&self, _: &str, _: u64) -> Result<u32, RemoteError> {
        Ok(0)
    }
}

/// A server's side that expects 1,000 bytes a second, with a budget for which others always wait.
struct World {
    inbound: Inbound,
    outbound: RefCell<Outbound>,
    budget: Budget,
    now: Instant,
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let config = Config { min_rate: 1000, min_rate_window: 5 * S, ..Config::default() };
        let budget = Budget::new(1 << 20);
        let (inbound, outbound) = halves(Role::Server, &Arc::new(config), Some(budget.clone()), now, || {});
        let mut world = World { inbound, outbound: RefCell::new(outbound), budget, now };
        let hello: Hello = Config { eager_credit_bytes: 0, ..Config::default() }.hello(Role::Client);
        world.feed(&[&Preface::BYTES[..], &encode_frame(Kind::Hello, 0, &hello.encode())].concat());
        world
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        let mut ahead = [0; 4096];
        while !bytes.is_empty() {
            let read = |slices: &mut [io::IoSliceMut<'_>]| io::Read::read_vectored(&mut bytes, slices);
            self.inbound
                .on_readable(self.now, &mut ahead, &self.outbound, &AllowAll, &mut Vec::new(), read)
                .expect("the rules are kept");
        }
    }

    /// Receives the head of a call, and grants its memory.
    fn begin_call(&mut self, id: u64) {
        let tree = Tree::Array(Array::from(vec![0u8; BYTES]));
        let message = Message::call(&CallHead::new("m"), &tree, &Limits::default()).expect("it is small");
        self.feed(&[&message.header(id, false)[..], message.metadata()].concat());
        let charge = self.budget.charge_anyway(message.memory_bytes());
        self.inbound.send_grant(id, Some(charge), &self.outbound);
    }

    fn feed_chunk(&mut self, id: u64, bytes: usize) {
        self.feed(&Header::data(id, bytes as u64, None).encode());
        self.feed(&vec![0; bytes]);
    }

    fn look(&mut self) -> Result<Option<Instant>, Closed> {
        self.inbound.handle_rate_timeout(self.now, 0, &self.outbound, || true)
    }

    /// Checks the rate `count` times, every 5 s.
    fn windows(&mut self, count: u32) {
        for _ in 0..count {
            self.now += 5 * S;
            assert_eq!(self.look().expect("the connection goes on"), Some(self.now + 5 * S));
        }
    }

    /// Returns the kinds of the frames that are sent now.
    fn sent(&mut self) -> Vec<Kind> {
        let (mut staged, mut kinds, mut bytes) = (WriteBuffer::default(), Vec::new(), Vec::new());
        while self.outbound.borrow().has_work() {
            self.outbound.borrow_mut().poll_write(&mut staged);
            while !staged.is_empty() {
                let mut slices = [io::IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
                let filled = staged.slices(&mut slices);
                let more: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                staged.advance(more.len());
                bytes.extend(more);
            }
        }
        let mut rest = bytes.strip_prefix(&Preface::BYTES[..]).unwrap_or(&bytes);
        while let Some((header, behind)) = rest.split_first_chunk() {
            let header = Header::decode(header, &Limits::default()).expect("it keeps the format");
            let FrameHeader::Known(header) = header else { panic!("it sends only known frames") };
            kinds.push(header.kind);
            rest = &behind[header.length as usize..];
        }
        kinds
    }
}

#[test]
fn slow_arguments_are_given_up() {
    let mut world = World::new();
    assert!(matches!(world.look(), Ok(None)), "it holds nothing");
    world.begin_call(1);
    world.now += S;
    assert!(matches!(world.look(), Ok(Some(_))));
    for _ in 0..4 {
        world.feed_chunk(1, 5000);
        world.windows(1);
    }
    // A call that began in this window is not judged at its end.
    world.begin_call(2);
    world.feed_chunk(1, 4999);
    world.windows(1);
    assert_eq!(world.budget.used_bytes(), BYTES as u64);
    assert_eq!(world.sent(), [Kind::Hello, Kind::Grant, Kind::Error]);
    // The rest of the first call is dropped, but counts as moved.
    world.feed_chunk(1, BYTES - 24_999);
    world.windows(1);
    assert_eq!((world.budget.used_bytes(), world.inbound.unfinished()), (BYTES as u64, 1));
    world.windows(1);
    assert_eq!((world.budget.used_bytes(), world.sent()), (0, vec![Kind::Error]));
    world.now += 5 * S;
    assert!(matches!(world.look(), Ok(None)), "it holds nothing more");
}

#[test]
fn slow_results_are_replaced_and_others_go_on() {
    let mut world = World::new();
    for id in 1..=2 {
        let call = Message::call(&CallHead::new("m"), &Tree::Null, &Limits::default()).expect("it is small");
        world.feed(&[&call.header(id, false)[..], call.metadata()].concat());
        let tree = Tree::Array(Array::from(vec![0u8; BYTES]));
        let result = Message::result(&tree, &Limits::default()).expect("it is small");
        world.outbound.get_mut().send_answer(id, result).expect("it is open");
    }
    assert_eq!(world.sent(), [Kind::Hello, Kind::Result, Kind::Result]);
    assert!(matches!(world.look(), Ok(Some(_))));
    // The first result is fetched in this window. The second is never fetched.
    world.feed(&encode_frame(Kind::Grant, 0, &encode_ids(&[1])));
    assert_eq!(world.sent(), [Kind::Data]);
    world.windows(1);
    assert_eq!(world.outbound.borrow().ledger().unsent_bytes().all, BYTES as u64);
    world.windows(1);
    assert_eq!((world.budget.used_bytes(), world.outbound.borrow().ledger().unsent_bytes().all), (0, 0));
    assert_eq!(world.sent(), [Kind::Abort, Kind::Error]);
}

#[test]
fn a_large_slow_frame_ends_the_connection() {
    let mut world = World::new();
    world.feed(&Header { length: 1 << 20, ..Header::empty(Kind::Call, 1) }.encode());
    world.feed(&[0; 64 << 10]);
    assert!(!world.inbound.poll_charged(), "that is little");
    world.feed(&[0; 1000]);
    assert!(world.inbound.poll_charged());
    assert!(!world.inbound.poll_charged(), "only the first time is new");
    assert_eq!(world.budget.used_bytes(), 128 << 10);
    assert!(matches!(world.look(), Ok(Some(_))));
    for _ in 0..4 {
        world.feed(&[0; 5000]);
        world.windows(1);
    }
    world.now += 5 * S;
    assert!(matches!(world.look(), Err(Closed::TooSlow { min_rate: 1000 })));
    world.inbound.discard();
    assert_eq!(world.budget.used_bytes(), 0);
}

#[test]
fn errors_say_what_was_slow() {
    let mut world = World::new();
    world.begin_call(1);
    world.look().expect("the connection goes on");
    world.windows(1);
    let mut staged = WriteBuffer::default();
    world.outbound.get_mut().poll_write(&mut staged);
    let mut slices = [io::IoSlice::new(&[]); MAX_SEGMENTS_PER_WRITE];
    let filled = staged.slices(&mut slices);
    let bytes = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
    let text = b"the arguments came slower than 1000 bytes per second (the server's `min_rate`)";
    assert!(bytes.windows(text.len()).any(|window| window == text));
}
