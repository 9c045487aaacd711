//! Batches: many messages in one memory, and one result for many calls. Both must equal stacking and
//! unstacking.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere; helpers are outside of test functions")]

mod common;
mod receiver;

use std::sync::Arc;

use common::{array, same_with_order, trees, trees_of_arrays};
use proptest::prelude::*;
use receiver::{decode, parts, payload};
use teleport_wire::{
    Array, BatchLayout, BatchResult, Buffer, DType, EncodeError, Limits, Message, Order, Signature, Tree,
    TreeError, tree,
};

/// Returns a tree of the same structure, dtypes and shapes, with bytes derived from `seed`.
fn refilled(tree: &Tree, seed: u64) -> Tree {
    let mut seed = seed;
    tree.clone().map(|leaf| {
        seed += 1;
        let leaf = leaf.as_array().expect("these trees have no other leaves");
        array(leaf.dtype(), leaf.shape().to_vec(), seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)).into()
    })
}

fn result(tree: &Tree) -> Message {
    Message::result(tree, &Limits::default()).unwrap()
}

fn layout(message: &Message, capacity: usize) -> (BatchLayout, Order) {
    let (signature, order) = parts(message);
    let signature = Arc::new(Signature::decode(signature, &Limits::default()).unwrap());
    let order = Order::decode(order, &signature).unwrap();
    (BatchLayout::new(signature, capacity).unwrap(), order)
}

/// Receives a message's payload as the row at this index.
fn receive(stacked: &BatchLayout, memory: &mut Buffer, row: usize, message: &Message) {
    let payload = payload(message);
    let mut next = 0;
    for leaf in 0..stacked.leaves() {
        let place = stacked.place(leaf, row);
        let bytes = &payload[next..next + place.len()];
        memory.get_mut().unwrap()[place].copy_from_slice(bytes);
        next += bytes.len();
    }
    assert_eq!(next, payload.len());
}

#[track_caller]
fn check_result(tree: &Tree, rows: usize, text: &str) {
    assert_eq!(BatchResult::new(tree, rows).unwrap_err().to_string(), text);
}

