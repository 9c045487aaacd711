//! UTF-8 text over counted bytes.
//!
//! A received string stays where it was received: [`Text`] checks the bytes once and reads them in place. It never
//! gives out its buffer for writing, so what was checked stays true.

use crate::model::buffer::Buffer;
use std::fmt;
use std::ops::Deref;

/// UTF-8 text that shares its memory: cheap to clone, reads as a `str`.
///
/// ```
/// use teleport_wire::{Buffer, Text};
///
/// let text = Text::from(String::from("Grüße")); // no copy
/// assert_eq!(text.chars().count(), 5);
/// assert_eq!(Text::from_utf8(Buffer::from(vec![0x68, 0x69]))?, "hi");
/// assert!(Text::from_utf8(Buffer::from(vec![0xFF])).is_err());
/// # Ok::<(), std::str::Utf8Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// Invariant: valid UTF-8.
    utf8: Buffer,
}

impl Text {
    /// The text that `utf8` holds, without a copy. Fails at the first byte that is not UTF-8.
    pub fn from_utf8(utf8: Buffer) -> Result<Text, std::str::Utf8Error> {
        std::str::from_utf8(&utf8)?;
        Ok(Text { utf8 })
    }

    /// The text as a string slice.
    pub fn as_str(&self) -> &str {
        // SAFETY: the bytes were checked when this was made. They cannot have changed: a buffer is written only
        // through a unique borrow of its one owner, and this type never lends its buffer uniquely.
        unsafe { std::str::from_utf8_unchecked(&self.utf8) }
    }

    /// The bytes of the text.
    pub fn buffer(&self) -> &Buffer {
        &self.utf8
    }

    /// The bytes of the text, without a copy.
    pub fn into_buffer(self) -> Buffer {
        self.utf8
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

/// Without a copy.
impl From<String> for Text {
    fn from(text: String) -> Text {
        Text { utf8: text.into_bytes().into() }
    }
}

/// A copy.
impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text { utf8: text.as_bytes().into() }
    }
}

/// A copy.
impl From<Text> for String {
    fn from(text: Text) -> String {
        text.as_str().to_string()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_the_memory_it_checks() {
        let buffer = Buffer::from("Grüße".as_bytes());
        let text = Text::from_utf8(buffer.clone()).unwrap();
        assert_eq!(text.as_str().as_ptr(), buffer.as_ptr());
        assert_eq!(text, "Grüße");
        assert!(Text::from_utf8(buffer.slice(0..3)).is_err(), "cut within a character");
    }

    #[test]
    fn converts() {
        let string = String::from("moved");
        let start = string.as_ptr();
        assert_eq!(Text::from(string).as_ptr(), start);
        assert_eq!(String::from(Text::from("copied")), "copied");
        assert_eq!(Text::default(), "");
        assert_eq!(format!("{:?} {:>3}", Text::from("a\"b"), Text::from("c")), "\"a\\\"b\"   c");
    }
}
