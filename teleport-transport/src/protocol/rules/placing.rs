//! Calls that are received into rows: in any pieces, moved and vacated meanwhile, refused, and cut
//! short.

use std::cell::Cell;
use std::io::IoSliceMut;

use parking_lot::Mutex;
use teleport_wire::{BatchLayout, Order, Signature, tree};

use super::*;
use crate::memory::pool::Pool;
use crate::memory::rows::{Pages, Row, Rows, Slab, Ticket};

const ROWS: usize = 3;

/// The layer above: a slab, the row of each call, and the calls that were abandoned.
#[derive(Default)]
pub(super) struct Batch {
    slab: Option<Slab>,
    pub(super) rows: Vec<Arc<Row>>,
    pub(super) abandoned: Vec<u64>,
    pub(super) refuses: bool,
}

#[derive(Clone, Default)]
pub(super) struct Above(pub(super) Arc<Mutex<Batch>>);

impl Rows for Above {
    fn abandoned(&self, key: u64) {
        self.0.lock().abandoned.push(key);
    }
}

impl Gate for Above {
    fn admit(&self, method: &str, _payload_bytes: u64) -> Result<u32, RemoteError> {
        Refusing.admit(method, 0).map(|_| u32::from(method == "row"))
    }

    fn admit_tree(&self, slot: u32, signature: &Arc<Signature>) -> Result<(), RemoteError> {
        let unfit = |error: teleport_wire::TreeError| {
            RemoteError::new(ErrorKind::BadArguments, Ran::No, error.to_string())
        };
        if slot == 1 { signature.check_stackable().map_err(unfit) } else { Ok(()) }
    }

    fn place(
        &self,
        slot: u32,
        signature: &Arc<Signature>,
        _order: &Order,
    ) -> Result<Option<Ticket>, RemoteError> {
        let batch = &mut *self.0.lock();
        if batch.refuses {
            return Err(RemoteError::new(ErrorKind::Overloaded, Ran::No, "too many rows wait"));
        }
        if slot != 1 {
            return Ok(None);
        }
        let slab = batch.slab.get_or_insert_with(|| new_slab(signature));
        let key = batch.rows.len() as u64;
        // Calls of another signature have a slab of their own.
        let memory = if slab.stacked().signature() == signature {
            slab.claim(key as usize)
        } else {
            new_slab(signature).claim(0)
        };
        let ticket = Ticket::new(memory, key, Arc::new(self.clone()));
        batch.rows.push(ticket.row().clone());
        Ok(Some(ticket))
    }
}

pub(super) fn new_slab(signature: &Arc<Signature>) -> Slab {
    let stacked = BatchLayout::new(signature.clone(), ROWS).expect("it is small");
    Slab::new(Arc::new(stacked), &Pool::new(0), Pages::Usual).expect("there is memory")
}

impl Above {
    fn abandoned(&self) -> Vec<u64> {
        self.0.lock().abandoned.clone()
    }

    fn row(&self, index: usize) -> Arc<Row> {
        self.0.lock().rows[index].clone()
    }

    /// Returns the first rows as a tree, once nothing is received into them any more.
    fn take(&self, rows: usize) -> Tree {
        let batch = &mut *self.0.lock();
        batch.rows.iter().for_each(|row| drop(row.vacate()));
        let slab = batch.slab.take().expect("a call arrived");
        slab.into_tree(&Order::sorted(), rows, None).expect("no row is claimed")
    }
}

fn server(above: &Above) -> Side {
    let mut side = Side { gate: Box::new(above.clone()), ..Side::server() };
    side.events();
    side
}

/// Creates arguments whose payload has three separate pieces. They differ by `seed`.
fn arguments(seed: u8) -> Tree {
    let array = |bytes: usize| Array::from((0..bytes).map(|byte| seed ^ byte as u8).collect::<Vec<_>>());
    tree!({"image": array(40), "none": null, "step": i64::from(seed), "last": array(7)})
}

const PAYLOAD_BYTES: usize = 40 + 8 + 7;

fn message(seed: u8) -> Message {
    Message::call(&CallHead::new("row"), &arguments(seed), &Limits::default()).expect("it is small")
}

