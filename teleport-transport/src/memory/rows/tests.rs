//! The content of rows that are moved, copied and vacated while their payload arrives in pieces.

#[cfg(loom)]
mod threads;

use std::io::IoSliceMut;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use teleport_wire::{
    Array, BatchLayout, Buffer, DType, Limits, Message, Order, ResultMetadata, Signature, Tree,
};

use super::*;
use crate::memory::pool::Pool;
use crate::memory::user_held::Lent;

/// Creates a list of byte arrays of these lengths.
fn tree(lengths: &[usize], mut next: impl FnMut() -> u8) -> Tree {
    let mut array = |length: &usize| -> Tree {
        let bytes: Vec<u8> = (0..*length).map(|_| next()).collect();
        Array::from_buffer(DType::U8, *length, Buffer::copy_from(&bytes)).expect("it has its length").into()
    };
    Tree::List(lengths.iter().map(&mut array).collect())
}

/// Creates a [`tree`] whose bytes depend on `seed`.
fn call(lengths: &[usize], seed: u64) -> Tree {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    tree(lengths, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
}

fn payload(tree: &Tree) -> Vec<u8> {
    let message = Message::result(tree, &Limits::default()).expect("it is small");
    message.payload().flatten().copied().collect()
}

fn stacked(lengths: &[usize], capacity: usize) -> Arc<BatchLayout> {
    let message = Message::result(&tree(lengths, || 0), &Limits::default()).expect("it is small");
    let metadata = ResultMetadata::decode(message.metadata()).expect("it was encoded");
    let signature = Signature::decode(metadata.signature, &Limits::default()).expect("it was encoded");
    Arc::new(BatchLayout::new(Arc::new(signature), capacity).expect("it is small"))
}

fn slab(stacked: &Arc<BatchLayout>) -> Slab {
    let slab = Slab::new(stacked.clone(), &Pool::new(1 << 20), Pages::Usual).expect("there is memory");
    // A user must never see these bytes.
    for row in 0..stacked.capacity() {
        let bytes = vec![0xEE; stacked.row_bytes() as usize];
        slab.claim(row).expect("it is free").write(0, &bytes);
    }
    slab
}

/// Returns the rows of a slab of which no row is claimed.
fn rows(slab: Slab, rows: usize) -> Vec<Tree> {
    let tree = slab.into_tree(&Order::sorted(), rows, None).expect("no row is claimed");
    tree.unstack_rows(rows).expect("it is stacked")
}

/// A step that may happen to a row while its payload arrives.
#[derive(Clone, Debug)]
enum Step {
    /// Copies this number of bytes into the row.
    Push(usize),
    /// Reads at most this number of bytes in place, into at most this number of slices.
    Read(usize, usize),
    /// Moves the row to this row of the other slab.
    Move(usize),
    Try(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..40usize).prop_map(Step::Push),
        3 => (0..40usize, 1..4usize).prop_map(|(bytes, slices)| Step::Read(bytes, slices)),
        1 => (0..ROWS).prop_map(Step::Move),
        1 => (0..ROWS).prop_map(Step::Try),
    ]
}

const ROWS: usize = 4;

/// Writes the next bytes of `payload` in place, as a socket would, and returns the rest.
fn read<'a>(row: &Row, payload: &'a [u8], bytes: usize, slices: usize) -> &'a [u8] {
    let mut guard = row.lock();
    let mut places: Vec<IoSliceMut<'_>> = (0..slices).map(|_| IoSliceMut::new(&mut [])).collect();
    let (filled, offered) = guard.slices(bytes.min(payload.len()), &mut places);
    let mut rest = payload;
    for place in &mut places[..filled] {
        assert!(!place.is_empty());
        let (now, later) = rest.split_at(place.len());
        place.copy_from_slice(now);
        rest = later;
    }
    guard.placed(offered);
    rest
}

proptest! {
    #[test]
    fn received_bytes_stay_whatever_happens(
        lengths in proptest::collection::vec(0..30usize, 0..6),
        steps in proptest::collection::vec(steps(), 0..60),
        seed: u64,
    ) {
        let stacked = stacked(&lengths, ROWS);
        let slabs = [slab(&stacked), slab(&stacked)];
        let (sent, mut at, mut place) = (call(&lengths, seed), 0, 0);
        let row = Row::new(slabs[at].claim(place));
        let payload = payload(&sent);
        let mut rest = &payload[..];
        for step in steps.into_iter().chain([Step::Push(usize::MAX)]) {
            match step {
                Step::Push(bytes) => {
                    let (now, later) = rest.split_at(bytes.min(rest.len()));
                    row.push(now);
                    rest = later;
                }
                Step::Read(bytes, slices) => rest = read(&row, rest, bytes, slices),
                Step::Move(to) | Step::Try(to) => {
                    let memory = slabs[1 - at].claim(to).expect("only one row is claimed at a time");
                    let moved = match step {
                        Step::Move(_) => row.move_to(memory),
                        _ => row.try_move_to(memory).expect("nobody holds it"),
                    };
                    prop_assert_eq!(moved, row.filled_bytes());
                    (at, place) = (1 - at, to);
                }
            }
            prop_assert_eq!(row.filled_bytes() as usize, payload.len() - rest.len());
        }
        let crc = row.lock().checksum(0..payload.len() as u64);
        prop_assert_eq!(crc, Some(teleport_wire::checksum(0, &payload)));
        drop(row.vacate());
        let [left, right] = slabs;
        let (slab, other) = if at == 0 { (left, right) } else { (right, left) };
        prop_assert_eq!(&rows(slab, ROWS)[place], &sent);
        prop_assert!(rows(other, ROWS).len() == ROWS, "no row is left claimed");
    }

    #[test]
    fn a_part_is_copied_and_not_a_byte_more(
        lengths in proptest::collection::vec(0..30usize, 0..6),
        part: proptest::sample::Index,
        seed: u64,
    ) {
        let stacked = stacked(&lengths, 2);
        let slab = slab(&stacked);
        let sent = payload(&call(&lengths, seed));
        let part = part.index(sent.len() + 1);
        let (mut from, mut to) = (slab.claim(0).expect("free"), slab.claim(1).expect("free"));
        from.write(0, &sent);
        to.copy_from(&from, part as u64);
        drop((from, to));
        let rows = rows(slab, 2);
        prop_assert_eq!(&payload(&rows[0]), &sent);
        let expected = [&sent[..part], &vec![0xEE; sent.len() - part]].concat();
        prop_assert_eq!(payload(&rows[1]), expected);
    }
}

