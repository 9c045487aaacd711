//! Trees: the arguments and results of calls.
//!
//! Leaves share their memory, so cloning a tree copies no array. Functions recurse as deep as the tree. The
//! decoder bounds the depth of what a peer sends.

pub(crate) mod dict;
mod display;
pub(crate) mod error;
#[allow(unsafe_code, reason = "UTF-8 is not checked again in the copy of a string")]
pub(crate) mod key;
pub(crate) mod keys;
pub(crate) mod ops;

use crate::model::convert::FromTree;
use crate::model::tree::error::{TreeError, TreePath};
use crate::model::tree::key::Step;
use crate::model::{array::Array, buffer::Buffer, text::Text};

pub(crate) use crate::model::tree::dict::Dict;

/// Null, an array, a string, bytes, or a list or dict of trees.
///
/// ```
/// use teleport_wire::{tree, Array, Tree};
///
/// let mut tree = tree!({"image": Array::zeros::<u8>([64, 64]), "names": ["ant", "bee"], "step": 3});
/// assert_eq!(tree.field::<usize>("step")?, 3);
/// assert_eq!(tree.at("names")?.field::<String>(1)?, "bee");
/// let image: Array = tree.take("image")?; // the array has one owner now
/// let error = tree.field::<i64>("stop").unwrap_err();
/// assert_eq!(error.to_string(), r#"there is no "stop"; the dict has "names", "step""#);
/// # Ok::<(), teleport_wire::TreeError>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub enum Tree {
    /// Nothing: Python's `None`, Rust's `()` and `Option::None`.
    #[default]
    Null,
    /// An array. A number is an array of rank 0.
    Array(Array),
    /// UTF-8 text.
    String(Text),
    /// Bytes without a type. A `Vec<u8>` is an array of `u8` instead.
    Bytes(Buffer),
    /// Trees in order.
    List(Vec<Tree>),
    /// Trees by name, in the order of insertion.
    Dict(Dict),
}

impl Tree {
    /// Returns true for [`Tree::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Tree::Null)
    }

    /// Returns the array, if this is one.
    pub fn as_array(&self) -> Option<&Array> {
        if let Tree::Array(array) = self { Some(array) } else { None }
    }

    /// Returns the string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Tree::String(text) = self { Some(text) } else { None }
    }

    /// Returns the bytes, if this is [`Tree::Bytes`].
    pub fn as_bytes(&self) -> Option<&Buffer> {
        if let Tree::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// Returns the list, if this is one.
    pub fn as_list(&self) -> Option<&[Tree]> {
        if let Tree::List(list) = self { Some(list) } else { None }
    }

    /// Returns the dict, if this is one.
    pub fn as_dict(&self) -> Option<&Dict> {
        if let Tree::Dict(dict) = self { Some(dict) } else { None }
    }

    /// Returns the subtree at a key of a dict or an index of a list, if there is one.
    pub fn get<'a>(&self, step: impl Into<Step<'a>>) -> Option<&Tree> {
        match (self, step.into()) {
            (Tree::Dict(dict), Step::Key(key)) => dict.get(key),
            (Tree::List(list), Step::Index(index)) => list.get(index),
            _ => None,
        }
    }

    /// Returns the subtree at a key of a dict or an index of a list for writing, if there is one.
    pub fn get_mut<'a>(&mut self, step: impl Into<Step<'a>>) -> Option<&mut Tree> {
        match (self, step.into()) {
            (Tree::Dict(dict), Step::Key(key)) => dict.get_mut(key),
            (Tree::List(list), Step::Index(index)) => list.get_mut(index),
            _ => None,
        }
    }

    /// Returns the subtree at a key of a dict or an index of a list.
    ///
    /// A dot in a key has no meaning. Deeper subtrees are reached step by step.
    ///
    /// # Errors
    /// Returns [`TreeError::Missing`] or [`TreeError::NoIndex`] if there is none, and [`TreeError::Kind`] if
    /// this is not a dict, or not a list.
    pub fn at<'a>(&self, step: impl Into<Step<'a>>) -> Result<&Tree, TreeError> {
        let step = step.into();
        self.get(step).ok_or_else(|| no_step(self, step))
    }

    /// Converts the subtree at a key of a dict or an index of a list. Arrays share their memory with the
    /// tree.
    ///
    /// # Errors
    /// Returns the errors of [`at`](Tree::at) and of the conversion.
    pub fn field<'a, T: FromTree>(&self, step: impl Into<Step<'a>>) -> Result<T, TreeError> {
        let step = step.into();
        T::from_tree(self.at(step)?.clone()).map_err(|error| error.within(step))
    }

    /// Moves the subtree at a key of a dict or an index of a list out of the tree, and converts it.
    ///
    /// If the tree was the only owner of an array, the result can write it in place. A dict loses the key. A
    /// list gets a null in its place, so that the other items keep their index.
    ///
    /// # Errors
    /// Returns the same errors as [`field`](Tree::field). A subtree that cannot be converted is lost.
    pub fn take<'a, T: FromTree>(&mut self, step: impl Into<Step<'a>>) -> Result<T, TreeError> {
        let step = step.into();
        let taken = match (&mut *self, step) {
            (Tree::Dict(dict), Step::Key(key)) => dict.remove(key),
            (Tree::List(list), Step::Index(index)) => list.get_mut(index).map(std::mem::take),
            _ => None,
        };
        let taken = taken.ok_or_else(|| no_step(self, step))?;
        T::from_tree(taken).map_err(|error| error.within(step))
    }

    /// Iterates over the arrays, strings and bytes, depth first, in the order of lists and dicts.
    pub fn leaves(&self) -> impl Iterator<Item = &Tree> {
        let mut rest = vec![self];
        std::iter::from_fn(move || {
            loop {
                match rest.pop()? {
                    Tree::Null => {}
                    Tree::List(list) => rest.extend(list.iter().rev()),
                    Tree::Dict(dict) => rest.extend(dict.iter().rev().map(|(_, tree)| tree)),
                    leaf => return Some(leaf),
                }
            }
        })
    }

    /// Returns the total size of arrays, strings and bytes. Memory that they share counts each time.
    pub fn payload_bytes(&self) -> u64 {
        let bytes = |leaf: &Tree| match leaf {
            Tree::Array(array) => array.bytes() as u64,
            Tree::String(text) => text.len() as u64,
            Tree::Bytes(bytes) => bytes.len() as u64,
            Tree::Null | Tree::List(_) | Tree::Dict(_) => 0,
        };
        self.leaves().map(bytes).fold(0, u64::saturating_add)
    }

    /// Describes the tree within a sentence: `an array uint8[64, 64, 3]`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Tree::Null => "null".to_string(),
            Tree::Array(array) => format!("an array {}{:?}", array.dtype(), array.shape()),
            Tree::String(text) => format!("a string of {} bytes", text.len()),
            Tree::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Tree::List(list) => format!("a list of {} items", list.len()),
            Tree::Dict(dict) => format!("a dict of {} entries", dict.len()),
        }
    }
}

