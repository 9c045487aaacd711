//! Trees: the arguments and results of calls.
//!
//! Leaves share their memory, so cloning a tree copies no array. Functions recurse as deep as the tree. The
//! decoder bounds the depth of what a peer sends.

mod display;
pub(crate) mod error;
#[allow(unsafe_code, reason = "UTF-8 is not checked again in the copy of a string")]
pub(crate) mod key;
pub(crate) mod keys;
pub(crate) mod ops;

use std::fmt;
use std::sync::Arc;

use crate::model::buffer::list::{HasDrop, List};
use crate::model::convert::{FromTree, IntoTree};
use crate::model::tree::error::{TreeError, TreePath};
use crate::model::tree::key::{Key, Step};
use crate::model::tree::keys::Keys;
use crate::model::{array::Array, buffer::Buffer, text::Text};

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

impl HasDrop for Tree {
    /// Returns false for nulls and numbers, which have no memory.
    #[inline]
    fn has_drop(&self) -> bool {
        match self {
            Tree::Null => false,
            Tree::Array(array) => array.has_drop(),
            Tree::String(text) => !text.buffer().is_inline(),
            Tree::Bytes(bytes) => !bytes.is_inline(),
            Tree::List(_) | Tree::Dict(_) => true,
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

/// Trees by name, in the order of insertion.
///
/// Two dicts are equal if they have equal trees under the same names, in any order.
///
/// ```
/// use teleport_wire::{Dict, Tree, tree};
///
/// let mut dict = Dict::new();
/// dict.insert("b", tree!(1));
/// dict.insert("a", "text");
/// assert_eq!(Tree::from(dict).to_string(), r#"{"b": 1, "a": "text"}"#);
/// ```
#[derive(Clone, Default)]
pub struct Dict {
    /// The names, which clones share, and all dicts that were received with the same signature. `None` only
    /// if there are none.
    keys: Option<Arc<Keys>>,
    /// Invariant: one for each name.
    trees: List<Tree>,
}

impl Dict {
    /// Creates an empty dict, without an allocation.
    pub fn new() -> Dict {
        Dict::default()
    }

    /// Creates an empty dict with room for a number of entries.
    pub fn with_capacity(entries: usize) -> Dict {
        let keys = (entries > 0).then(|| Arc::new(Keys::with_capacity(entries)));
        Dict { keys, trees: List::with_capacity(entries) }
    }

    /// Creates a dict of shared names, which has a tree for each.
    pub(crate) fn with_keys(keys: Option<Arc<Keys>>, trees: List<Tree>) -> Dict {
        assert_eq!(keys.as_ref().map_or(0, |keys| keys.names().len()), trees.len(), "a tree for each name");
        Dict { keys, trees }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.trees.len()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// Inserts a tree, and returns the one that it replaces. A new name comes last; an old one keeps its
    /// position.
    pub fn insert(&mut self, key: impl Into<Key>, tree: impl IntoTree) -> Option<Tree> {
        let (key, tree) = (key.into(), tree.into_tree());
        match self.position(&key) {
            Some(index) => Some(std::mem::replace(&mut self.trees[index], tree)),
            None => {
                self.push(key, tree);
                None
            }
        }
    }

    /// Inserts a tree if its name is new. Otherwise changes nothing and returns false.
    pub fn insert_new(&mut self, key: impl Into<Key>, tree: impl IntoTree) -> bool {
        let key = key.into();
        let is_new = self.position(&key).is_none();
        if is_new {
            self.push(key, tree.into_tree());
        }
        is_new
    }

    fn push(&mut self, key: Key, tree: Tree) {
        Arc::make_mut(self.keys.get_or_insert_default()).push(key);
        self.trees.push(tree);
    }

    fn position(&self, key: &str) -> Option<usize> {
        self.keys.as_ref()?.position(key)
    }

    /// Returns true if there is an entry of this name.
    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_some()
    }

    /// Returns the tree of this name.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.position(key).map(|index| &self.trees[index])
    }

    /// Returns the tree of this name for writing.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.position(key).map(|index| &mut self.trees[index])
    }

    /// Returns the entry at a position in the order.
    pub fn get_index(&self, index: usize) -> Option<(&Key, &Tree)> {
        Some((self.names().get(index)?, self.trees.get(index)?))
    }

    /// Removes the tree of this name. The others keep their order, which takes time linear in their number.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        let index = self.position(key)?;
        Arc::make_mut(self.keys.as_mut()?).remove(index);
        Some(self.trees.remove(index))
    }

    /// Iterates over the entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Key, &Tree)> + ExactSizeIterator {
        self.names().iter().zip(&*self.trees)
    }

    /// Iterates over the entries in order, with trees for writing.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&Key, &mut Tree)> + ExactSizeIterator {
        let names = self.keys.as_ref().map_or(&[][..], |keys| keys.names());
        names.iter().zip(&mut *self.trees)
    }

    /// Iterates over the names in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Key> + ExactSizeIterator {
        self.names().iter()
    }

    fn names(&self) -> &[Key] {
        self.keys.as_ref().map_or(&[], |keys| keys.names())
    }

    /// Returns the names as they are shared.
    pub(crate) fn shared_keys(&self) -> Option<&Arc<Keys>> {
        self.keys.as_ref()
    }

    /// Returns the trees in order.
    pub(crate) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// Returns true if the dict has these names in this order.
    pub(crate) fn has_keys(&self, keys: Option<&Arc<Keys>>) -> bool {
        match (&self.keys, keys) {
            (Some(left), Some(right)) => Arc::ptr_eq(left, right) || left.names() == right.names(),
            // A dict that lost its entries has a list of no names.
            (left, right) => left.as_ref().or(right).is_none_or(|keys| keys.names().is_empty()),
        }
    }
}

/// Compares without order.
impl PartialEq for Dict {
    fn eq(&self, other: &Dict) -> bool {
        if self.has_keys(other.keys.as_ref()) {
            return self.trees == other.trees;
        }
        self.len() == other.len() && self.iter().all(|(key, tree)| other.get(key) == Some(tree))
    }
}

impl fmt::Debug for Dict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<Key>, T: IntoTree> FromIterator<(K, T)> for Dict {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(entries: I) -> Dict {
        let mut dict = Dict::new();
        dict.extend(entries);
        dict
    }
}

impl<K: Into<Key>, T: IntoTree> Extend<(K, T)> for Dict {
    fn extend<I: IntoIterator<Item = (K, T)>>(&mut self, entries: I) {
        for (key, tree) in entries {
            self.insert(key, tree);
        }
    }
}

impl IntoIterator for Dict {
    type Item = (Key, Tree);
    type IntoIter = Entries;

    fn into_iter(self) -> Entries {
        let names = match self.keys.map(Arc::try_unwrap) {
            None => Vec::new(),
            Some(Ok(keys)) => keys.into_names(),
            Some(Err(keys)) => keys.names().to_vec(),
        };
        Entries(names.into_iter().zip(self.trees.into_vec()))
    }
}

/// An iterator over the entries of a [`Dict`], in order.
#[derive(Debug)]
pub struct Entries(std::iter::Zip<std::vec::IntoIter<Key>, std::vec::IntoIter<Tree>>);

impl Iterator for Entries {
    type Item = (Key, Tree);

    fn next(&mut self) -> Option<(Key, Tree)> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Entries {}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<(Key, Tree)> {
        self.0.next_back()
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
