//! UTF-8 text on counted bytes.
//!
//! A received string is not copied: [`Text`] checks its bytes once and reads them in place. It never lends
//! its buffer for writing, so the bytes stay valid.

use std::fmt;
use std::ops::Deref;

use crate::model::buffer::Buffer;

/// UTF-8 text that shares its memory. It is cheap to clone and derefs to `str`.
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
    /// Creates a text on `utf8`, without a copy.
    ///
    /// # Errors
    /// Returns an error for the first byte that is not UTF-8.
    pub fn from_utf8(utf8: Buffer) -> Result<Text, std::str::Utf8Error> {
        std::str::from_utf8(&utf8)?;
        Ok(Text { utf8 })
    }

    /// Returns the text as a string slice.
    pub fn as_str(&self) -> &str {
        // SAFETY: the bytes were checked when this was made. They cannot have changed: a buffer is written
        // only through a unique borrow of its one owner, and this type never lends its buffer uniquely.
        unsafe { std::str::from_utf8_unchecked(&self.utf8) }
    }

    /// Returns the bytes of the text.
    pub fn buffer(&self) -> &Buffer {
        &self.utf8
    }

    /// Converts the text into its bytes, without a copy.
    pub fn into_buffer(self) -> Buffer {
        self.utf8
    }
}

/// Implements the traits of a string for a type with a method `as_str`.
macro_rules! impl_str {
    ($type:ty) => {
        impl Deref for $type {
            type Target = str;

            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}
pub(crate) use impl_str;

impl_str! { Text }

/// Takes over the string's memory, without a copy.
impl From<String> for Text {
    fn from(text: String) -> Text {
        Text { utf8: text.into_bytes().into() }
    }
}

/// Copies the text.
impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text { utf8: text.as_bytes().into() }
    }
}

/// Copies the text.
impl From<Text> for String {
    fn from(text: Text) -> String {
        text.as_str().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_the_memory_it_checks() {
        let buffer = Buffer::from("Grüße, Welt".as_bytes());
        let text = Text::from_utf8(buffer.clone()).unwrap();
        assert_eq!(text.as_str().as_ptr(), buffer.as_ptr());
        assert_eq!(text, "Grüße, Welt");
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
