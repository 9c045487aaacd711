//! Arrays that are echoed by a real server: every dtype and shape arrives unchanged, in aligned memory that
//! the receiver owns, and sending copies no bytes.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::sync::mpsc;

use teleport::wire::{CallHead, Limits, Message, TimeBase, TimeUnit};
use teleport::{Array, Buffer, Client, Complex, DType, Methods, Pool, Server, ServerHandle, Tree, tree};
use teleport_tests::{Random, abstract_address, watched};

fn echo_server(address: &str) -> (ServerHandle, Client) {
    let server = Server::bind(address).unwrap().start(Methods::new().register("echo", |x: Tree| x)).unwrap();
    let client = Client::connect(&server.address().to_string()).unwrap();
    (server, client)
}

/// Echoes each tree over TCP and over a Unix socket and checks the result.
#[track_caller]
fn echoes(trees: Vec<Tree>) {
    watched(move || {
        for address in ["tcp://127.0.0.1:0", &abstract_address()] {
            let (server, client) = echo_server(address);
            for tree in &trees {
                let reply = client.call("echo", tree.clone()).wait().unwrap();
                assert_eq!(&reply, tree);
                assert_eq!(keys(&reply), keys(tree), "the order of keys");
                check_memory(reply);
            }
            server.close().unwrap();
        }
    });
}

/// Returns all keys in their order.
fn keys(tree: &Tree) -> Vec<String> {
    match tree {
        Tree::List(list) => list.iter().flat_map(keys).collect(),
        Tree::Dict(dict) => {
            dict.iter().flat_map(|(key, tree)| std::iter::once(key.to_string()).chain(keys(tree))).collect()
        }
        _ => Vec::new(),
    }
}

/// Checks that every array of a received tree is aligned, and writable in place once it is taken out.
#[track_caller]
fn check_memory(tree: Tree) {
    match tree {
        Tree::Null => {}
        Tree::Array(array) => check_array(array),
        Tree::String(text) => assert!(text.is_empty() || is_aligned(text.as_bytes())),
        Tree::Bytes(bytes) => check_buffer(bytes),
        Tree::List(list) => list.into_iter().for_each(check_memory),
        Tree::Dict(dict) => dict.into_iter().for_each(|(_, tree)| check_memory(tree)),
    }
}

/// Returns true if received bytes have their alignment. Up to 8 bytes are in the buffer itself.
fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(if bytes.len() > 8 { Buffer::ALIGNMENT } else { 8 })
}

#[track_caller]
fn check_array(array: Array) {
    check_buffer(array.into_buffer());
}

#[track_caller]
fn check_buffer(mut buffer: Buffer) {
    if buffer.is_empty() {
        return;
    }
    let start = buffer.as_ptr();
    assert!(is_aligned(&buffer), "{start:p}");
    assert!(buffer.is_unique(), "the buffer is shared");
    assert!(buffer.get_mut().is_some(), "the buffer is not writable in place");
    assert_eq!(buffer.make_mut().as_ptr(), start, "the buffer moved");
}

fn unit(multiple: u32, base: TimeBase) -> TimeUnit {
    TimeUnit::new(multiple, base).unwrap()
}

/// Returns one dtype of every kind.
fn dtypes() -> Vec<DType> {
    use DType::*;
    let mut all = vec![Bool, I8, I16, I32, I64, U8, U16, U32, U64, F16, BF16, F32, F64, C64, C128];
    all.extend([Bytes(0), Bytes(1), Bytes(5), Unicode(0), Unicode(1), Unicode(3)]);
    all.extend(TimeBase::ALL.map(|base| DateTime(unit(1, base))));
    all.extend([TimeDelta(unit(1, TimeBase::ALL[0])), TimeDelta(unit(25, TimeBase::ALL[7]))]);
    all
}

const SHAPES: [&[usize]; 9] =
    [&[], &[0], &[1], &[5], &[3, 0, 2], &[2, 3], &[1, 1, 1, 1, 1], &[2, 1, 3, 1, 2], &[1; 32]];

/// Returns an array of random valid values of the dtype.
fn random_array(random: &mut Random, dtype: DType, shape: &[usize]) -> Array {
    let bytes = dtype.array_bytes(shape).unwrap();
    let mut data = random.bytes(bytes);
    match dtype {
        DType::Bool => data.iter_mut().for_each(|byte| *byte &= 1),
        DType::Unicode(_) => data.chunks_exact_mut(4).for_each(|character| {
            let code = u32::from(character[0]) + 0x100;
            character.copy_from_slice(&code.to_le_bytes());
        }),
        _ => {}
    }
    Array::from_buffer(dtype, shape, Buffer::copy_from(&data)).unwrap()
}