proptest! {
    #[test]
    fn rows_received_in_place_are_a_stack(tree in trees_of_arrays(), rows in 0..5usize, spare in 0..3usize, seed: u64) {
        let (stacked, order) = layout(&result(&tree), rows + spare);
        let trees: Vec<Tree> = (0..rows).map(|row| refilled(&tree, seed.wrapping_add(row as u64 * 1000))).collect();
        let mut memory = Buffer::zeroed(stacked.memory_bytes());
        memory.make_mut().fill(0xAA);
        // The order in which rows arrive does not matter, so the last comes first.
        for (row, tree) in trees.iter().enumerate().rev() {
            receive(&stacked, &mut memory, row, &result(tree));
        }
        let start = memory.as_ptr().addr();
        let batch = stacked.build(&order, memory, rows);
        if rows > 0 {
            prop_assert!(same_with_order(&batch, &Tree::stack(&trees).unwrap()));
        }
        prop_assert_eq!(batch.unstack_rows(rows).unwrap(), trees);
        for leaf in batch.leaves() {
            let array = leaf.as_array().unwrap();
            let offset = array.as_bytes().as_ptr().addr().wrapping_sub(start);
            prop_assert!(array.is_empty() || array.bytes() == 0 || offset < stacked.memory_bytes(), "no copy");
            prop_assert!(array.bytes() == 0 || offset % 64 == 0);
        }
    }

    #[test]
    fn places_are_disjoint_and_inside(tree in trees_of_arrays(), capacity in 1..5usize) {
        let (stacked, _) = layout(&result(&tree), capacity);
        let place = |index| stacked.place(index / capacity, index % capacity);
        let mut places: Vec<_> = (0..stacked.leaves() * capacity).map(place).collect();
        prop_assert_eq!(places.iter().map(|place| place.len() as u64).sum::<u64>(), stacked.row_bytes() * capacity as u64);
        places.retain(|place| !place.is_empty());
        places.sort_unstable_by_key(|place| place.start);
        prop_assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start));
        prop_assert!(places.last().is_none_or(|last| last.end <= stacked.memory_bytes()));
    }

    #[test]
    fn arrays_of_a_stack_are_writable_and_share_nothing(tree in trees_of_arrays(), rows in 1..4usize) {
        let (stacked, order) = layout(&result(&tree), rows + 1);
        let batch = stacked.build(&order, Buffer::zeroed(stacked.memory_bytes()), rows);
        let (leaves, _) = batch.flatten();
        for leaf in leaves {
            let Tree::Array(array) = leaf else { panic!("{leaf} is no array") };
            prop_assert!(array.into_buffer().get_mut().is_some());
        }
    }

    #[test]
    fn results_go_row_by_row(tree in trees_of_arrays(), rows in 1..5usize, seed: u64) {
        let trees: Vec<Tree> = (0..rows).map(|row| refilled(&tree, seed.wrapping_add(row as u64 * 1000))).collect();
        let stack = Tree::stack(&trees).unwrap();
        let mut stacked = BatchResult::new(&stack, rows).unwrap();
        let memory: Vec<_> = stack.leaves().map(|leaf| leaf.as_array().unwrap().as_bytes().as_ptr_range()).collect();
        for (row, expected) in trees.iter().enumerate() {
            let message = stacked.row(row, &Limits::default()).unwrap();
            let alone = result(expected);
            prop_assert_eq!((message.metadata(), message.metadata_crc()), (alone.metadata(), alone.metadata_crc()));
            prop_assert_eq!((message.payload_bytes(), message.memory_bytes()), (alone.payload_bytes(), alone.memory_bytes()));
            let (signature, order) = parts(&message);
            let received = decode(signature, order, &payload(&message), &Limits::default()).unwrap();
            prop_assert!(same_with_order(&received, expected));
            let is_inside = |buffer: &Buffer| memory.iter().any(|memory| memory.contains(&buffer.as_ptr()));
            prop_assert!(message.pieces().iter().all(is_inside));
        }
    }

    #[test]
    fn only_arrays_stack(tree in trees()) {
        let (signature, limits) = (result(&tree), Limits::default());
        let signature = Arc::new(Signature::decode(parts(&signature).0, &limits).unwrap());
        let stacked = signature.check_stackable();
        let odd = |leaf: &Tree| leaf.as_array().is_none();
        prop_assert_eq!(stacked.is_err(), tree.leaves().any(odd));
        prop_assert_eq!(BatchLayout::new(signature.clone(), 2).is_some(), stacked.is_ok());
    }
}

#[test]
fn errors_name_what_cannot_be_stacked() {
    let tree = tree!({"obs": [1.0, {"b": null, "a": [2, "word"]}], "x": 1});
    let signature = Signature::decode(parts(&result(&tree)).0, &Limits::default()).unwrap();
    let error = signature.check_stackable().unwrap_err();
    let text = "at obs[1].a[1]: a string of 4 bytes cannot be stacked or cut into rows: send strings as arrays of fixed \
        width, and bytes as arrays of u8; or let the method take its calls one by one, in a list (`Method::listed`)";
    assert_eq!(error.to_string(), text);
    let tree = tree!([Buffer::from(vec![1, 2])]);
    let signature = Signature::decode(parts(&result(&tree)).0, &Limits::default()).unwrap();
    assert!(
        matches!(signature.check_stackable(), Err(TreeError::NoRows { found, .. }) if found == "2 bytes")
    );
}

