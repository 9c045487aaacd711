//! Sends and receives trees, both random ones and edge cases, and decodes invalid bytes.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere; helpers are outside of test functions")]

mod common;
mod receiver;

use common::{array, same_with_order, trees};
use std::time::Duration;

use proptest::prelude::*;
use receiver::{decode, parts, payload, receive};
use teleport_wire::{
    Array, Buffer, CallHead, CallMetadata, DType, DecodeError, Dict, EncodeError, FrameHeader, Header, Kind,
    Limits, MAX_DEPTH, Message, Order, ResultMetadata, Signature, TimeBase, TimeUnit, Tree, tree,
};

/// The dtypes without parameters.
const PLAIN: [DType; 15] = [
    DType::Bool,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::F16,
    DType::BF16,
    DType::F32,
    DType::F64,
    DType::C64,
    DType::C128,
];

fn result(tree: &Tree) -> Message {
    Message::result(tree, &Limits::default()).unwrap()
}

/// Sends and receives `tree` as a result, and checks that it is unchanged.
fn check(tree: &Tree) -> Signature {
    let message = result(tree);
    let (signature, order) = parts(&message);
    let received = decode(signature, order, &payload(&message), &Limits::default()).unwrap();
    assert!(same_with_order(tree, &received), "{tree} became {received}");
    Signature::decode(signature, &Limits::default()).unwrap()
}

/// Returns the metadata, its checksum, the sizes and the bytes of the payload of a call.
fn encoded(head: &CallHead<'_>, tree: &Tree) -> (Vec<u8>, u32, u64, u64, Vec<u8>) {
    let message = Message::call(head, tree, &Limits::default()).unwrap();
    let sizes = (message.payload_bytes(), message.memory_bytes());
    (message.metadata().to_vec(), message.metadata_crc(), sizes.0, sizes.1, payload(&message))
}

/// Returns a tree of the same shape whose arrays have other bytes.
fn refilled(tree: &Tree, seed: u64) -> Tree {
    tree.clone().map(|leaf| match leaf {
        Tree::Array(old) => array(old.dtype(), old.shape().to_vec(), seed).into(),
        other => other,
    })
}

