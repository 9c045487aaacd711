//! Trees by name.
//!
//! [`Dict`] keeps the order in which its caller inserted, which travels beside the sorted signature. Its map is
//! private, so that no foreign type is part of the interface.

use crate::model::{quick_hash::QuickHash, tree::Tree, tree::key::Key};
use indexmap::IndexMap;
use indexmap::map::Entry;

/// Trees by name, in the order of insertion.
///
/// Two dicts are equal if they have equal trees under the same names, in whatever order.
///
/// ```
/// use teleport_wire::{Dict, Tree, tree};
///
/// let mut dict = Dict::new();
/// dict.insert("b", tree!(1));
/// dict.insert("a", "text");
/// assert_eq!(Tree::from(dict).to_string(), r#"{"b": 1, "a": "text"}"#);
/// ```
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Dict(IndexMap<Key, Tree, QuickHash>);

impl Dict {
    /// A dict without entries; allocates nothing.
    pub fn new() -> Dict {
        Dict::default()
    }

    /// A dict with memory for some entries.
    pub fn with_capacity(entries: usize) -> Dict {
        Dict(IndexMap::with_capacity_and_hasher(entries, QuickHash::default()))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a tree under a name, and gives back the one that was there. A new name comes last, an old one keeps its
    /// place.
    pub fn insert(&mut self, key: impl Into<Key>, tree: impl crate::IntoTree) -> Option<Tree> {
        self.0.insert(key.into(), tree.into_tree())
    }

    /// Puts a tree under a name that is not there yet; otherwise changes nothing and gives `false`.
    pub fn insert_new(&mut self, key: impl Into<Key>, tree: impl crate::IntoTree) -> bool {
        match self.0.entry(key.into()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(tree.into_tree());
                true
            }
        }
    }

    /// Whether there is an entry of this name.
    pub fn contains_key(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The tree of this name.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.0.get(key)
    }

    /// The tree of this name, for changing it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.0.get_mut(key)
    }

    /// The entry at a place in the order.
    pub fn get_index(&self, index: usize) -> Option<(&Key, &Tree)> {
        self.0.get_index(index)
    }

    /// Takes out the tree of this name. The others keep their order, which takes time linear in their number.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        self.0.shift_remove(key)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Key, &Tree)> + ExactSizeIterator {
        self.0.iter()
    }

    /// The entries in order, with trees for changing.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&Key, &mut Tree)> + ExactSizeIterator {
        self.0.iter_mut()
    }

    /// The names in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Key> + ExactSizeIterator {
        self.0.keys()
    }
}

impl<K: Into<Key>, T: crate::IntoTree> FromIterator<(K, T)> for Dict {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(entries: I) -> Dict {
        Dict(entries.into_iter().map(|(key, tree)| (key.into(), tree.into_tree())).collect())
    }
}

impl<K: Into<Key>, T: crate::IntoTree> Extend<(K, T)> for Dict {
    fn extend<I: IntoIterator<Item = (K, T)>>(&mut self, entries: I) {
        self.0.extend(entries.into_iter().map(|(key, tree)| (key.into(), tree.into_tree())));
    }
}

impl IntoIterator for Dict {
    type Item = (Key, Tree);
    type IntoIter = Entries;

    fn into_iter(self) -> Entries {
        Entries(self.0.into_iter())
    }
}

/// The entries of a [`Dict`] in order; made by its `into_iter`.
#[derive(Debug)]
pub struct Entries(indexmap::map::IntoIter<Key, Tree>);

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
