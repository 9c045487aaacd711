//! The one place that slices bytes from a peer.
//!
//! A [`Reader`] moves forward over a borrowed slice, checks each length against the remaining bytes, and
//! refuses bytes after the last field. It never allocates and never panics.

use crate::format::decode_error::DecodeError;

/// A cursor over bytes from a peer. Errors contain the names of fields.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next `count` bytes.
    pub(crate) fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.truncated(count as u64, field)),
        }
    }

    /// Copies the next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.truncated(N as u64, field)),
        }
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Takes `count` reserved bytes, which must be zero.
    pub(crate) fn zeros(&mut self, count: usize, field: &'static str) -> Result<(), DecodeError> {
        match self.take(count, field)?.iter().find(|byte| **byte != 0) {
            Some(byte) => Err(DecodeError::NotZero { field, value: u64::from(*byte) }),
            None => Ok(()),
        }
    }

    /// Takes the next `count` bytes as text.
    pub(crate) fn utf8(&mut self, count: usize, field: &'static str) -> Result<&'a str, DecodeError> {
        utf8(self.take(count, field)?, field)
    }

    /// Refuses remaining bytes.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { what, bytes: bytes as u64 }),
        }
    }

    fn truncated(&self, bytes: u64, field: &'static str) -> DecodeError {
        DecodeError::Truncated { field, bytes, remaining: self.rest.len() as u64 }
    }
}

/// Returns `bytes` as text, or an error with the place of the first byte that is not UTF-8.
pub(crate) fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|error| DecodeError::NotUtf8 { field, at: error.valid_up_to() as u64 })
}

/// Returns `value`, or an error with its limit.
pub(crate) fn at_most(value: u64, max: u64, what: &'static str) -> Result<u64, DecodeError> {
    if value <= max { Ok(value) } else { Err(DecodeError::TooLarge { what, value, max }) }
}

/// Returns the longest prefix of `text` that has at most `max_bytes` bytes and ends between characters.
pub(crate) fn truncate(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_remaining_bytes_are_refused() {
        let mut reader = Reader::new(&[1, 2, 0, 3, 0, 0, 0, 0, 0]);
        assert_eq!(reader.u8("a"), Ok(1));
        assert_eq!(reader.u16("b"), Ok(2));
        assert_eq!(reader.u32("c"), Ok(3));
        assert_eq!(reader.u64("d"), Err(DecodeError::Truncated { field: "d", bytes: 8, remaining: 2 }));
        assert_eq!(reader.zeros(1, "e"), Ok(()));
        assert_eq!(reader.finish("test"), Err(DecodeError::Trailing { what: "test", bytes: 1 }));
    }

    #[test]
    fn truncates_between_characters() {
        assert_eq!(truncate("aé", 3), "aé");
        assert_eq!(truncate("aé", 2), "a");
        assert_eq!(truncate("é", 0), "");
    }
}
