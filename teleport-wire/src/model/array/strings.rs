//! Arrays of fixed-width strings: NumPy's `S` and `U`.
//!
//! Items are filled up with zeros, which are not part of the string. A code point takes 4 bytes that a peer may have
//! written, so each is checked when read.

use crate::model::{array::Array, array::error::ArrayError, dtype::DType};

impl Array {
    /// The items of an array of fixed-width strings, in C order, without the zeros that fill them up.
    ///
    /// Reads both [`DType::Unicode`], checking each code point, and [`DType::Bytes`], of which each byte must be
    /// ASCII; [`byte_strings`](Array::byte_strings) reads any bytes.
    ///
    /// # Errors
    /// [`NoStrings`](ArrayError::NoStrings) for another dtype, [`BadItem`](ArrayError::BadItem) for an item with
    /// what is no code point, or not ASCII.
    ///
    /// ```
    /// use teleport_wire::Array;
    ///
    /// let names = Array::from_strings(&["ant", "", "bee"]);
    /// assert_eq!(names.dtype().numpy(), "<U3");
    /// assert_eq!(names.strings()?, ["ant", "", "bee"]);
    /// # Ok::<(), teleport_wire::ArrayError>(())
    /// ```
    pub fn strings(&self) -> Result<Vec<String>, ArrayError> {
        let dtype = self.dtype;
        let bad = |index, bits| ArrayError::BadItem { dtype, index, bits };
        match dtype {
            DType::Unicode(_) => {
                let decode = |(index, item)| unicode(item).map_err(|bits| bad(index, bits));
                self.item_bytes().enumerate().map(decode).collect()
            }
            DType::Bytes(_) => {
                let decode = |(index, item)| ascii(item).map_err(|bits| bad(index, bits));
                self.item_bytes().enumerate().map(decode).collect()
            }
            found => Err(ArrayError::NoStrings { expected: "bytes or Unicode strings", found }),
        }
    }

    /// The items of an array of [`DType::Bytes`], in C order, in place, without the zeros that fill them up.
    ///
    /// # Errors
    /// [`NoStrings`](ArrayError::NoStrings) for another dtype.
    pub fn byte_strings(&self) -> Result<Vec<&[u8]>, ArrayError> {
        match self.dtype {
            DType::Bytes(_) => Ok(self.item_bytes().map(without_zeros).collect()),
            found => Err(ArrayError::NoStrings { expected: "bytes", found }),
        }
    }

    /// The bytes of each item, in C order; also of items that take none.
    fn item_bytes(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = self.dtype.item_bytes() as usize;
        (0..self.len()).map(move |index| &self.buffer[index * bytes..][..bytes])
    }

    /// An array of one axis of fixed-width Unicode strings, as wide as the longest of them.
    ///
    /// Zeros at the end of a string are lost, as in NumPy.
    ///
    /// # Panics
    /// If a string has more than `u32::MAX` characters.
    pub fn from_strings<S: AsRef<str>>(strings: &[S]) -> Array {
        let chars = strings.iter().map(|string| string.as_ref().chars().count()).max().unwrap_or(0);
        let Ok(width) = u32::try_from(chars) else {
            panic!("a string of {chars} characters exceeds 32 bits")
        };
        let dtype = DType::Unicode(width);
        let mut array = Array::zeros_of(dtype, strings.len());
        let bytes = array.buffer.get_mut().expect("fresh memory has one owner");
        let items = bytes.chunks_exact_mut((chars * 4).max(1));
        for (item, string) in items.zip(strings) {
            for (place, char) in item.chunks_exact_mut(4).zip(string.as_ref().chars()) {
                place.copy_from_slice(&u32::from(char).to_le_bytes());
            }
        }
        array
    }

    /// An array of one axis of fixed-width byte strings, as wide as the longest of them.
    ///
    /// Zeros at the end of a string are lost, as in NumPy.
    ///
    /// # Panics
    /// If a string has more than `u32::MAX` bytes.
    pub fn from_byte_strings<S: AsRef<[u8]>>(strings: &[S]) -> Array {
        let longest = strings.iter().map(|string| string.as_ref().len()).max().unwrap_or(0);
        let Ok(width) = u32::try_from(longest) else { panic!("a string of {longest} bytes exceeds 32 bits") };
        let mut array = Array::zeros_of(DType::Bytes(width), strings.len());
        let bytes = array.buffer.get_mut().expect("fresh memory has one owner");
        for (item, string) in bytes.chunks_exact_mut(longest.max(1)).zip(strings) {
            item[..string.as_ref().len()].copy_from_slice(string.as_ref());
        }
        array
    }
}

fn without_zeros(item: &[u8]) -> &[u8] {
    let len = item.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &item[..len]
}

/// Fails with the bits that are no code point.
fn unicode(item: &[u8]) -> Result<String, u32> {
    let (points, _) = item.as_chunks::<4>();
    let len = points.iter().rposition(|&point| point != [0; 4]).map_or(0, |last| last + 1);
    let points = points[..len].iter().map(|&point| u32::from_le_bytes(point));
    points.map(|point| char::from_u32(point).ok_or(point)).collect()
}

/// Fails with the byte that is not ASCII.
fn ascii(item: &[u8]) -> Result<String, u32> {
    let chars = without_zeros(item).iter().map(|&byte| char::from(byte));
    chars.map(|char| if char.is_ascii() { Ok(char) } else { Err(char.into()) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Buffer;

    #[test]
    fn strings_survive() {
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
