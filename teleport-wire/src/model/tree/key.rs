//! Names in a dict, and steps into a tree.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::model::text::impl_str;

/// A name in a [`Dict`](crate::Dict). It is cheap to clone: dicts decoded from the same signature share their
/// keys.
///
/// ```
/// use teleport_wire::Key;
///
/// let key = Key::from("image");
/// assert_eq!(key.clone().as_str(), "image"); // counts an owner; copies nothing
/// assert_eq!(key, Key::from_static("image")); // allocates nothing
/// ```
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Counted(Arc<str>),
}

impl Key {
    /// Creates a key from a string in the program, without an allocation.
    pub const fn from_static(key: &'static str) -> Key {
        Key(Repr::Static(key))
    }

    /// Returns the key as a string slice.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(key) => key,
            Repr::Counted(key) => key,
        }
    }
}

impl_str! { Key }

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Key {}

/// Compares the bytes, as in a signature.
impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Hashes as a `str` does, which `Borrow` requires.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Key {
        Key(Repr::Counted(key.into()))
    }
}

impl From<String> for Key {
    fn from(key: String) -> Key {
        Key(Repr::Counted(key.into()))
    }
}

impl From<&String> for Key {
    fn from(key: &String) -> Key {
        key.as_str().into()
    }
}

impl From<Arc<str>> for Key {
    fn from(key: Arc<str>) -> Key {
        Key(Repr::Counted(key))
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Key {
        key.clone()
    }
}

/// One step into a tree: a key of a dict, or an index of a list. Converts from strings and `usize`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// The key of a dict, without any syntax in it.
    Key(&'a str),
    /// The index of a list, from 0.
    Index(usize),
}

impl<'a, T: AsRef<str> + ?Sized> From<&'a T> for Step<'a> {
    fn from(key: &'a T) -> Step<'a> {
        Step::Key(key.as_ref())
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}
