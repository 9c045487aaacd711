//! The items of arrays of fixed-width strings: NumPy's `S` and `U`.
//!
//! Items are padded with zeros, which are not part of the string. A peer may have written any bits, so each
//! code point is checked when it is read.

use crate::model::{array::Array, buffer::Buffer};

/// Returns the width of the longest string in characters, and all strings as code points of 4 bytes.
pub(super) fn encode_unicode<S: AsRef<str>>(strings: &[S]) -> (u32, Buffer) {
    let chars = |string: &S| string.as_ref().chars().count();
    encode(strings, 4, chars, |item, string| {
        for (place, char) in item.chunks_exact_mut(4).zip(string.as_ref().chars()) {
            place.copy_from_slice(&u32::from(char).to_le_bytes());
        }
    })
}

/// Returns the width of the longest string in bytes, and the bytes of all strings.
pub(super) fn encode_bytes<S: AsRef<[u8]>>(strings: &[S]) -> (u32, Buffer) {
    let bytes = |string: &S| string.as_ref().len();
    encode(strings, 1, bytes, |item, string| item[..bytes(string)].copy_from_slice(string.as_ref()))
}

fn encode<S>(
    strings: &[S],
    char_bytes: usize,
    chars: impl Fn(&S) -> usize,
    write: impl Fn(&mut [u8], &S),
) -> (u32, Buffer) {
    let longest = strings.iter().map(chars).max().unwrap_or(0);
    let bytes = longest.checked_mul(char_bytes).and_then(|bytes| bytes.checked_mul(strings.len()));
    let (Ok(width), Some(bytes)) = (u32::try_from(longest), bytes) else {
        panic!("{} strings of up to {longest} characters are too large for an array", strings.len())
    };
    let mut buffer = Buffer::zeroed(bytes);
    let items = buffer.get_mut().expect("fresh memory has one owner");
    let items = items.chunks_exact_mut((longest * char_bytes).max(1));
    items.zip(strings).for_each(|(item, string)| write(item, string));
    (width, buffer)
}

/// Returns the bytes of each item, in C order. Items may have no bytes.
pub(super) fn items(array: &Array) -> impl Iterator<Item = &[u8]> {
    let bytes = array.dtype.item_bytes() as usize;
    (0..array.len()).map(move |index| &array.buffer[index * bytes..][..bytes])
}

pub(super) fn without_zeros(item: &[u8]) -> &[u8] {
    let len = item.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &item[..len]
}

/// Reads code points. Fails with the bits of the first that is invalid.
pub(super) fn decode_unicode(item: &[u8]) -> Result<String, u32> {
    let (points, _) = item.as_chunks::<4>();
    let len = points.iter().rposition(|&point| point != [0; 4]).map_or(0, |last| last + 1);
    let points = points[..len].iter().map(|&point| u32::from_le_bytes(point));
    points.map(|point| char::from_u32(point).ok_or(point)).collect()
}

/// Reads ASCII. Fails with the first byte that is not.
pub(super) fn decode_ascii(item: &[u8]) -> Result<String, u32> {
    let chars = without_zeros(item).iter().map(|&byte| char::from(byte));
    chars.map(|char| if char.is_ascii() { Ok(char) } else { Err(char.into()) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ArrayError, DType};

    #[test]
    fn strings_round_trip() {
        let names = ["", "Grüße", "a\0b", "日本"];
        let array = Array::from_strings(&names);
        assert_eq!((array.dtype(), array.shape()), (DType::Unicode(5), &[4][..]));
        assert_eq!(array.strings().unwrap(), names);
        let bytes = Array::from_byte_strings(&[b"ab".as_slice(), b"", b"\0\xFF"]);
        assert_eq!(bytes.dtype(), DType::Bytes(2));
        assert_eq!(bytes.byte_strings().unwrap(), [b"ab".as_slice(), b"", b"\0\xFF"]);
    }

    #[test]
    fn no_characters_at_all() {
        for array in [Array::from_strings(&["", ""]), Array::from_byte_strings(&["", ""])] {
            assert_eq!(array.bytes(), 0);
            assert_eq!(array.strings().unwrap(), ["", ""]);
        }
        assert_eq!(Array::from_strings::<&str>(&[]).strings().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn bad_items_are_named() {
        let bits = 0xD800u32; // a surrogate
        let memory = [u32::from(b'a'), bits].map(u32::to_le_bytes).concat();
        let array = Array::from_buffer(DType::Unicode(1), 2, Buffer::from(memory)).unwrap();
        assert_eq!(
            array.strings().unwrap_err(),
            ArrayError::BadItem { dtype: DType::Unicode(1), index: 1, bits }
        );
        let array = Array::from_byte_strings(&[b"\x80"]);
        let error = ArrayError::BadItem { dtype: DType::Bytes(1), index: 0, bits: 0x80 };
        assert_eq!(array.strings().unwrap_err(), error);
        assert!(matches!(Array::scalar(1u8).strings(), Err(ArrayError::NoStrings { .. })));
        assert!(matches!(array.reshape(()).unwrap().byte_strings().as_deref(), Ok([b"\x80"])));
    }
}