/// Encodes the payload in chunks of at most `bytes`.
fn chunks(id: u64, seed: u8, bytes: usize) -> Vec<u8> {
    let payload: Vec<u8> = message(seed).payload().flatten().copied().collect();
    assert_eq!(payload.len(), PAYLOAD_BYTES);
    let frame = |chunk: &[u8]| {
        let crc = teleport_wire::checksum(0, chunk);
        [&Header::data(id, chunk.len() as u64, Some(crc)).encode()[..], chunk].concat()
    };
    payload.chunks(bytes).flat_map(frame).collect()
}

fn whole(id: u64, seed: u8, bytes: usize) -> Vec<u8> {
    [head(id, &message(seed), true), chunks(id, seed, bytes)].concat()
}

/// Returns the calls that arrived, each with its row.
fn arrived(side: &mut Side) -> Vec<Call> {
    let calls = std::mem::take(&mut side.events).into_iter().filter_map(|event| match event {
        Event::Call(call) => Some(call),
        _ => None,
    });
    calls.collect()
}

#[test]
fn a_call_comes_into_its_row_in_any_pieces() {
    for chunk in [1, 9, 40, PAYLOAD_BYTES] {
        let frames = whole(1, 3, chunk);
        for split in 0..frames.len() {
            let above = Above::default();
            let mut side = server(&above);
            side.feed(&frames[..split]).expect("it is legal");
            side.feed(&frames[split..]).expect("it is legal");
            let [call] = &mut arrived(&mut side)[..] else { panic!("one call must arrive") };
            assert!(matches!(call.tree, Ok(Tree::Null)), "its arguments are in the row");
            assert_eq!(call.row.take().map(Ticket::complete), Some(0));
            assert_eq!(above.row(0).filled_bytes(), PAYLOAD_BYTES as u64);
            assert_eq!(above.take(1).unstack().expect("it is stacked"), [arguments(3)]);
            assert!(above.abandoned().is_empty());
        }
    }
}

#[test]
fn calls_come_side_by_side() {
    let above = Above::default();
    let mut side = server(&above);
    side.feed(&[head(1, &message(1), true), head(2, &message(2), true), whole(3, 3, 20)].concat())
        .expect("it is legal");
    let (one, two) = (chunks(1, 1, 10), chunks(2, 2, 10));
    // The frame of a chunk is its header and ten bytes.
    for (one, two) in one.chunks(42).zip(two.chunks(42)) {
        side.feed(two).expect("it is legal");
        side.feed(one).expect("it is legal");
    }
    let keys: Vec<_> =
        arrived(&mut side).into_iter().map(|call| (call.id, call.row.map(Ticket::complete))).collect();
    assert_eq!(keys, [(3, Some(0)), (2, Some(1)), (1, Some(2))], "in the order of their first bytes");
    assert_eq!(above.take(3).unstack().expect("it is stacked"), [arguments(3), arguments(2), arguments(1)]);
}

#[test]
fn a_row_moves_while_its_call_comes() {
    let frames = whole(1, 9, 23);
    for split in 0..frames.len() {
        let above = Above::default();
        let mut side = server(&above);
        side.feed(&frames[..split]).expect("it is legal");
        // The row moves to the last row of the slab, then to the first row of another slab.
        let mut guard = above.0.lock();
        let batch = &mut *guard;
        if let Some(row) = batch.rows.first().cloned() {
            let slab = batch.slab.as_ref().expect("a row was given");
            let moved = row.move_to(slab.claim(ROWS - 1).expect("it is free"));
            let other = new_slab(slab.stacked().signature());
            assert_eq!(moved, row.move_to(other.claim(0).expect("it is free")));
            assert_eq!(moved, row.filled_bytes());
            batch.slab = Some(other);
        }
        drop(guard);
        side.feed(&frames[split..]).expect("it is legal");
        assert_eq!(arrived(&mut side).pop().and_then(|call| call.row).map(Ticket::complete), Some(0));
        assert_eq!(above.take(1).unstack().expect("it is stacked"), [arguments(9)]);
    }
}

