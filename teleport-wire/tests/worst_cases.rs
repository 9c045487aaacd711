//! The cost of the most expensive metadata: its memory, compared with `Signature::structure_bytes`, and its
//! stack. With `--release -- --nocapture` it prints the time too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use teleport_wire::{
    Array, Buffer, Dict, Limits, MAX_DEPTH, Message, Order, ResultMetadata, Signature, Tree,
};

/// The system's allocator, with a count of the bytes of each thread.
struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` as it is; counting allocates nothing, as the counter needs no
// initialization.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the rules of `GlobalAlloc::dealloc`, and the memory is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MOST: usize = 60_000;

fn dict(entries: impl IntoIterator<Item = (String, Tree)>) -> Tree {
    Tree::Dict(entries.into_iter().collect())
}

fn nested(depth: usize, leaf: Tree) -> Tree {
    (0..depth).fold(leaf, |tree, _| Tree::List(vec![tree]))
}

/// Returns trees that almost reach one or several limits.
fn worst_cases() -> Vec<(&'static str, Tree)> {
    let empty_dict = || Tree::Dict(Dict::new());
    let key = |index: usize| format!("{index:08}");
    let scalar = || Tree::Array(Array::scalar(1u8));
    let prefix = "x".repeat(990);
    let wide: Vec<usize> = vec![1; 32];
    vec![
        ("nulls", Tree::List(vec![Tree::Null; MOST])),
        ("empty dicts", Tree::List((0..MOST).map(|_| empty_dict()).collect())),
        ("empty lists", Tree::List((0..MOST).map(|_| Tree::List(Vec::new())).collect())),
        ("dict of nulls, unsorted", dict((0..MOST).rev().map(|index| (key(index), Tree::Null)))),
        ("dicts of one", Tree::List((0..MOST / 2).map(|index| dict([(key(index), Tree::Null)])).collect())),
        ("pairs, unsorted", {
            Tree::List(
                (0..MOST / 3).map(|_| dict([("b".into(), Tree::Null), ("a".into(), Tree::Null)])).collect(),
            )
        }),
        ("long keys that differ at the end", {
            dict((0..1000).rev().map(|index| (format!("{prefix}{index:04}"), Tree::Null)))
        }),
        ("one key", dict([("k".repeat(1 << 19), Tree::Null)])),
        ("scalars", Tree::List((0..MOST).map(|_| scalar()).collect())),
        ("scalars by name", dict((0..MOST).map(|index| (key(index), scalar())))),
        ("strings", Tree::List(vec![Tree::String("a".into()); MOST])),
        ("rank 32", Tree::List((0..3900).map(|_| Tree::Array(Array::zeros::<u8>(&wide[..]))).collect())),
        ("empty arrays", Tree::List((0..MOST).map(|_| Tree::Array(Array::zeros::<f64>([0]))).collect())),
        ("deep", Tree::List((0..1000).map(|_| nested(62, Tree::Null)).collect())),
    ]
}

fn metadata(tree: &Tree) -> Vec<u8> {
    Message::result(tree, &Limits::default()).expect("it is just within the limits").metadata().to_vec()
}

/// Decodes the tree on memory of zeros.
fn decode(metadata: &[u8]) -> (Signature, Order, Tree) {
    let parts = ResultMetadata::decode(metadata).expect("it was just encoded");
    let signature = Signature::decode(parts.signature, &Limits::default()).expect("it was just encoded");
    let order = Order::decode(parts.order, &signature).expect("it was just encoded");
    let memory = Buffer::zeroed(signature.memory_bytes());
    let tree = signature.build(&order, memory).expect("zeros are text");
    (signature, order, tree)
}

/// Returns the shortest time of a few decodings, for a person to read. Nothing is asserted about it.
fn best_time(metadata: &[u8]) -> Duration {
    let time = || {
        let start = Instant::now();
        let built = decode(metadata);
        let elapsed = start.elapsed();
        drop(built);
        elapsed
    };
    // The time of a build without optimizations has no meaning.
    let tries = if cfg!(debug_assertions) { 1 } else { 5 };
    (0..tries).map(|_| time()).min().unwrap_or_default()
}

#[test]
fn structure_takes_no_more_than_is_charged_for_it() {
    for (name, tree) in worst_cases() {
        let metadata = metadata(&tree);
        let before = BYTES.get();
        let (signature, order, built) = decode(&metadata);
        let taken = BYTES.get().wrapping_sub(before).saturating_sub(signature.memory_bytes()) as u64;
        let charged = signature.structure_bytes();
        drop((order, built));
        let (bytes, time) = (metadata.len(), best_time(&metadata));
        println!("{name:33} {bytes:8} bytes, {taken:9} taken, {charged:9} charged, {time:?}");
        assert!(taken <= charged, "{name}: {taken} bytes taken, {charged} charged");
        let generous = 2 * taken + 10 * bytes as u64;
        assert!(charged <= generous, "{name}: {charged} charged for {taken}");
    }
}

#[test]
fn the_deepest_tree_needs_little_stack() {
    let limits = Limits { max_depth: MAX_DEPTH, ..Limits::default() };
    let lists = nested(MAX_DEPTH as usize, Tree::Null);
    let dicts =
        (0..MAX_DEPTH).fold(Tree::Null, |tree, _| dict([("b".into(), tree), ("a".into(), Tree::Null)]));
    for tree in [lists, dicts] {
        let metadata =
            Message::result(&tree, &limits).expect("it is as deep as is allowed").metadata().to_vec();
        // The thread has half of the usual stack. A build without optimizations needs most of it.
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let decoding = thread.spawn(move || {
            let parts = ResultMetadata::decode(&metadata).expect("it was just encoded");
            let signature = Signature::decode(parts.signature, &limits).expect("it was just encoded");
            let order = Order::decode(parts.order, &signature).expect("it was just encoded");
            let built = signature.build(&order, Buffer::empty()).expect("it has no payload");
            assert!(Message::result(&built, &limits).expect("it was just decoded").metadata() == metadata);
        });
        decoding.expect("the thread starts").join().expect("it fits the stack");
    }
}