#[test]
fn scalars_become_a_row_each() {
    let message = result(&tree!({"step": 1, "image": Array::zeros::<u8>([2, 3])}));
    let (stacked, order) = layout(&message, 100);
    let batch = stacked.build(&order, Buffer::zeroed(stacked.memory_bytes()), 3);
    let shape = |key: &str| batch.field::<Array>(key).unwrap().shape().to_vec();
    assert_eq!((shape("step"), shape("image")), (vec![3], vec![3, 2, 3]));
    assert_eq!(stacked.row_bytes(), 8 + 6);
    // `image` is sorted first: 600 bytes, and `step` at the next multiple of 64.
    assert_eq!((stacked.place(1, 0).start, stacked.memory_bytes()), (640, 640 + 800));
}

#[test]
fn layouts_past_the_address_space_are_refused() {
    let large = result(&Array::zeros::<u8>([1 << 20]).into());
    let signature = Arc::new(Signature::decode(parts(&large).0, &Limits::default()).unwrap());
    assert!(BatchLayout::new(signature.clone(), usize::MAX >> 20).is_none());
    assert!(BatchLayout::new(signature.clone(), usize::MAX).is_none());
    assert!(BatchLayout::new(signature, 1 << 40).is_some(), "the layout allocates no memory");
    let empty = result(&Array::zeros_of(DType::F64, [1 << 30, 0]).into());
    let signature = Arc::new(Signature::decode(parts(&empty).0, &Limits::default()).unwrap());
    assert!(
        BatchLayout::new(signature, usize::MAX >> 20).is_none(),
        "an array without bytes has an absurd shape too"
    );
}

#[test]
fn results_with_another_number_of_rows_are_refused() {
    let text = "at value: expected an array whose first axis has size 3, found shape [2, 5]";
    check_result(&tree!({"value": Array::zeros::<f32>([2, 5])}), 3, text);
    let text = "expected an array whose first axis has size 3, found a scalar float64, which has no axis";
    check_result(&tree!(0.5), 3, text);
    let text = "at [1]: a string of 2 bytes cannot be stacked or cut into rows: send strings as arrays of fixed width, and \
        bytes as arrays of u8; or let the method take its calls one by one, in a list (`Method::listed`)";
    check_result(&tree!([vec![1, 2, 3], "ok"]), 3, text);
}

#[test]
fn nulls_go_to_every_row() {
    let mut result = BatchResult::new(&tree!([null, {"a": null}]), 2).unwrap();
    for row in 0..result.rows() {
        let message = result.row(row, &Limits::default()).unwrap();
        let (signature, order) = parts(&message);
        let received = decode(signature, order, &[], &Limits::default()).unwrap();
        assert_eq!(received, tree!([null, {"a": null}]));
    }
    assert_eq!(BatchResult::new(&Array::zeros::<u8>([0, 4]).into(), 0).unwrap().rows(), 0);
}

#[test]
fn each_receiver_has_its_own_limits() {
    let mut result = BatchResult::new(&Array::zeros::<u8>([2, 1000]).into(), 2).unwrap();
    let small = Limits { max_message_bytes: 999, ..Limits::default() };
    for _ in 0..2 {
        let error = result.row(1, &small).unwrap_err();
        assert_eq!(error, EncodeError::TooLarge { bytes: 1000, max_bytes: 999 });
        assert_eq!(result.row(1, &Limits::default()).unwrap().payload_bytes(), 1000);
    }
    for max_message_bytes in 1000..1100 {
        let limits = Limits { max_message_bytes, ..Limits::default() };
        assert_eq!(result.row(0, &limits).unwrap().memory_bytes(), 1000);
    }
}

#[test]
fn large_rows_are_not_copied() {
    let stack = Array::zeros::<u8>([3, 5000]);
    let mut result = BatchResult::new(&tree!({"large": stack.clone(), "small": vec![1, 2, 3]}), 3).unwrap();
    let message = result.row(2, &Limits::default()).unwrap();
    assert_eq!(message.pieces()[0].as_ptr(), stack.as_bytes()[10_000..].as_ptr());
    assert_eq!((message.pieces().len(), message.inline_payload().len()), (2, 0));
}
