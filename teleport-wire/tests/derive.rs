//! Tests of derived implementations: both directions, writing in place, and errors.
#![cfg(feature = "derive")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use teleport_wire::{Array, Dict, FromTree, IntoTree, Rpc, Tree, TreeError, tree};

/// Checks that the value converts into this tree, with keys in this order, and back.
#[track_caller]
fn check<T: IntoTree + FromTree + PartialEq + Clone + Debug>(value: T, tree: Tree) {
    assert_eq!(value.clone().into_tree().to_string(), tree.to_string());
    assert_eq!(value.clone().into_tree(), tree);
    assert_eq!(T::from_tree(tree), Ok(value));
}

#[track_caller]
fn check_error<T: FromTree + Debug>(tree: Tree, text: &str) {
    assert_eq!(T::from_tree(tree).expect_err(text).to_string(), text);
}

#[derive(IntoTree, FromTree, Clone, PartialEq, Debug)]
struct Obs {
    // The fields are sorted neither by name nor by size.
    reward: f32,
    image: Array,
    r#type: String,
    info: Info,
}

#[derive(IntoTree, FromTree, Clone, PartialEq, Debug, Default)]
struct Info {
    #[teleport(rename = "is-last")]
    last: Option<bool>,
    #[teleport(default)]
    counts: BTreeMap<String, usize>,
    #[teleport(rename = "steps done", default)]
    steps: Vec<u32>,
}

#[derive(IntoTree, FromTree, Clone, Copy, PartialEq, Debug)]
struct Meters(f32);

#[derive(IntoTree, FromTree, Clone, PartialEq, Debug)]
struct Range(Meters, Meters, Option<String>);

#[derive(IntoTree, FromTree, Clone, Copy, PartialEq, Debug)]
struct Reset;

#[derive(IntoTree, FromTree, Clone, Copy, PartialEq, Debug)]
struct NoFields {}

#[derive(IntoTree, FromTree, Clone, Copy, PartialEq, Debug)]
struct NoItems();

#[derive(IntoTree, FromTree, Clone, Copy, PartialEq, Debug)]
enum Move {
    Left,
    #[teleport(rename = "to the right")]
    Right,
}

