//! Names in a dict or of a method, and steps into a tree.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::model::text::impl_str;

/// A name in a [`Dict`](crate::Dict), or of a method. It is cheap to clone: a name of up to 22 bytes is
/// stored in place, and a longer one is shared.
///
/// ```
/// use teleport_wire::Key;
///
/// let key = Key::from("image"); // allocates nothing
/// assert_eq!(key.clone().as_str(), "image");
/// let key = Key::from("a name of more than 22 bytes");
/// assert_eq!(key.clone(), key); // counts an owner; copies nothing
/// assert_eq!(key, Key::from_static("a name of more than 22 bytes")); // allocates nothing
/// ```
#[derive(Clone)]
pub struct Key(Repr);

/// A short name takes no more room than the others: 24 bytes, with its length and the variant.
const MAX_SHORT_BYTES: usize = 22;

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Counted(Arc<str>),
    Short(Short),
}

/// A name that is stored in place. It is counted by no one, so copies on several threads do not contend.
#[derive(Clone, Copy, PartialEq)]
struct Short {
    /// Invariant: at most [`MAX_SHORT_BYTES`].
    length: u8,
    /// Invariant: the first `length` bytes are UTF-8, and the others are zero.
    bytes: [u8; MAX_SHORT_BYTES],
}

impl Short {
    /// Returns `None` for a name that is too long.
    #[inline]
    fn new(key: &str) -> Option<Short> {
        let mut bytes = [0; MAX_SHORT_BYTES];
        bytes.get_mut(..key.len())?.copy_from_slice(key.as_bytes());
        Some(Short { length: key.len() as u8, bytes })
    }

    #[inline]
    fn as_str(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.length)];
        // SAFETY: `new` copied these bytes from a string, and nothing changes them.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }
}

impl Key {
    /// Creates a key from a string in the program, without an allocation.
    pub const fn from_static(key: &'static str) -> Key {
        Key(Repr::Static(key))
    }

    /// Returns the key as a string slice.
    #[inline]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(key) => key,
            Repr::Counted(key) => key,
            Repr::Short(key) => key.as_str(),
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
    #[inline]
    fn eq(&self, other: &Key) -> bool {
        if let (Repr::Short(left), Repr::Short(right)) = (&self.0, &other.0) {
            return left == right;
        }
        // Equal keys are often the same memory.
        let (left, right) = (self.as_str(), other.as_str());
        left.len() == right.len() && (left.as_ptr() == right.as_ptr() || left == right)
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
    #[inline]
    fn from(key: &str) -> Key {
        Key(Short::new(key).map_or_else(|| Repr::Counted(key.into()), Repr::Short))
    }
}

impl From<String> for Key {
    fn from(key: String) -> Key {
        key.as_str().into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_form_are_the_same() {
        for length in 0..=2 * MAX_SHORT_BYTES {
            // Characters of three bytes, so that some end where a short key does.
            let text: String = "key \u{20ac}".chars().cycle().take(length).collect();
            let key = Key::from(&*text);
            let is_short = matches!(key.0, Repr::Short(_));
            assert_eq!(is_short, text.len() <= MAX_SHORT_BYTES);
            assert_eq!((key.as_str(), key.clone().as_str()), (&*text, &*text));
            assert_eq!([Key::from(Arc::from(&*text)), Key::from(text)], [key.clone(), key]);
        }
        assert_eq!(size_of::<Key>(), 24);
    }
}