proptest! {
    #[test]
    fn any_tree_round_trips(tree in trees()) {
        let signature = check(&tree);
        prop_assert_eq!(signature.payload_bytes(), tree.payload_bytes());
        prop_assert_eq!(signature.memory_bytes() as u64, result(&tree).memory_bytes());
    }

    #[test]
    fn runs_cover_the_payload_and_leaves_start_aligned(tree in trees()) {
        let signature = check(&tree);
        let mut next = 0;
        for run in signature.runs() {
            prop_assert_eq!(run.payload_start, next);
            prop_assert!(run.bytes > 0);
            next += run.bytes as u64;
        }
        prop_assert_eq!(next, signature.payload_bytes());
        for leaf in signature.leaves().iter().filter(|leaf| !leaf.memory.is_empty()) {
            prop_assert_eq!(leaf.memory.start % 64, 0);
            prop_assert!(leaf.memory.end <= signature.memory_bytes());
        }
    }

    #[test]
    fn received_arrays_are_aligned_and_have_one_owner(tree in trees()) {
        let message = result(&tree);
        let signature = Signature::decode(parts(&message).0, &Limits::default()).unwrap();
        let memory = receive(&signature, &payload(&message));
        let tree = signature.build(&Order::sorted(), memory).unwrap();
        for leaf in tree.leaves() {
            if let Tree::Array(array) = leaf {
                prop_assert!(array.bytes() == 0 || array.as_bytes().as_ptr().addr() % 64 == 0);
                prop_assert!(array.buffer().is_unique());
            }
        }
    }

    #[test]
    fn order_of_entries_does_not_change_the_signature(
        entries in proptest::collection::btree_map(".{0,3}", trees(), 2..5),
    ) {
        let forward: Dict = entries.clone().into_iter().collect();
        let backward: Dict = entries.into_iter().rev().collect();
        let (forward, backward) = (result(&Tree::Dict(forward)), result(&Tree::Dict(backward)));
        prop_assert_eq!(parts(&forward).0, parts(&backward).0);
        prop_assert!(!parts(&backward).1.is_empty());
        prop_assert_eq!(payload(&forward), payload(&backward));
    }

    /// A shape that was encoded before gives the same messages, also between others, with other options, and
    /// with other contents.
    #[test]
    fn known_shapes_are_encoded_as_new_ones(tree in trees(), other in trees(), micros in 1..u64::MAX, seed: u64) {
        let plain = CallHead::new("act");
        let deadline = Some(Duration::from_micros(micros));
        let options = CallHead { deadline, idempotent: true, resume: true, ..plain };
        let new = |head: CallHead<'static>, tree: &Tree| {
            let (head, tree) = (head, tree.clone());
            // Another thread knows no shapes.
            std::thread::spawn(move || encoded(&head, &tree)).join().unwrap()
        };
        let filled = refilled(&tree, seed);
        let expected = [new(plain, &tree), new(options, &tree), new(plain, &other), new(plain, &filled)];
        for _ in 0..4 {
            prop_assert_eq!(&encoded(&plain, &tree), &expected[0]);
            prop_assert_eq!(&encoded(&options, &tree), &expected[1]);
            prop_assert_eq!(&encoded(&plain, &other), &expected[2]);
            prop_assert_eq!(&encoded(&plain, &filled), &expected[3]);
        }
        let metadata_bytes = expected[0].0.len() as u32;
        let limits = Limits { max_metadata_bytes: metadata_bytes - 1, ..Limits::default() };
        let refused = matches!(
            Message::call(&plain, &tree, &limits), Err(EncodeError::MetadataTooLarge { .. })
        );
        prop_assert!(refused, "a shape that is known for other limits");
    }

    /// One frame has the metadata and a small payload.
    #[test]
    fn small_messages_are_one_frame(tree in trees(), id in 1..u64::MAX, is_checked: bool) {
        let (message, limits) = (result(&tree), Limits::default());
        let mut frame = b"before".to_vec();
        message.append_frame(id, is_checked, &mut frame);
        let (bytes, body) = frame.strip_prefix(b"before").and_then(<[u8]>::split_first_chunk).unwrap();
        let Ok(FrameHeader::Known(header)) = Header::decode(bytes, &limits) else { panic!("{bytes:?}") };
        let payload = message.inline_payload();
        prop_assert_eq!(header.split_body(body, &limits), Ok((message.metadata(), payload)));
        prop_assert_eq!(header.check_body(message.metadata()), Ok(()));
        let has_payload = !payload.is_empty();
        prop_assert_eq!((header.kind, header.id, header.length), (Kind::Result, id, body.len() as u64));
        prop_assert_eq!((header.is_eager(), header.is_inline()), (has_payload, has_payload));
        let crc = (is_checked && has_payload).then(|| teleport_wire::checksum(0, payload));
        prop_assert_eq!(header.payload_crc(), crc);
        if !has_payload {
            prop_assert_eq!(*bytes, message.header(id, true));
        }
    }

    /// A tree of copied leaves equals that on memory in one piece, and each leaf is writable in place.
    #[test]
    fn copied_payloads_give_the_same_tree(tree in trees()) {
        let message = result(&tree);
        let (signature, order) = parts(&message);
        let signature = Signature::decode(signature, &Limits::default()).unwrap();
        let order = Order::decode(order, &signature).unwrap();
        let payload = payload(&message);
        let copied = signature.build_copied(&order, &payload).unwrap();
        prop_assert!(same_with_order(&copied, &tree));
        prop_assert!(same_with_order(&copied, &signature.build(&order, receive(&signature, &payload)).unwrap()));
        for leaf in copied.leaves() {
            let buffer = match leaf {
                Tree::Array(array) => array.buffer(),
                Tree::String(text) => text.buffer(),
                Tree::Bytes(bytes) => bytes,
                _ => unreachable!("nodes are no leaves"),
            };
            // Up to 8 bytes are in the buffer itself.
            let alignment = if buffer.len() > 8 { Buffer::ALIGNMENT } else { 8 };
            prop_assert!(buffer.is_unique() && buffer.as_ptr().addr().is_multiple_of(alignment));
        }
        let short = &payload[..payload.len().saturating_sub(1)];
        prop_assert_eq!(signature.build_copied(&order, short).is_ok(), payload.is_empty());
    }

    /// Accepted bytes have one encoding: the tree that they decode to encodes to the same bytes.
    #[test]
    fn changed_metadata_is_refused_or_canonical(
        tree in trees(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let limits = Limits { max_message_bytes: 1 << 20, ..Limits::default() };
        let mut body = result(&tree).metadata().to_vec();
        for (index, byte) in changes {
            let at = index.index(body.len());
            body[at] = byte;
        }
        let Ok(metadata) = ResultMetadata::decode(&body) else { return Ok(()) };
        let Ok(signature) = Signature::decode(metadata.signature, &limits) else { return Ok(()) };
        let Ok(order) = Order::decode(metadata.order, &signature) else { return Ok(()) };
        let tree = signature.build(&order, Buffer::zeroed(signature.memory_bytes())).unwrap();
        let again = Message::result(&tree, &limits).unwrap();
        prop_assert_eq!(again.metadata(), body);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let limits = Limits::default();
        let _ = CallMetadata::decode(&bytes);
        let _ = Signature::decode(&bytes, &limits);
        let (signature, order) = bytes.split_at(bytes.len() / 2);
        if let Ok(signature) = Signature::decode(signature, &limits) {
            let _ = Order::decode(order, &signature);
        }
    }

    #[test]
    fn every_prefix_of_metadata_is_refused(tree in trees()) {
        let message = result(&tree);
        let (signature, order) = parts(&message);
        let limits = Limits::default();
        for end in 0..signature.len() {
            prop_assert!(Signature::decode(&signature[..end], &limits).is_err());
        }
        let whole = Signature::decode(signature, &limits).unwrap();
        for end in 1..order.len() {
            prop_assert!(Order::decode(&order[..end], &whole).is_err());
        }
    }
}