fn obs() -> Obs {
    let info = Info { last: Some(true), counts: BTreeMap::new(), steps: vec![1, 2] };
    Obs { reward: 0.5, image: Array::zeros::<u8>([2, 2]), r#type: "x".into(), info }
}

#[test]
fn structs_with_names_are_dicts_in_order() {
    let info = tree!({"is-last": true, "counts": {}, "steps done": vec![1u32, 2]});
    let tree = tree!({"reward": 0.5f32, "image": Array::zeros::<u8>([2, 2]), "type": "x", "info": info});
    check(obs(), tree);
    check(NoFields {}, tree!({}));
    check(vec![NoFields {}; 2], tree!([{}, {}]));
}

#[test]
fn structs_without_names_are_lists_or_their_field() {
    check(Range(Meters(1.0), Meters(2.0), None), tree!([1f32, 2f32, null]));
    check(NoItems(), tree!([]));
    check(Reset, Tree::Null);
    check(Meters(0.5), tree!(0.5f32));
    check(vec![Meters(0.5), Meters(1.0)], vec![0.5f32, 1.0].into_tree());
    check([Meters(0.5), Meters(1.0)], vec![0.5f32, 1.0].into_tree());
    check(vec![Range(Meters(1.0), Meters(2.0), None)], tree!([[1f32, 2f32, null]]));
}

#[test]
fn enums_are_strings() {
    check(Move::Left, tree!("Left"));
    check(vec![Move::Right, Move::Left], tree!(["to the right", "Left"]));
    check_error::<Move>(tree!("Right"), r#"there is no "Right"; expected one of "Left", "to the right""#);
    check_error::<Vec<Move>>(tree!(["Left", 1]), "at [1]: expected a string, found an array int64[]");
    let long = Move::from_tree(tree!("é".repeat(1 << 20))).unwrap_err();
    let TreeError::Variant { found, known, .. } = &long else { panic!("{long}") };
    assert_eq!((found.chars().count(), *known), (65, ["Left", "to the right"].as_slice()));
}

#[test]
fn options_may_be_missing() {
    let none = Info::default();
    assert_eq!(Info::from_tree(tree!({})), Ok(none.clone()));
    assert_eq!(Info::from_tree(tree!({"is-last": null})), Ok(none.clone()));
    check(none, tree!({"is-last": null, "counts": {}, "steps done": Vec::<u32>::new()}));
    // A default is for a missing key. A null is a value.
    check_error::<Info>(tree!({"counts": null}), "at counts: expected a dict, found null");

    #[derive(FromTree, PartialEq, Debug)]
    struct Level(Option<u8>);
    #[derive(FromTree, PartialEq, Debug)]
    struct Game {
        level: Level,
    }
    assert_eq!(Game::from_tree(tree!({})), Ok(Game { level: Level(None) }));
    check_error::<Game>(tree!({"level": "x"}), "at level: expected a number, found a string of 1 bytes");
}

#[test]
fn other_keys_are_ignored() {
    assert_eq!(Info::from_tree(tree!({"is_last": true, "x": 1})), Ok(Info::default()));
    assert_eq!(NoFields::from_tree(tree!({"x": 1})), Ok(NoFields {}));
}

#[test]
fn errors_have_path_and_keys() {
    check_error::<Obs>(
        tree!({"reward": 0, "image": 1}),
        r#"there is no "type"; the dict has "reward", "image""#,
    );
    check_error::<Obs>(tree!([1]), "expected a dict, found a list of 1 items");
    check_error::<NoFields>(tree!(1), "expected a dict, found an array int64[]");
    check_error::<Reset>(tree!({}), "expected null, found a dict of 0 entries");
    check_error::<Range>(tree!([1]), "expected a list of 3 items, found 1");
    check_error::<Range>(tree!([1, "x", null]), "at [1]: expected a number, found a string of 1 bytes");
    check_error::<NoItems>(tree!(1), "expected a list, found an array int64[]");
    let mut tree = obs().into_tree();
    *tree.get_mut("info").unwrap() = tree!({"steps done": [1, -1]});
    let text = r#"at info["steps done"][1]: the int64 -1 cannot be read as uint32 without loss"#;
    check_error::<Obs>(tree, text);
    let mut tree = obs().into_tree();
    *tree.get_mut("info").unwrap() = tree!({"counts": {"a": {}}});
    check_error::<Vec<Obs>>(
        tree!([tree]),
        "at [0].info.counts.a: expected a number, found a dict of 0 entries",
    );
}

/// Checks that the array is writable without a copy.
#[track_caller]
fn check_in_place(array: &mut Array, start: *const u8) {
    assert!(array.buffer().is_unique());
    assert_eq!(array.as_mut_slice::<u8>().map(|items| items.as_ptr()), Ok(start));
}

#[test]
fn arrays_keep_their_one_owner() {
    #[derive(IntoTree, FromTree)]
    struct Frame {
        image: Array,
        wrapped: (Array, Holder),
        last: Pair,
    }
    #[derive(IntoTree, FromTree)]
    struct Holder(Array);
    #[derive(IntoTree, FromTree)]
    struct Pair(Array, Option<Array>);

    let array = || Array::zeros::<u8>([4]);
    let frame =
        Frame { image: array(), wrapped: (array(), Holder(array())), last: Pair(array(), Some(array())) };
    let tree = frame.into_tree();
    let starts: Vec<_> = tree.leaves().map(|leaf| leaf.as_array().unwrap().as_bytes().as_ptr()).collect();
    let mut frame = Frame::from_tree(tree).unwrap();
    let last = frame.last.1.as_mut().unwrap();
    let arrays = [&mut frame.image, &mut frame.wrapped.0, &mut frame.wrapped.1.0, &mut frame.last.0, last];
    for (array, start) in arrays.into_iter().zip(starts) {
        check_in_place(array, start);
    }
    let mut numbers = Array::from_tree(vec![Meters(1.0)].into_tree()).unwrap();
    assert!(numbers.buffer().is_unique() && numbers.as_mut_slice::<f32>().is_ok());
}

trait Env {
    type Image;
}

struct Atari;

impl Env for Atari {
    type Image = Array;
}

#[test]
fn types_may_be_generic() {
    #[derive(IntoTree, FromTree, Clone, PartialEq, Debug)]
    struct Step<T, const LEN: usize = 2> {
        action: [T; LEN],
        #[teleport(default)]
        rest: Vec<T>,
    }
    check(Step { action: [1u8, 2], rest: vec![3] }, tree!({"action": vec![1u8, 2], "rest": vec![3u8]}));
    assert_eq!(Step::<u8>::from_tree(tree!({"action": [1, 2]})), Ok(Step { action: [1, 2], rest: vec![] }));

    #[derive(IntoTree, FromTree)]
    struct Seen<E: Env> {
        image: E::Image,
    }
    let seen: Seen<Atari> = FromTree::from_tree(tree!({"image": vec![1u8]})).unwrap();
    assert_eq!(seen.into_tree(), tree!({"image": vec![1u8]}));

    #[derive(IntoTree, FromTree, Clone, PartialEq, Debug)]
    struct Node<T> {
        value: T,
        #[teleport(default)]
        children: Vec<Node<T>>,
    }
    let leaf = |value| Node { value, children: vec![] };
    let tree = tree!({"value": 1u8, "children": [{"value": 2u8, "children": []}]});
    check(Node { value: 1u8, children: vec![leaf(2)] }, tree);

    #[derive(IntoTree)]
    struct Borrowed<'a, T: Clone> {
        name: &'a str,
        items: &'a [T],
    }
    let borrowed = Borrowed { name: "x", items: &[1u8, 2] };
    assert_eq!(borrowed.into_tree(), tree!({"name": "x", "items": vec![1u8, 2]}));

    #[derive(IntoTree, FromTree, Clone, PartialEq, Debug)]
    struct Wrapper<T>(T);
    check(vec![Wrapper(1u8), Wrapper(2)], vec![1u8, 2].into_tree());
    check(Wrapper(None::<Dict>), Tree::Null);
}

/// Names of the user that generated code must not confuse with its own.
mod hygiene {
    #![allow(dead_code, non_snake_case, reason = "the names are chosen to clash")]

    struct Option;
    struct Result;
    struct Vec;
    struct Tree;
    struct String;
    fn Ok() {}
    fn Some() {}

    #[derive(teleport_wire::IntoTree, teleport_wire::FromTree)]
    struct Obs {
        field_1: u8,
        field_0: u16,
        tree: u32,
        dict: u64,
        #[teleport(default)]
        items: i8,
    }

    #[derive(teleport_wire::IntoTree, teleport_wire::FromTree)]
    struct Pair(u8, u16);

    #[derive(teleport_wire::IntoTree, teleport_wire::FromTree)]
    struct One(u8);

    #[derive(teleport_wire::IntoTree, teleport_wire::FromTree)]
    enum Move {
        Ok,
        Err,
    }

    #[test]
    fn names_of_the_user_do_not_clash() {
        use teleport_wire::{FromTree, IntoTree, tree};
        let tree = tree!({"field_1": 1u8, "field_0": 2u16, "tree": 3u32, "dict": 4u64, "items": 5i8});
        let obs = Obs::from_tree(tree.clone()).unwrap();
        assert_eq!((obs.field_1, obs.field_0), (1, 2));
        assert_eq!(obs.into_tree(), tree);
        assert_eq!(Pair::from_tree(tree!([1u8, 2u16])).unwrap().into_tree(), tree!([1u8, 2u16]));
        assert_eq!(Move::from_tree(tree!("Err")).unwrap().into_tree(), tree!("Err"));
        assert_eq!(One::from_tree(tree!(1)).unwrap().0, 1);
    }
}

/// A program can set the path if the default one does not lead to the traits.
mod paths {
    mod wrapped {
        pub(super) use teleport_wire as rpc;
    }

    #[derive(wrapped::rpc::IntoTree, wrapped::rpc::FromTree, PartialEq, Debug)]
    #[teleport(crate = "wrapped::rpc")]
    struct Obs {
        reward: f32,
    }

    #[test]
    fn another_path_leads_to_the_same_traits() {
        use teleport_wire::{FromTree, IntoTree};
        assert_eq!(Obs::from_tree(Obs { reward: 0.5 }.into_tree()), Ok(Obs { reward: 0.5 }));
    }
}

#[test]
fn typed_names_convert_to_names() {
    const ACT: Rpc<Obs, Move> = Rpc::new("act");
    assert_eq!(String::from(ACT), "act");
}