#[test]
fn a_row_is_claimed_once_at_a_time() {
    let slab = slab(&stacked(&[3], 2));
    let memory = slab.claim(1).expect("it is free");
    assert_eq!(memory.row(), 1);
    assert!(slab.claim(1).is_none() && slab.claim(2).is_none());
    let slab = slab.into_tree(&Order::sorted(), 2, None).expect_err("a row is claimed");
    drop(memory);
    drop(slab.claim(1).expect("it is free again"));
    assert!(slab.into_tree(&Order::sorted(), 2, None).is_ok());
}

#[test]
fn a_claimed_row_outlives_its_slab() {
    let slab = slab(&stacked(&[3], 2));
    let mut memory = slab.claim(0).expect("it is free");
    drop(slab);
    memory.write(0, &[1, 2, 3]);
}

#[test]
#[should_panic = "not claimed"]
fn a_claimed_row_is_not_zeroed() {
    let mut slab = slab(&stacked(&[3], 2));
    let _memory = slab.claim(1);
    slab.zero(0..2);
}

#[test]
fn padding_is_zero() {
    let (lengths, stacked) = ([2, 0, 70], stacked(&[2, 0, 70], 4));
    let mut slab = slab(&stacked);
    for row in 0..2 {
        slab.claim(row).expect("it is free").write(0, &payload(&call(&lengths, row as u64)));
    }
    slab.zero(2..4);
    let zeros = tree(&lengths, || 0);
    assert_eq!(rows(slab, 4), [call(&lengths, 0), call(&lengths, 1), zeros.clone(), zeros]);
}

#[test]
fn arrays_are_writable_and_lend_what_is_used() {
    let (lent, pool) = (Lent::default(), Pool::new(1 << 20));
    let slab = Slab::new(stacked(&[5000, 1], 100), &pool, Pages::Usual).expect("there is memory");
    let mut tree = slab.into_tree(&Order::sorted(), 2, Some(&lent)).expect("no row is claimed");
    assert_eq!(lent.bytes(), 2 * 5001);
    let array: Array = tree.take(0).expect("it is there");
    assert_eq!(array.shape(), [2, 5000]);
    assert!(array.into_buffer().get_mut().is_some());
    drop(tree);
    assert_eq!((lent.bytes(), pool.stats().in_use_bytes), (0, 0));
}

#[test]
fn a_vacated_row_drops_what_comes_and_takes_no_memory() {
    let stacked = stacked(&[4, 4], 2);
    let slab = slab(&stacked);
    let row = Row::new(slab.claim(0));
    row.push(&[1, 2, 3]);
    assert_eq!(row.vacate().map(|memory| memory.row()), Some(0));
    row.push(&[4, 5]);
    assert_eq!(read(&row, &[6, 7, 8], 3, 4), [6, 7, 8], "there is no place for it");
    assert_eq!((row.filled_bytes(), row.lock().checksum(0..3)), (3, None));
    assert_eq!(row.move_to(slab.claim(1).expect("it is free")), 0);
    assert!(row.try_move_to(slab.claim(1).expect("it was dropped")).is_err());
    assert!(row.vacate().is_none());
}

#[test]
fn a_row_may_get_its_memory_before_its_payload_but_not_after() {
    let slab = slab(&stacked(&[2], 2));
    let row = Row::new(None);
    assert_eq!(row.move_to(slab.claim(0).expect("it is free")), 0);
    row.push(&[1, 2]);
    drop(row.vacate());
    let late = Row::new(None);
    late.push(&[3]);
    assert!(late.try_move_to(slab.claim(1).expect("it is free")).is_err());
    assert_eq!(payload(&rows(slab, 1)[0]), [1, 2]);
}

#[test]
fn a_row_that_is_read_is_not_moved_now() {
    let slab = slab(&stacked(&[2], 2));
    let row = Row::new(slab.claim(0));
    let reading = row.lock();
    let memory = row.try_move_to(slab.claim(1).expect("it is free")).expect_err("somebody reads");
    drop(reading);
    assert_eq!(row.try_move_to(memory).expect("nobody reads"), 0);
}

#[test]
#[should_panic = "the rows have one signature"]
fn rows_of_other_signatures_are_refused() {
    let row = Row::new(slab(&stacked(&[2], 1)).claim(0));
    row.move_to(slab(&stacked(&[3], 1)).claim(0).expect("it is free"));
}

#[test]
fn a_ticket_is_completed_or_abandoned() {
    #[derive(Default)]
    struct Seen(Mutex<Vec<u64>>);
    impl Rows for Seen {
        fn abandoned(&self, key: u64) {
            self.0.lock().push(key);
        }
    }
    let seen = Arc::new(Seen::default());
    let ticket = |key| Ticket::new(None, key, seen.clone());
    assert_eq!((ticket(3).complete(), ticket(4).key()), (3, 4));
    drop(ticket(5));
    assert_eq!(*seen.0.lock(), [4, 5]);
}