#[test]
fn every_dtype_at_every_kind_of_shape() {
    let unit = TimeUnit::new(25, TimeBase::Second).unwrap();
    let others = [
        DType::Bytes(5),
        DType::Bytes(0),
        DType::Unicode(3),
        DType::DateTime(unit),
        DType::TimeDelta(TimeBase::Generic.into()),
    ];
    for dtype in PLAIN.into_iter().chain(others) {
        for shape in [vec![], vec![0], vec![3], vec![2, 0, 3], vec![2, 3], vec![1; 32]] {
            check(&Tree::Array(Array::zeros_of(dtype, shape)));
        }
    }
}

#[test]
fn edges_of_trees() {
    check(&tree!(null));
    check(&tree!(""));
    check(&tree!([]));
    check(&tree!({}));
    check(&tree!({"": null}));
    check(&tree!([[], {}, [[]], {"a": {}}]));
    check(&Tree::Bytes(Buffer::empty()));
    check(&tree!({"b": {"d": 1, "c": 2}, "a": [{"f": 3, "e": "x"}]}));
    check(&tree!({"a": {"d": 1, "c": 2}, "b": {"a": 1, "b": 2}}));
    let mut deep = tree!(1);
    for _ in 0..64 {
        deep = Tree::List(vec![deep]);
    }
    check(&deep);
}

#[test]
fn leaves_without_a_gap_are_one_run() {
    let tree = tree!([Array::zeros::<u8>([64]), Array::zeros::<u8>([0]), Array::zeros::<u8>([65]), 1, 2]);
    let signature = check(&tree);
    let runs: Vec<_> = signature.runs().iter().map(|r| (r.payload_start, r.memory_start, r.bytes)).collect();
    assert_eq!(runs, [(0, 0, 129), (129, 192, 8), (137, 256, 8)]);
    assert_eq!(signature.memory_bytes(), 264);
}

#[test]
fn memory_that_is_shared_or_of_another_length() {
    let tree = tree!([Array::from(vec![1u8, 2]), Array::from(vec![3u8])]);
    let message = result(&tree);
    let signature = Signature::decode(parts(&message).0, &Limits::default()).unwrap();
    let memory = receive(&signature, &payload(&message));
    let other = memory.clone();
    assert_eq!(signature.build(&Order::sorted(), memory), Ok(tree));
    let short = other.slice(1..);
    assert_eq!(
        signature.build(&Order::sorted(), short),
        Err(DecodeError::MemoryLength { expected: 65, found: 64 })
    );
}

#[test]
fn a_single_leaf_takes_the_whole_memory() {
    let message = result(&tree!({"only": Array::from(vec![1u8, 2, 3])}));
    let signature = Signature::decode(parts(&message).0, &Limits::default()).unwrap();
    let memory = receive(&signature, &payload(&message));
    let address = memory.as_ptr();
    let mut tree = signature.build(&Order::sorted(), memory).unwrap();
    let array: Array = tree.take("only").unwrap();
    assert_eq!(array.as_bytes().as_ptr(), address);
    assert!(array.buffer().is_unique());
}

#[test]
fn strings_are_checked_when_built() {
    let message = result(&tree!("Grüße"));
    let (signature, order) = parts(&message);
    let mut payload = payload(&message);
    payload[2] = 0xFF;
    let found = decode(signature, order, &payload, &Limits::default());
    assert_eq!(found, Err(DecodeError::NotUtf8 { field: "string", at: 2 }));
}

#[test]
fn heads_of_calls_round_trip() {
    let heads = [
        CallHead::new("m"),
        CallHead { deadline: Some(Duration::from_micros(1)), ..CallHead::new("a.b/é") },
        CallHead { deadline: Some(Duration::from_secs(3600)), idempotent: true, ..CallHead::new("x") },
        CallHead { resume: true, ..CallHead::new("x") },
    ];
    for head in heads {
        let message = Message::call(&head, &tree!([1]), &Limits::default()).unwrap();
        assert_eq!(CallMetadata::decode(message.metadata()).unwrap().head, head);
    }
    let over = CallHead { deadline: Some(Duration::ZERO), ..CallHead::new("m") };
    let message = Message::call(&over, &tree!(null), &Limits::default()).unwrap();
    let deadline = CallMetadata::decode(message.metadata()).unwrap().head.deadline;
    assert_eq!(deadline, Some(Duration::from_micros(1)));
}