#[test]
fn every_dtype_and_shape_is_echoed_unchanged() {
    let mut random = Random::from_environment();
    let mut trees = Vec::new();
    for dtype in dtypes() {
        for shape in SHAPES {
            trees.push(Tree::from(random_array(&mut random, dtype, shape)));
        }
    }
    echoes(trees);
}

#[test]
fn one_message_can_hold_all_dtypes() {
    let mut random = Random::from_environment();
    let arrays = dtypes().into_iter().map(|dtype| {
        let shape: Vec<usize> = (0..random.below(4)).map(|_| random.below(40)).collect();
        Tree::from(random_array(&mut random, dtype, &shape))
    });
    echoes(vec![Tree::List(arrays.collect())]);
}

#[test]
fn scalars_and_extreme_values_are_echoed_unchanged() {
    echoes(vec![
        tree!({"max": i64::MAX, "min": i64::MIN, "u": u64::MAX, "nan": f64::NAN, "zero": (-0.0), "inf": f64::INFINITY}),
        Tree::from(Array::scalar(true)),
        Tree::from(Array::from(vec![Complex { re: 1.5f32, im: -2.5 }; 3])),
        Tree::from(Array::from(vec![f32::NAN, f32::MIN_POSITIVE, -0.0])),
    ]);
}

#[test]
fn the_structure_of_trees_is_echoed_unchanged() {
    let deep = (0..64)
        .fold(tree!(null), |inner, level| if level % 2 == 0 { tree!([inner]) } else { tree!({"in": inner}) });
    echoes(vec![
        tree!(null),
        tree!({}),
        tree!([]),
        tree!({"z": {}, "a": [], "m": [null, {}, [[]]], "": ""}),
        tree!({"z": 1, "b": {"y": 1, "x": [{"d": 1, "c": 2}]}, "a": 3, "é": "ü", "long key with spaces and \n": null}),
        tree!(""),
        tree!("text with \u{0} and 😀"),
        Tree::Bytes(Buffer::empty()),
        Tree::Bytes(Buffer::copy_from(&[0, 255, 128])),
        tree!([(vec![1u8, 2, 3]), "x", (vec![1.0f64; 9]), "yz", (Vec::<i16>::new()), (vec![true, false])]),
        deep,
    ]);
}

#[test]
fn arrays_with_sizes_around_every_threshold_are_echoed_unchanged() {
    let sizes = [1, 63, 64, 65, 4095, 16 << 10, 64 << 10, 1 << 20, 3 << 20];
    let around = sizes.iter().flat_map(|size| [size - 1, *size, size + 1]);
    echoes(
        around
            .map(|size| Tree::from(Array::from((0..size).map(|i| (i / 7) as u8).collect::<Vec<_>>())))
            .collect(),
    );
}

#[test]
fn random_trees_are_echoed_unchanged() {
    let mut random = Random::from_environment();
    echoes((0..60).map(|_| random_tree(&mut random, 4)).collect());
}

fn random_tree(random: &mut Random, depth: usize) -> Tree {
    let kinds = if depth == 0 { 5 } else { 9 };
    match random.below(kinds) {
        0 => Tree::Null,
        1 => Tree::Bytes(Buffer::from_vec({
            let len = random.below(1000);
            random.bytes(len)
        })),
        2 => tree!(format!("{:x}", random.next_u64()).repeat(random.below(5))),
        3 | 4 => {
            let dtypes = dtypes();
            let dtype = dtypes[random.below(dtypes.len())];
            let shape: Vec<usize> = (0..random.below(4)).map(|_| random.below(30)).collect();
            Tree::from(random_array(random, dtype, &shape))
        }
        5 | 6 => Tree::List((0..random.below(6)).map(|_| random_tree(random, depth - 1)).collect()),
        _ => {
            let entries = (0..random.below(6))
                .map(|_| (format!("{:x}", random.next_u64() % 97), random_tree(random, depth - 1)));
            Tree::Dict(entries.collect())
        }
    }
}

// ---- No copies ----

#[test]
fn a_message_borrows_the_memory_of_a_vector() {
    let items = vec![1.5f32; 1000];
    let start = items.as_ptr();
    let array = Array::from(items);
    assert_eq!(array.as_bytes().as_ptr(), start.cast());
    let tree = tree!({"a": array, "b": "text"});
    let message = Message::call(&CallHead::new("echo"), &tree, &Limits::default()).unwrap();
    assert_eq!(message.pieces()[0].as_ptr(), start.cast());
    drop(tree);
    assert_eq!(message.pieces()[0].as_ptr(), start.cast(), "the message does not keep the memory");
}

