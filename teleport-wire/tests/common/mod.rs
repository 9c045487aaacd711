//! Strategies that several test files share: dtypes, arrays and whole trees, including odd ones.

#![allow(dead_code, reason = "each test file compiles this module for itself and uses a part of it")]

use proptest::collection::vec;
use proptest::prelude::*;
use teleport_wire::{Array, Buffer, DType, Dict, Key, TimeBase, TimeUnit, Tree};

/// Any dtype. Widths may be 0, and are small, so that arrays stay small.
pub(crate) fn dtypes() -> impl Strategy<Value = DType> {
    use DType::*;
    let plain = [Bool, I8, I16, I32, I64, U8, U16, U32, U64, F16, BF16, F32, F64, C64, C128];
    prop_oneof![
        6 => proptest::sample::select(plain.to_vec()),
        1 => (0..6u32).prop_map(Bytes),
        1 => (0..4u32).prop_map(Unicode),
        1 => time_units().prop_map(DateTime),
        1 => time_units().prop_map(TimeDelta),
    ]
}

/// Any unit of time.
pub(crate) fn time_units() -> impl Strategy<Value = TimeUnit> {
    let multiples = prop_oneof![Just(1), 1..=i32::MAX as u32];
    let bases = proptest::sample::select(TimeBase::ALL.to_vec());
    (multiples, bases)
        .prop_map(|(multiple, base)| TimeUnit::new(multiple, base).unwrap_or_else(|| base.into()))
}

/// Shapes of rank 0 to 5 with at most 243 items. Many have axes of size 0 or 1.
pub(crate) fn shapes() -> impl Strategy<Value = Vec<usize>> {
    vec(0..=3usize, 0..=5)
}

/// Arrays of any dtype and shape. Their bytes are arbitrary, so items of `bool` or `U` may be invalid.
pub(crate) fn arrays() -> impl Strategy<Value = Array> {
    (dtypes(), shapes(), any::<u64>()).prop_map(|(dtype, shape, seed)| array(dtype, shape, seed))
}

/// Creates an array of bytes derived from `seed`.
pub(crate) fn array(dtype: DType, shape: Vec<usize>, seed: u64) -> Array {
    let bytes = dtype.array_bytes(&shape).expect("test arrays are small");
    let mut state = seed | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let memory: Vec<u8> = std::iter::repeat_with(next).take(bytes).collect();
    Array::from_buffer(dtype, shape, Buffer::copy_from(&memory))
        .expect("as many bytes as the dtype asked for")
}

/// Common keys and odd ones: empty, with dots, with a common prefix, not ASCII.
pub(crate) fn keys() -> impl Strategy<Value = String> {
    let odd = ["", "a", "ab", "b", "a.b", "image", "ä", "\u{0}", "日本"].map(str::to_string);
    prop_oneof![proptest::sample::select(odd.to_vec()), "[a-z]{1,6}"]
}

/// Nulls, arrays, strings and bytes.
pub(crate) fn leaves() -> impl Strategy<Value = Tree> {
    prop_oneof![
        1 => Just(Tree::Null),
        4 => arrays().prop_map(Tree::Array),
        1 => ".{0,12}".prop_map(|text| Tree::String(text.into())),
        1 => vec(any::<u8>(), 0..100).prop_map(|bytes| Tree::Bytes(Buffer::from(bytes))),
    ]
}

/// Trees up to 4 levels deep, with empty lists and dicts, and dicts in any order of keys.
pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    trees_of(leaves())
}

/// The same trees with nulls and arrays only.
pub(crate) fn trees_of_arrays() -> impl Strategy<Value = Tree> {
    trees_of(prop_oneof![1 => Just(Tree::Null), 5 => arrays().prop_map(Tree::Array)])
}

fn trees_of(leaves: impl Strategy<Value = Tree> + 'static) -> impl Strategy<Value = Tree> {
    leaves.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Tree::List),
            vec((keys(), inner), 0..6).prop_map(|entries| Tree::Dict(entries.into_iter().collect())),
        ]
    })
}

/// Returns true if two trees are equal, including the order of dict entries, which `==` ignores.
pub(crate) fn same_with_order(left: &Tree, right: &Tree) -> bool {
    match (left, right) {
        (Tree::List(left), Tree::List(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same_with_order(left, right))
        }
        (Tree::Dict(left), Tree::Dict(right)) => left.len() == right.len() && same_entries(left, right),
        (left, right) => left == right,
    }
}

fn same_entries(left: &Dict, right: &Dict) -> bool {
    let same =
        |((a, left), (b, right)): ((&Key, &Tree), (&Key, &Tree))| a == b && same_with_order(left, right);
    left.iter().zip(right.iter()).all(same)
}