/// The sender refuses exactly what the receiver would refuse.
#[test]
fn both_sides_agree_on_every_limit() {
    let wide = Limits {
        max_metadata_bytes: u32::MAX,
        max_depth: u32::MAX,
        max_nodes: u32::MAX,
        max_message_bytes: u64::MAX,
    };
    let mut deep = tree!(null);
    for _ in 0..MAX_DEPTH {
        deep = Tree::List(vec![deep]);
    }
    let deeper = Tree::List(vec![deep.clone()]);
    let cases = [
        (tree!([1, 2]), Limits { max_nodes: 3, ..wide }, Limits { max_nodes: 2, ..wide }),
        (tree!([[1], 2]), Limits { max_nodes: 4, ..wide }, Limits { max_nodes: 3, ..wide }),
        (tree!([[1]]), Limits { max_depth: 2, ..wide }, Limits { max_depth: 1, ..wide }),
        (tree!([1, 2]), Limits { max_message_bytes: 72, ..wide }, Limits { max_message_bytes: 71, ..wide }),
        (
            Tree::Array(Array::zeros::<f32>([100, 0])),
            Limits { max_message_bytes: 400, ..wide },
            Limits { max_message_bytes: 399, ..wide },
        ),
        (
            tree!({"key": null}),
            Limits { max_metadata_bytes: 21, ..wide },
            Limits { max_metadata_bytes: 20, ..wide },
        ),
    ];
    for (tree, fits, refuses) in cases {
        let message = Message::result(&tree, &fits).unwrap();
        let signature = ResultMetadata::decode(message.metadata()).unwrap().signature;
        assert!(Signature::decode(signature, &fits).is_ok());
        assert!(Message::result(&tree, &refuses).is_err(), "{tree}");
        if refuses.max_metadata_bytes == u32::MAX {
            assert!(Signature::decode(signature, &refuses).is_err(), "{tree}");
        }
    }
    assert!(Message::result(&deep, &wide).is_ok());
    assert_eq!(Message::result(&deeper, &wide).unwrap_err(), EncodeError::TooDeep { max_depth: MAX_DEPTH });
}

#[test]
fn sender_refuses_bad_names_and_ranks() {
    let limits = Limits::default();
    for name in [String::new(), "x".repeat(257)] {
        let error = Message::call(&CallHead::new(&name), &tree!(null), &limits).unwrap_err();
        assert_eq!(error, EncodeError::MethodName { bytes: name.len(), max_bytes: 256 });
    }
    let error = Message::result(&Tree::Array(Array::zeros::<u8>(vec![1; 33])), &limits).unwrap_err();
    assert_eq!(error, EncodeError::Rank { rank: 33, max_rank: 32 });
}

/// Counts that exceed the bytes or the limit are refused before memory is allocated for them.
#[test]
fn counts_are_checked_before_memory_is_allocated() {
    let limits = Limits::default();
    let many = |tag: u8, count: u32| [&[tag][..], &count.to_le_bytes(), &[0; 40]].concat();
    for tag in [4, 5] {
        assert!(matches!(
            Signature::decode(&many(tag, u32::MAX), &limits),
            Err(DecodeError::Truncated { .. })
        ));
    }
    // Each list alone announces an allowed number of items. Together they announce too many.
    let list = [&[4][..], &40_000u32.to_le_bytes()].concat();
    let lists = [list.as_slice(), &list, &vec![0; 100_000]].concat();
    let found = Signature::decode(&lists, &limits);
    assert_eq!(found.unwrap_err(), DecodeError::TooLarge { what: "nodes", value: 80_001, max: 65_536 });
}

#[test]
fn invalid_orders_are_refused() {
    let message = result(&tree!({"a": 1, "b": 2, "c": {"d": 3}}));
    let signature = Signature::decode(parts(&message).0, &Limits::default()).unwrap();
    let order = |indices: &[u32]| {
        let bytes: Vec<u8> = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        Order::decode(&bytes, &signature).map(|_| ())
    };
    assert_eq!(order(&[]), Ok(()));
    assert_eq!(order(&[2, 0, 1]), Ok(()));
    assert_eq!(order(&[0, 1, 2]), Err(DecodeError::RedundantOrder));
    assert_eq!(order(&[0, 0, 2]), Err(DecodeError::NotPermutation { count: 3, index: 1 }));
    assert_eq!(order(&[0, 1, 3]), Err(DecodeError::NotPermutation { count: 3, index: 2 }));
    assert!(matches!(order(&[1, 0]), Err(DecodeError::Truncated { .. })));
    assert!(matches!(order(&[1, 0, 2, 0]), Err(DecodeError::Trailing { .. })));
}