#[test]
fn a_message_borrows_the_memory_of_rows_and_strings() {
    let text = String::from("a string of its own memory");
    let (text_start, array) = (text.as_ptr(), Array::from_vec(vec![7u8; 64 << 12], [64, 4096]).unwrap());
    let row = array.row(3);
    assert_eq!(row.as_bytes().as_ptr(), array.as_bytes()[3 * 4096..].as_ptr());
    let tree = tree!([row, text]);
    let message = Message::call(&CallHead::new("echo"), &tree, &Limits::default()).unwrap();
    assert_eq!(message.pieces()[0].as_ptr(), array.as_bytes()[3 * 4096..].as_ptr());
    assert_eq!(message.pieces()[1].as_ptr(), text_start);
}

#[test]
fn a_function_owns_its_arguments_and_results_are_sent_without_a_copy() {
    watched(|| {
        let (sender, addresses) = mpsc::channel();
        let methods = Methods::new().register("double", move |mut x: Tree| {
            let mut array: Array = x.take("x").unwrap();
            let start = array.as_bytes().as_ptr();
            assert!(is_aligned(array.as_bytes()));
            // A copy would have another address.
            array.as_mut_slice::<f32>().unwrap().iter_mut().for_each(|item| *item *= 2.0);
            sender.send(array.as_bytes().as_ptr() == start).unwrap();
            tree!({"x": array})
        });
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().start(methods).unwrap();
        let client = Client::connect(&server.address().to_string()).unwrap();
        for len in [1, 1000, 300_000, 1_000_000] {
            let sent = tree!({"before": "text", "x": (vec![1.5f32; len]), "after": (vec![1u8; 3])});
            let mut reply = client.call("double", sent).wait().unwrap();
            assert!(addresses.recv().unwrap(), "an array of {len} was copied");
            let mut array: Array = reply.take("x").unwrap();
            let start = array.as_bytes().as_ptr();
            assert!(is_aligned(array.as_bytes()));
            assert_eq!(array.as_mut_slice::<f32>().unwrap().as_ptr(), start.cast(), "the array moved");
            assert_eq!(array.to_vec::<f32>().unwrap(), vec![3.0; len]);
        }
    });
}

#[test]
fn a_server_in_the_same_process_does_not_change_the_callers_array() {
    watched(|| {
        let methods = Methods::new().register("clear", |mut x: Array| {
            x.as_mut_slice::<u64>().unwrap().fill(0);
            x
        });
        let server = Server::bind(&abstract_address()).unwrap().start(methods).unwrap();
        let client = Client::connect(&server.address().to_string()).unwrap();
        let mine = Array::from(vec![7u64; 100_000]);
        let reply = client.call("clear", mine.clone()).wait().unwrap();
        assert_eq!(mine, Array::from(vec![7u64; 100_000]));
        assert_eq!(reply, Tree::from(Array::from(vec![0u64; 100_000])));
    });
}

#[test]
fn memory_of_messages_is_reused() {
    watched(|| {
        let (_server, client) = echo_server(&abstract_address());
        let array = Array::from(vec![1u8; 8 << 20]);
        for _ in 0..3 {
            client.call("echo", array.clone()).wait().unwrap();
        }
        let before = Pool::global().stats().hits;
        for _ in 0..5 {
            client.call("echo", array.clone()).wait().unwrap();
        }
        // Each call reuses memory once at the server and once here. Other tests of this process only add to
        // the count.
        assert!(Pool::global().stats().hits >= before + 10);
        // An array allocated by the client is sent too.
        let mut own = client.alloc::<f32>([2 << 20]).unwrap();
        own.as_mut_slice::<f32>().unwrap().fill(0.5);
        assert_eq!(client.call("echo", own.clone()).wait().unwrap(), Tree::from(own));
    });
}

#[cfg(feature = "half")]
#[test]
fn half_floats_are_echoed_unchanged() {
    let f16s: Vec<half::f16> = [0.5, -2.0, 65504.0].map(half::f16::from_f32).to_vec();
    let bf16s: Vec<half::bf16> = [0.5, -2.0, 1e30].map(half::bf16::from_f32).to_vec();
    echoes(vec![Tree::from(Array::from(f16s)), Tree::from(Array::from(bf16s))]);
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_arrays_are_sent_without_a_copy() {
    let array = ndarray::Array2::<f32>::from_shape_fn((30, 40), |(i, j)| (i * 100 + j) as f32);
    let (start, expected) = (array.as_ptr(), array.clone());
    let sent = Array::from(array);
    assert_eq!(sent.as_bytes().as_ptr(), start.cast());
    watched(move || {
        let (_server, client) = echo_server(&abstract_address());
        let reply = client.call("echo", sent).wait().unwrap();
        let array = reply.as_array().unwrap();
        let view = array.view::<f32>().unwrap();
        assert_eq!(view.as_ptr(), array.as_bytes().as_ptr().cast());
        assert_eq!(view, expected.into_dyn());
    });
}