impl TreeError {
    /// Returns the error for a tree of another kind, for implementations of [`FromTree`].
    ///
    /// `expected` completes a sentence: `"a dict"`.
    pub fn kind(expected: &'static str, found: &Tree) -> TreeError {
        TreeError::Kind { path: TreePath::ROOT, expected, found: found.describe() }
    }
}

/// Returns the error for a tree that has no subtree at `step`.
fn no_step(tree: &Tree, step: Step<'_>) -> TreeError {
    match (tree, step) {
        (Tree::Dict(dict), Step::Key(key)) => TreeError::missing(key, dict.keys()),
        (Tree::List(list), Step::Index(index)) => {
            TreeError::NoIndex { path: TreePath::ROOT, index, len: list.len() }
        }
        (_, Step::Key(_)) => TreeError::kind("a dict", tree),
        (_, Step::Index(_)) => TreeError::kind("a list", tree),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    fn check_error<'a, T: FromTree + std::fmt::Debug>(tree: &Tree, step: impl Into<Step<'a>>, text: &str) {
        assert_eq!(tree.field::<T>(step).unwrap_err().to_string(), text);
    }

    #[test]
    fn errors_have_path_expected_and_found() {
        let tree = tree!({"obs": {"a.b": [1, "x"], "image": Array::zeros::<u8>([2])}, "next": null});
        check_error::<i64>(&tree, 3, "expected a list, found a dict of 2 entries");
        check_error::<i64>(&tree, "obs", "at obs: expected a number, found a dict of 2 entries");
        let error = tree.field::<std::collections::BTreeMap<String, Vec<i64>>>("obs").unwrap_err();
        assert_eq!(error.to_string(), r#"at obs["a.b"][1]: expected a number, found a string of 1 bytes"#);
        let obs = tree.at("obs").unwrap();
        check_error::<Vec<f32>>(obs, "image", "at image: the array is uint8, not float32");
        check_error::<i64>(obs.at("a.b").unwrap(), 2, "there is no index 2; the list has 2 items");
        check_error::<i64>(&tree, "next", "at next: expected a number, found null");
        check_error::<i64>(&tree!({}), "x", r#"there is no "x"; the dict has no keys"#);
        let many: Dict = (0..12).map(|index| (format!("{index}"), ())).collect();
        let text =
            r#"there is no "x"; the dict has "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" and 2 more"#;
        check_error::<i64>(&many.into(), "x", text);
    }

    #[test]
    fn taken_arrays_have_one_owner() {
        let mut tree = tree!({"a": Array::zeros::<u8>([4]), "list": [Array::zeros::<u8>([4]), 1]});
        let mut array: Array = tree.take("a").unwrap();
        let start = array.as_bytes().as_ptr();
        array.as_mut_slice::<u8>().unwrap()[0] = 1;
        assert_eq!(array.as_bytes().as_ptr(), start);
        let array: Array = tree.get_mut("list").unwrap().take(0).unwrap();
        assert!(array.buffer().is_unique());
        assert_eq!(tree, tree!({"list": [null, 1]}));
        assert!(matches!(tree.take::<Array>("a"), Err(TreeError::Missing { .. })));
    }

    #[test]
    fn fields_share() {
        let tree = tree!({"a": vec![1u8, 2]});
        let array: Array = tree.field("a").unwrap();
        assert_eq!(array.as_bytes().as_ptr(), tree.get("a").unwrap().as_array().unwrap().as_bytes().as_ptr());
    }

    #[test]
    fn dicts_compare_without_order_and_keep_it() {
        let (left, right) = (tree!({"a": 1, "b": 2}), tree!({"b": 2, "a": 1}));
        assert_eq!(left, right);
        assert_ne!(left.to_string(), right.to_string());
        assert_ne!(left, tree!({"a": 1}));
    }

    #[test]
    fn leaves_come_in_order() {
        let tree = tree!({"b": [1, null, {"c": "x"}], "a": Buffer::from(vec![7, 7])});
        let leaves: Vec<_> = tree.leaves().map(Tree::to_string).collect();
        assert_eq!(leaves, ["1", "\"x\"", "b\"\\x07\\x07\""]);
        assert_eq!(tree.payload_bytes(), 8 + 1 + 2);
    }
}
