//! Counts the allocations of a small message, on which its speed depends most.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use teleport_wire::{Array, CallHead, CallMetadata, Limits, Message, Order, Signature, Tree, tree};

/// The system's allocator, with a counter for each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` as it is; counting allocates nothing, as the counter needs no
// initialization.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of `GlobalAlloc::dealloc`, and the memory is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let done = work();
    (ALLOCATIONS.get() - before, done)
}

/// Encodes a tree whose like has been encoded before, so that the memory of this thread is warm.
fn encode(tree: &Tree) -> (usize, Message) {
    let limits = Limits::default();
    for _ in 0..4 {
        Message::call(&CallHead::new("act"), tree, &limits).expect("small trees fit every limit");
    }
    let (count, message) = allocations(|| Message::call(&CallHead::new("act"), tree, &limits));
    (count, message.expect("small trees fit every limit"))
}

#[test]
fn encoding_allocates_a_list_of_large_arrays_only() {
    let image = Array::zeros::<u8>([64, 64, 3]);
    assert_eq!(encode(&Tree::from(image.clone())).0, 1);
    assert_eq!(encode(&tree!({"image": image})).0, 1);
    assert_eq!(encode(&tree!([1, 2, 3, 4])).0, 0);
    assert_eq!(encode(&tree!({"a": 1, "b": "text", "c": [null, 2.5]})).0, 0);
    assert_eq!(encode(&Tree::from(Array::zeros::<u8>(1 << 10))).0, 0);
    assert_eq!(encode(&tree!(null)).0, 0);
}

#[test]
fn building_a_dict_of_numbers_and_a_small_array_allocates_nothing() {
    let (_, message) = encode(&tree!({"b": 1, "a": 2.5, "inner": {"x": (vec![1.0; 100])}}));
    let metadata = CallMetadata::decode(message.metadata()).expect("it was just encoded");
    let signature = Signature::decode(metadata.signature, &Limits::default()).expect("it was just encoded");
    let order = Order::decode(metadata.order, &signature).expect("it was just encoded");
    let build = || signature.build_copied(&order, message.inline_payload()).expect("it is the payload");
    drop(build());
    let (count, tree) = allocations(build);
    assert_eq!(count, 0, "{tree:?}");
}

#[test]
fn building_one_array_from_a_known_signature_allocates_nothing() {
    let (_, message) = encode(&Tree::from(Array::zeros::<u8>([64, 64, 3])));
    let metadata = CallMetadata::decode(message.metadata()).expect("it was just encoded");
    let signature = Signature::decode(metadata.signature, &Limits::default()).expect("it was just encoded");
    let memory = message.pieces()[0].clone();
    let (count, tree) = allocations(|| {
        let order = Order::decode(metadata.order, &signature)?;
        signature.build(&order, memory)
    });
    assert_eq!(count, 0, "{tree:?}");
}
