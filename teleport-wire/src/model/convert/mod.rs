//! Rust values as trees, and trees as Rust values.
//!
//! Functions and calls are generic over these two traits, so that they can use plain Rust types.

mod impls;

use crate::model::{tree::Tree, tree::error::TreeError};

/// A value that a call can send: it converts into a [`Tree`].
///
/// | Rust | tree |
/// |---|---|
/// | `()`, `None` | null |
/// | `bool`, integers, floats, [`Complex`](crate::Complex) | array of rank 0 and the same dtype |
/// | `usize`, `isize` | array of rank 0 of `u64` or `i64` |
/// | [`Array`](crate::Array), `ndarray::Array` (feature `ndarray`) | array |
/// | `Vec<T>`, `[T; N]`, `&[T]` of numbers | one array of rank 1; of a `Vec` without a copy |
/// | `Vec<T>`, `[T; N]`, `&[T]` of other types, tuples | list |
/// | `String`, `&str`, [`Text`](crate::Text) | string |
/// | [`Buffer`](crate::Buffer) | bytes |
/// | [`Dict`](crate::Dict), `BTreeMap<String, T>` | dict |
/// | `HashMap<String, T>` | dict, sorted by key |
/// | `Option<T>`, `&T` | as `T` |
///
/// With the feature `derive`, structs and enums implement it by `#[derive(IntoTree)]`.
///
/// ```
/// use teleport_wire::{tree, IntoTree};
///
/// assert_eq!((1u8, "x", None::<bool>).into_tree(), tree!([1u8, "x", null]));
/// assert_eq!(vec![1.5f32, 2.5].into_tree().to_string(), "[1.5 2.5]");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as a tree",
    note = "sent are numbers, strings, arrays, vectors, maps, tuples, `()`, and what derives or implements `IntoTree`"
)]
pub trait IntoTree: Sized {
    /// Converts the value into a tree, without copying arrays, vectors of numbers and strings.
    fn into_tree(self) -> Tree;

    /// Converts many values into one tree: an array of numbers, or a list of anything else.
    #[doc(hidden)]
    fn vec_into_tree(items: Vec<Self>) -> Tree {
        Tree::List(items.into_iter().map(IntoTree::into_tree).collect())
    }
}

/// A value that a call can receive: it converts from a [`Tree`].
///
/// This is the reverse of the table at [`IntoTree`]. A scalar is read as any number type that it fits without
/// loss (see [`Array::item`](crate::Array::item)). Arrays are strict: a vector of `f32` needs an array of
/// `f32`, or a list of scalars. Dicts and lists must be complete, and a map takes any keys.
///
/// With the feature `derive`, structs and enums implement it by `#[derive(FromTree)]`.
///
/// ```
/// use teleport_wire::{tree, FromTree};
/// use std::collections::BTreeMap;
///
/// let counts = BTreeMap::<String, u8>::from_tree(tree!({"ant": 1, "bee": 300})).unwrap_err();
/// assert_eq!(counts.to_string(), "at bee: the int64 300 cannot be read as uint8 without loss");
/// let (name, place): (String, Option<u8>) = FromTree::from_tree(tree!(["ant", null]))?;
/// assert_eq!((name.as_str(), place), ("ant", None));
/// # Ok::<(), teleport_wire::TreeError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be received from a tree",
    note = "received are numbers, strings, arrays, vectors, maps, tuples, `()`, and what derives or implements `FromTree`"
)]
pub trait FromTree: Sized {
    /// Converts a tree into the value.
    ///
    /// # Errors
    /// Returns an error with the path to the part that does not fit.
    fn from_tree(tree: Tree) -> Result<Self, TreeError>;

    /// Converts one tree into many values: a list, or for numbers an array.
    #[doc(hidden)]
    fn vec_from_tree(tree: Tree) -> Result<Vec<Self>, TreeError> {
        list(tree)
    }

    /// Returns the value of a missing key of a dict, for types that have one: `Option` has `None`.
    #[doc(hidden)]
    fn absent() -> Option<Self> {
        None
    }
}

fn list<T: FromTree>(tree: Tree) -> Result<Vec<T>, TreeError> {
    let Tree::List(list) = tree else { return Err(TreeError::kind("a list", &tree)) };
    let items = list.into_iter().enumerate();
    items.map(|(index, tree)| T::from_tree(tree).map_err(|error| error.within(index))).collect()
}

/// Takes the items of a list of `COUNT` trees.
///
/// # Errors
/// Returns an error if the tree is no list, or has another length.
pub fn items<const COUNT: usize>(tree: Tree) -> Result<[Tree; COUNT], TreeError> {
    let Tree::List(list) = tree else { return Err(TreeError::kind("a list", &tree)) };
    list.try_into().map_err(|list: Vec<Tree>| TreeError::length(COUNT, list.len()))
}

