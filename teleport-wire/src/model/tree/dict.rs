//! Dicts: trees by name, in the order of insertion.

use std::fmt;
use std::sync::Arc;

use crate::model::convert::IntoTree;
use crate::model::tree::{Tree, key::Key, keys::Keys};

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
    trees: Vec<Tree>,
}

impl Dict {
    /// Creates an empty dict, without an allocation.
    pub fn new() -> Dict {
        Dict::default()
    }

    /// Creates an empty dict with room for a number of entries.
    pub fn with_capacity(entries: usize) -> Dict {
        let keys = (entries > 0).then(|| Arc::new(Keys::with_capacity(entries)));
        Dict { keys, trees: Vec::with_capacity(entries) }
    }

    /// Creates a dict of shared names, which has a tree for each.
    pub(crate) fn with_keys(keys: Option<Arc<Keys>>, trees: Vec<Tree>) -> Dict {
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
        self.names().iter().zip(&self.trees)
    }

    /// Iterates over the entries in order, with trees for writing.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&Key, &mut Tree)> + ExactSizeIterator {
        let names = self.keys.as_ref().map_or(&[][..], |keys| keys.names());
        names.iter().zip(&mut self.trees)
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
        Entries(names.into_iter().zip(self.trees))
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