#[test]
fn a_vacated_row_drops_what_comes_and_disturbs_nobody() {
    let frames = whole(1, 9, 23);
    for split in 0..frames.len() {
        let above = Above::default();
        let mut side = server(&above);
        side.feed(&frames[..split]).expect("it is legal");
        let filled = above.0.lock().rows.first().map(|row| row.vacate().map(|_| row.filled_bytes()));
        side.feed(&frames[split..]).expect("it is legal");
        side.feed(&call(2, "m", 5, true)).expect("it is legal");
        side.feed(&data(2, 5)).expect("it is legal");
        let calls = arrived(&mut side);
        assert_eq!(
            calls.iter().map(|call| call.id).collect::<Vec<_>>(),
            [1, 2],
            "the owner who vacated the row answers the call"
        );
        if let Some(filled) = filled {
            assert_eq!(above.row(0).filled_bytes(), filled.expect("it had memory"));
            assert!(above.row(0).vacate().is_none());
        }
        assert!(above.abandoned().is_empty());
        drop(calls);
        assert_eq!(above.abandoned(), [0], "nobody completed it");
    }
}

#[test]
fn a_call_that_finds_no_row_is_answered_and_disturbs_nobody() {
    let above = Above::default();
    let mut side = server(&above);
    above.0.lock().refuses = true;
    side.feed(&whole(1, 1, 10)).expect("it is legal");
    let sent = [(Kind::Credit, 136, 0), (Kind::Error, 1, 0)];
    assert_eq!(side.sent(), sent, "its credit comes back with its last byte");
    // A call without payload has nothing to drop.
    side.feed(&call(2, "row", 0, false)).expect("it is legal");
    assert_eq!(side.sent(), [(Kind::Error, 2, 0)]);
    assert!(side.events().is_empty());
    above.0.lock().refuses = false;
    side.feed(&whole(3, 3, 10)).expect("it is legal");
    assert_eq!(arrived(&mut side).pop().and_then(|call| call.row).map(Ticket::complete), Some(0));
    assert_eq!((side.inbound.unfinished(), above.abandoned()), (0, vec![]));
}

#[test]
fn a_call_that_cannot_be_stacked_is_refused_before_it_is_granted() {
    let above = Above::default();
    let mut side = server(&above);
    let words = Message::call(&CallHead::new("row"), &tree!({"words": "a b"}), &Limits::default())
        .expect("it is small");
    side.feed(&head(1, &words, false)).expect("it is legal");
    assert_eq!((side.sent(), side.events()), (vec![(Kind::Error, 1, 0)], vec![]));
    side.feed(&empty(Kind::Abort, 1)).expect("it does not come");
    assert_eq!((side.inbound.unfinished(), above.0.lock().rows.len()), (0, 0));
}

#[test]
fn a_call_without_payload_has_a_row_at_once() {
    let above = Above::default();
    let mut side = server(&above);
    side.feed(&call(1, "row", 0, false)).expect("it is legal");
    assert_eq!(arrived(&mut side).pop().and_then(|call| call.row).map(Ticket::complete), Some(0));
    let tree = above.take(2);
    assert_eq!(tree.as_array().map(|array| array.shape()), Some(&[2, 0][..]));
}

#[test]
fn a_row_is_given_when_the_payload_comes_and_not_before() {
    let above = Above::default();
    let mut side = server(&above);
    side.feed(&head(1, &message(1), false)).expect("it is legal");
    side.grant(1);
    assert!(above.0.lock().rows.is_empty());
    side.feed(&chunks(1, 1, 30)[..32]).expect("it is legal");
    assert_eq!(above.0.lock().rows.len(), 1, "the header of its first chunk arrived");
}

/// Checks that `end` abandons, once, the row of a call that was received in part.
#[track_caller]
fn check_abandoned(end: impl FnOnce(Side)) {
    let above = Above::default();
    let mut side = server(&above);
    side.feed(&[head(1, &message(1), false), head(2, &message(2), false)].concat()).expect("it is legal");
    side.grant(1);
    side.grant(2);
    side.feed(&chunks(2, 2, 50)).expect("it is legal");
    let other = arrived(&mut side).pop().and_then(|call| call.row);
    side.feed(&chunks(1, 1, 30)[..40]).expect("it is legal");
    assert!(above.abandoned().is_empty());
    end(side);
    assert_eq!(above.abandoned(), [1]);
    assert!((8..=30).contains(&above.row(1).filled_bytes()), "of its first chunk");
    assert_eq!(other.map(Ticket::complete), Some(0));
    let tree = above.take(1);
    assert_eq!(tree.unstack().expect("it is stacked"), [arguments(2)], "the other call stays as it is");
    assert_eq!(above.abandoned(), [1]);
}