/// Moves the value at `index` out of the items, and converts it.
///
/// # Errors
/// Returns an error if the value cannot be converted.
pub fn item<T: FromTree>(items: &mut [Tree], index: usize) -> Result<T, TreeError> {
    T::from_tree(std::mem::take(&mut items[index])).map_err(|error| error.within(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, Buffer, DType, Dict, Text, tree};
    use std::collections::{BTreeMap, HashMap};
    use std::fmt::Debug;

    /// Checks that the value converts into this tree, and back.
    fn check<T: IntoTree + FromTree + PartialEq + Clone + Debug>(value: T, tree: Tree) {
        assert_eq!(value.clone().into_tree(), tree);
        assert_eq!(T::from_tree(tree), Ok(value));
    }

    fn check_error<T: FromTree + Debug>(tree: Tree, text: &str) {
        assert_eq!(T::from_tree(tree).unwrap_err().to_string(), text);
    }

    #[test]
    fn both_ways() {
        check((), Tree::Null);
        check(true, Array::scalar(true).into());
        check(-7i8, Array::scalar(-7i8).into());
        check(7usize, Array::scalar(7u64).into());
        check(-7isize, Array::scalar(-7i64).into());
        check(vec![7usize], Array::from([7u64]).into());
        check(0.5f32, Array::scalar(0.5f32).into());
        check(String::from("x"), tree!("x"));
        check(Text::from("x"), tree!("x"));
        check(Buffer::from(vec![1]), Tree::Bytes(vec![1].into()));
        check(vec![1u8, 2], Array::from([1u8, 2]).into());
        check([true, false], Array::from([true, false]).into());
        check(vec![vec![1u8], vec![]], tree!([vec![1u8], Vec::<u8>::new()]));
        check(vec![String::from("x")], tree!(["x"]));
        check([[1u8, 2], [3, 4]], tree!([vec![1u8, 2], vec![3u8, 4]]));
        check(Some(1u8), tree!(1u8));
        check(None::<u8>, Tree::Null);
        check(vec![Some(1u8), None], tree!([1u8, null]));
        check((1u8, (2u8, String::from("x"))), tree!([1u8, [2u8, "x"]]));
        check(BTreeMap::from([("a".to_string(), 1u8)]), tree!({"a": 1u8}));
        check(HashMap::from([("a".to_string(), vec![1u8])]), tree!({"a": vec![1u8]}));
        check(Dict::from_iter([("a", 1u8)]), tree!({"a": 1u8}));
        check(tree!([1]), tree!([1]));
        check(Vec::<f32>::new(), Array::zeros::<f32>([0]).into());
    }

    #[test]
    fn references_send_what_they_point_to() {
        assert_eq!((&String::from("x")).into_tree(), tree!("x"));
        assert_eq!([1u8, 2].as_slice().into_tree(), tree!(vec![1u8, 2]));
        assert_eq!(vec![&1u8, &2].into_tree(), tree!(vec![1u8, 2]));
        assert_eq!(vec!["a", "b"].into_tree(), tree!(["a", "b"]));
        let array = Array::from([1u8]);
        assert_eq!((&array).into_tree(), array.into());
    }

    #[test]
    fn vectors_do_not_copy() {
        let items = vec![1.5f32, 2.5];
        let start = items.as_ptr().cast::<u8>();
        let tree = items.into_tree();
        assert_eq!(tree.as_array().map(|array| array.as_bytes().as_ptr()), Some(start));
    }

    #[test]
    fn maps_are_sent_in_order() {
        let map: HashMap<String, usize> = (0..9).map(|index| (format!("k{index}"), index)).collect();
        let Tree::Dict(dict) = map.into_tree() else { panic!("a map is a dict") };
        assert!(dict.keys().is_sorted());
    }

    #[test]
    fn arrays_are_strict_and_lists_of_scalars_are_not() {
        check_error::<Vec<f32>>(tree!(vec![1.0f64]), "the array is float64, not float32");
        assert_eq!(Vec::<f32>::from_tree(tree!([1, 2])), Ok(vec![1.0, 2.0]));
        check_error::<Vec<u8>>(tree!([1, 300]), "at [1]: the int64 300 cannot be read as uint8 without loss");
        let matrix = Array::zeros::<u8>([2, 2]);
        let text = "the array has shape [2, 2]; expected 1 axes, 0 being a scalar";
        check_error::<Vec<u8>>(matrix.into(), text);
    }

    #[test]
    fn errors_name_the_expected_kind() {
        check_error::<()>(tree!(1), "expected null, found an array int64[]");
        check_error::<String>(tree!(1), "expected a string, found an array int64[]");
        check_error::<Vec<String>>(tree!(["a", 1]), "at [1]: expected a string, found an array int64[]");
        check_error::<[u8; 3]>(tree!(vec![1u8, 2]), "expected a list of 3 items, found 2");
        check_error::<(u8, u8)>(tree!([1]), "expected a list of 2 items, found 1");
        check_error::<(u8, u8)>(tree!([1, "x"]), "at [1]: expected a number, found a string of 1 bytes");
        check_error::<HashMap<String, ()>>(tree!([]), "expected a dict, found a list of 0 items");
        check_error::<usize>(tree!(-1), "the int64 -1 cannot be read as uint64 without loss");
        check_error::<Buffer>(tree!(vec![1u8]), "expected bytes, found an array uint8[1]");
    }

    #[test]
    fn scalars_of_strings_are_no_numbers() {
        let tree: Tree = Array::zeros_of(DType::Unicode(1), ()).into();
        check_error::<i64>(tree, "the array is U1, not int64");
    }
}
