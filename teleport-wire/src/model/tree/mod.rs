//! Trees: what a call takes and gives.
//!
//! A [`Tree`] is built by [`tree!`](crate::tree!) or [`IntoTree`](crate::IntoTree), taken apart by `field` and
//! `take`, and worked on as a whole by the operations in `ops`. Leaves share their memory: cloning a tree copies
//! no array. Functions here recurse as deep as the tree, which the decoder bounds for what a peer sends.

pub(crate) mod dict;
mod display;
pub(crate) mod error;
pub(crate) mod key;
pub(crate) mod ops;

use crate::model::tree::error::TreeError;
use crate::model::tree::key::Step;
use crate::model::{array::Array, buffer::Buffer, convert::FromTree, text::Text, tree::dict::Dict};

/// Nothing, an array, a string, bytes, or a list or dict of trees.
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
    /// An array; a number is an array of rank 0.
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
    /// Whether this is [`Tree::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Tree::Null)
    }

    /// The array, if this is one.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Tree::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Tree::String(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes, if this is [`Tree::Bytes`].
    pub fn as_bytes(&self) -> Option<&Buffer> {
        match self {
            Tree::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The list, if this is one.
    pub fn as_list(&self) -> Option<&[Tree]> {
        match self {
            Tree::List(list) => Some(list),
            _ => None,
        }
    }

    /// The dict, if this is one.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Tree::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// The subtree at a key of a dict or an index of a list, if there is one.
    pub fn get<'a>(&self, step: impl Into<Step<'a>>) -> Option<&Tree> {
        match (self, step.into()) {
            (Tree::Dict(dict), Step::Key(key)) => dict.get(key),
            (Tree::List(list), Step::Index(index)) => list.get(index),
            _ => None,
        }
    }

    /// The subtree at a key of a dict or an index of a list, for changing it.
    pub fn get_mut<'a>(&mut self, step: impl Into<Step<'a>>) -> Option<&mut Tree> {
        match (self, step.into()) {
            (Tree::Dict(dict), Step::Key(key)) => dict.get_mut(key),
            (Tree::List(list), Step::Index(index)) => list.get_mut(index),
            _ => None,
        }
    }

    /// The subtree at a key of a dict or an index of a list.
    ///
    /// A key is taken as it is: a dot in it has no meaning. Deeper subtrees are reached step by step.
    ///
    /// # Errors
    /// [`TreeError::Missing`] if there is none, [`TreeError::Kind`] if this is not a dict, or not a list.
    pub fn at<'a>(&self, step: impl Into<Step<'a>>) -> Result<&Tree, TreeError> {
        let step = step.into();
        self.get(step).ok_or_else(|| TreeError::no_step(self, step))
    }

    /// The value at a key of a dict or an index of a list, converted. Arrays share their memory with the tree.
    ///
    /// # Errors
    /// As [`at`](Tree::at), and those of the conversion, with the path to what does not fit.
    pub fn field<'a, T: FromTree>(&self, step: impl Into<Step<'a>>) -> Result<T, TreeError> {
        let step = step.into();
        T::from_tree(self.at(step)?.clone()).map_err(|error| error.within(step))
    }

    /// Moves the value at a key of a dict or an index of a list out of the tree, and converts it.
    ///
    /// An array so taken has one owner if the tree was its only one, and can be written in place. A dict loses the
    /// key; in a list a null is left, so that the others keep their index.
    ///
    /// # Errors
    /// As [`field`](Tree::field). A value that does not convert is lost.
    pub fn take<'a, T: FromTree>(&mut self, step: impl Into<Step<'a>>) -> Result<T, TreeError> {
        let step = step.into();
        let taken = match (&mut *self, step) {
            (Tree::Dict(dict), Step::Key(key)) => dict.remove(key),
            (Tree::List(list), Step::Index(index)) => list.get_mut(index).map(std::mem::take),
            _ => None,
        };
        let taken = taken.ok_or_else(|| TreeError::no_step(self, step))?;
        T::from_tree(taken).map_err(|error| error.within(step))
    }

    /// The arrays, strings and bytes in it, depth first, in the order of lists and dicts.
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

    /// How many bytes its arrays, strings and bytes take together, memory that they share counted each time.
    pub fn payload_bytes(&self) -> u64 {
        self.leaves().map(Tree::leaf_bytes).fold(0, u64::saturating_add)
    }

    fn leaf_bytes(&self) -> u64 {
        match self {
            Tree::Array(array) => array.bytes() as u64,
            Tree::String(text) => text.len() as u64,
            Tree::Bytes(bytes) => bytes.len() as u64,
            Tree::Null | Tree::List(_) | Tree::Dict(_) => 0,
        }
    }
}

impl From<Array> for Tree {
    fn from(array: Array) -> Tree {
        Tree::Array(array)
    }
}

impl From<Text> for Tree {
    fn from(text: Text) -> Tree {
        Tree::String(text)
    }
}

impl From<Buffer> for Tree {
    fn from(bytes: Buffer) -> Tree {
        Tree::Bytes(bytes)
    }
}

impl From<Vec<Tree>> for Tree {
    fn from(list: Vec<Tree>) -> Tree {
        Tree::List(list)
    }
}

impl From<Dict> for Tree {
    fn from(dict: Dict) -> Tree {
        Tree::Dict(dict)
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