#[test]
fn a_row_is_abandoned_once_however_its_call_ends() {
    // The connection ends. Its memory may be given back before it is dropped.
    check_abandoned(drop);
    check_abandoned(|mut side| {
        side.inbound.discard();
        side.inbound.discard();
    });
    // The caller gives it up.
    check_abandoned(|mut side| {
        side.feed(&chunks(1, 1, 30)[40..62]).expect("the rest of the chunk");
        side.feed(&empty(Kind::Abort, 1)).expect("a caller may give up");
        assert!(side.events().is_empty());
    });
    // A byte was changed on the way.
    check_abandoned(|mut side| {
        let mut rest = chunks(1, 1, 30);
        rest[50] ^= 1;
        side.feed(&rest[40..62]).expect("it concerns this message only");
        assert_eq!(side.sent(), [(Kind::Grant, 1, 0), (Kind::Grant, 2, 0), (Kind::Error, 1, 0)]);
        side.feed(&rest[62..]).expect("the rest is dropped");
        assert!(side.events().is_empty());
    });
    // The call breaks a rule in the middle of its payload.
    check_abandoned(|mut side| {
        side.feed(&chunks(1, 1, 30)[40..62]).expect("the rest of the chunk");
        side.feed(&data(1, 1000)).expect_err("its payload is shorter");
    });
}

#[test]
fn little_of_a_large_row_is_copied() {
    const CHUNK: usize = 1 << 20;
    let above = Above::default();
    let mut side = server(&above);
    let tree = tree!([bytes_tree(3 * CHUNK + 5), bytes_tree(2 * CHUNK - 5)]);
    let message = Message::call(&CallHead::new("row"), &tree, &Limits::default()).expect("it fits");
    side.feed(&head(1, &message, false)).expect("it is legal");
    side.grant(1);
    let payload: Vec<u8> = (0..5 * CHUNK).map(|byte| (byte / 1000) as u8).collect();
    let frame = |chunk: &[u8]| [&Header::data(1, chunk.len() as u64, None).encode()[..], chunk].concat();
    // The first writes end with a chunk, the next one in the middle of a chunk.
    let stream: Vec<u8> = payload.chunks(CHUNK).flat_map(frame).collect();
    let (mut rest, mut copied) = (&stream[..], Vec::new());
    for write in [CHUNK + 32, CHUNK + 32, CHUNK / 2, usize::MAX] {
        let (mut written, later) = rest.split_at(write.min(rest.len()));
        rest = later;
        let (mut ahead, here) = ([0; 16 << 10], Cell::new(0));
        let place = ahead.as_ptr().addr()..ahead.as_ptr().addr() + ahead.len();
        while !written.is_empty() {
            let read = |slices: &mut [IoSliceMut<'_>]| {
                let bytes = io::Read::read_vectored(&mut written, slices)?;
                let before = slices.iter().take_while(|slice| !place.contains(&slice.as_ptr().addr()));
                here.set(here.get() + bytes.saturating_sub(before.map(|slice| slice.len()).sum()));
                Ok(bytes)
            };
            let (now, gate, events) = (Instant::now(), &*side.gate, &mut side.events);
            side.inbound
                .on_readable(now, &mut ahead, &side.outbound, gate, events, read)
                .expect("the rules are kept");
        }
        copied.push(here.get());
    }
    assert_eq!(copied[0], 16 << 10, "what the read-ahead caught");
    assert_eq!(copied[1..].iter().sum::<usize>(), 4 * Header::BYTES, "headers only");
    assert_eq!(arrived(&mut side).pop().and_then(|call| call.row).map(Ticket::complete), Some(0));
    let rows = above.take(1).unstack().expect("it is stacked");
    let received: Vec<u8> = rows[0]
        .leaves()
        .flat_map(|leaf| leaf.as_array().map_or(&[][..], |array| array.as_bytes()).to_vec())
        .collect();
    assert!(received == payload);
}
