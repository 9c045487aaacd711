//! Reading and writing the items of an array.
//!
//! Slices cast the memory in place, after a check of dtype and alignment. A single item may be read as a
//! wider type. `bool` is the one element type with invalid bits. They are checked, since a peer may have
//! written them.

use bytemuck::checked::CheckedCastError;

use crate::model::array::{Array, error::ArrayError, strings};
use crate::model::dtype::DType;
use crate::model::element::{Element, Value};

impl Array {
    /// Returns the items in C order, in place.
    ///
    /// # Errors
    /// Returns [`DType`](ArrayError::DType) if the items have another type,
    /// [`Unaligned`](ArrayError::Unaligned) if the memory is not aligned for them, and
    /// [`BadItem`](ArrayError::BadItem) if a `bool` is neither 0 nor 1.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], ArrayError> {
        check_dtype::<T>(self.dtype)?;
        if self.is_empty() {
            return Ok(&[]);
        }
        T::cast(&self.buffer).map_err(|error| match error {
            CheckedCastError::PodCastError(_) => ArrayError::Unaligned { dtype: T::DTYPE },
            CheckedCastError::InvalidBitPattern => bad_bool(&self.buffer),
        })
    }

    /// Returns the items in C order, for writing. Copies the memory first if it is shared, read-only or not
    /// aligned.
    ///
    /// # Errors
    /// Returns [`DType`](ArrayError::DType) if the items have another type, and
    /// [`BadItem`](ArrayError::BadItem) if a `bool` is neither 0 nor 1.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], ArrayError> {
        check_dtype::<T>(self.dtype)?;
        if self.is_empty() {
            return Ok(&mut []);
        }
        match self.as_slice::<T>() {
            Err(ArrayError::Unaligned { .. }) => *self = self.detach(),
            checked => drop(checked?),
        }
        let dtype = self.dtype;
        T::cast_mut(self.buffer.make_mut()).map_err(|_| ArrayError::Unaligned { dtype })
    }

    /// Copies the items into a vector, in C order.
    ///
    /// # Errors
    /// Returns the same errors as [`as_slice`](Array::as_slice), except that the memory need not be aligned.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, ArrayError> {
        match self.as_slice::<T>() {
            Err(ArrayError::Unaligned { .. }) => self.detach().as_slice().map(<[T]>::to_vec),
            items => items.map(<[T]>::to_vec),
        }
    }

    /// Returns the one item of a scalar.
    ///
    /// - An integer is read as any integer type that it fits, and as a float where that is exact.
    /// - A float is read as any float type at least as wide. An `f64` in the range of `f32` is also read as
    ///   `f32`, rounded.
    /// - Both are read as complex numbers too. A `bool` is read as `bool` only.
    ///
    /// # Errors
    /// Returns [`Rank`](ArrayError::Rank) if this is no scalar, [`OutOfRange`](ArrayError::OutOfRange) if the
    /// value does not fit, [`DType`](ArrayError::DType) if its type never does, and
    /// [`BadItem`](ArrayError::BadItem) for a `bool` that is neither 0 nor 1.
    ///
    /// ```
    /// use teleport_wire::Array;
    ///
    /// assert_eq!(Array::scalar(7i64).item::<u8>()?, 7);
    /// assert_eq!(Array::scalar(0.5f32).item::<f64>()?, 0.5);
    /// assert!(Array::scalar(300i64).item::<u8>().is_err());
    /// # Ok::<(), teleport_wire::ArrayError>(())
    /// ```
    pub fn item<T: Element>(&self) -> Result<T, ArrayError> {
        check_rank(self, 0)?;
        let (dtype, bytes) = (self.dtype, self.as_bytes());
        let Some(value) = Value::read(dtype, bytes) else {
            return Err(match dtype {
                DType::Bool => bad_bool(bytes),
                _ => ArrayError::DType { expected: T::DTYPE, found: dtype },
            });
        };
        T::from_value(value).ok_or_else(|| misfit(value, dtype, T::DTYPE))
    }

    /// Copies strings into an array of one axis of fixed-width Unicode strings, as wide as the longest of
    /// them.
    ///
    /// Zeros at the end of a string are lost, as in NumPy.
    ///
    /// # Panics
    /// Panics if a string has more than `u32::MAX` characters.
    pub fn from_strings<S: AsRef<str>>(strings: &[S]) -> Array {
        let (width, buffer) = strings::encode_unicode(strings);
        Array { dtype: DType::Unicode(width), shape: strings.len().into(), buffer }
    }

    /// Copies strings into an array of one axis of fixed-width byte strings, as wide as the longest of them.
    ///
    /// Zeros at the end of a string are lost, as in NumPy.
    ///
    /// # Panics
    /// Panics if a string has more than `u32::MAX` bytes.
    pub fn from_byte_strings<S: AsRef<[u8]>>(strings: &[S]) -> Array {
        let (width, buffer) = strings::encode_bytes(strings);
        Array { dtype: DType::Bytes(width), shape: strings.len().into(), buffer }
    }

    /// Returns the items of an array of fixed-width strings, in C order, without the zeros that pad them.
    ///
    /// Reads [`DType::Unicode`], and [`DType::Bytes`] if all bytes are ASCII.
    /// [`byte_strings`](Array::byte_strings) reads any bytes.
    ///
    /// # Errors
    /// Returns [`NoStrings`](ArrayError::NoStrings) for another dtype, and [`BadItem`](ArrayError::BadItem)
    /// for an invalid code point or a byte that is not ASCII.
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
        let decode = match dtype {
            DType::Unicode(_) => strings::decode_unicode,
            DType::Bytes(_) => strings::decode_ascii,
            found => return Err(ArrayError::NoStrings { expected: "bytes or Unicode strings", found }),
        };
        let bad_item = |index, bits| ArrayError::BadItem { dtype, index, bits };
        let items = strings::items(self).enumerate();
        items.map(|(index, item)| decode(item).map_err(|bits| bad_item(index, bits))).collect()
    }

    /// Returns the items of an array of [`DType::Bytes`], in C order, in place, without the zeros that pad
    /// them.
    ///
    /// # Errors
    /// Returns [`NoStrings`](ArrayError::NoStrings) for another dtype.
    pub fn byte_strings(&self) -> Result<Vec<&[u8]>, ArrayError> {
        match self.dtype {
            DType::Bytes(_) => Ok(strings::items(self).map(strings::without_zeros).collect()),
            found => Err(ArrayError::NoStrings { expected: "bytes", found }),
        }
    }

    /// Returns a view of the items for `ndarray`, without a copy.
    ///
    /// # Errors
    /// Returns the same errors as [`as_slice`](Array::as_slice).
    ///
    /// ```
    /// use teleport_wire::Array;
    ///
    /// let array = Array::from(ndarray::array![[1.0f32, 2.0], [3.0, 4.0]]); // no copy
    /// assert_eq!(array.view::<f32>()?.sum(), 10.0);
    /// # Ok::<(), teleport_wire::ArrayError>(())
    /// ```
    #[cfg(feature = "ndarray")]
    pub fn view<T: Element>(&self) -> Result<ndarray::ArrayViewD<'_, T>, ArrayError> {
        let view = ndarray::ArrayViewD::from_shape(ndarray::IxDyn(self.shape()), self.as_slice::<T>()?);
        Ok(view.expect("the shape was checked when the array was made"))
    }

    /// Returns a view of the items for `ndarray`, for writing. Copies the memory first if it is shared or
    /// read-only.
    ///
    /// # Errors
    /// Returns the same errors as [`as_mut_slice`](Array::as_mut_slice).
    #[cfg(feature = "ndarray")]
    pub fn view_mut<T: Element>(&mut self) -> Result<ndarray::ArrayViewMutD<'_, T>, ArrayError> {
        let shape = ndarray::IxDyn(self.shape());
        let view = ndarray::ArrayViewMutD::from_shape(shape, self.as_mut_slice::<T>()?);
        Ok(view.expect("the shape was checked when the array was made"))
    }
}

fn check_dtype<T: Element>(found: DType) -> Result<(), ArrayError> {
    let expected = T::DTYPE;
    if expected == found { Ok(()) } else { Err(ArrayError::DType { expected, found }) }
}

pub(crate) fn check_rank(array: &Array, expected: usize) -> Result<(), ArrayError> {
    let shape = array.shape();
    if shape.len() == expected { Ok(()) } else { Err(ArrayError::Rank { expected, shape: shape.into() }) }
}

/// Returns the error for the first byte that is not a `bool`.
fn bad_bool(bytes: &[u8]) -> ArrayError {
    let index = bytes.iter().position(|&byte| byte > 1).unwrap_or_default();
    let bits = bytes.get(index).copied().unwrap_or_default().into();
    ArrayError::BadItem { dtype: DType::Bool, index, bits }
}

fn misfit(value: Value, found: DType, expected: DType) -> ArrayError {
    match value {
        Value::Int(value) if expected != DType::Bool => {
            ArrayError::OutOfRange { value: value.to_string(), found, expected }
        }
        _ => ArrayError::DType { expected, found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Complex};

    #[test]
    fn slices_are_strict() {
        let array = Array::from(vec![1i32, 2]);
        let error = array.as_slice::<u32>().unwrap_err();
        assert_eq!(error, ArrayError::DType { expected: DType::U32, found: DType::I32 });
        assert_eq!(array.to_vec::<i32>().unwrap(), [1, 2]);
    }

    #[test]
    fn bools_of_a_peer_are_checked() {
        let mut array = Array::from_buffer(DType::Bool, 3, vec![0, 1, 7].into()).unwrap();
        let error = ArrayError::BadItem { dtype: DType::Bool, index: 2, bits: 7 };
        assert_eq!(array.as_slice::<bool>().unwrap_err(), error);
        assert_eq!(array.as_mut_slice::<bool>().unwrap_err(), error);
        assert_eq!(array.row(1).item::<bool>(), Ok(true));
        let error = array.row(2).item::<bool>().unwrap_err();
        assert_eq!(error.to_string(), "item 0 of the array has bits 0x7, which no bool has");
    }

    #[test]
    fn unaligned_memory_is_an_error_or_copied() {
        let memory = Buffer::zeroed(9).slice(1..);
        let mut array = Array::from_buffer(DType::F32, 2, memory).unwrap();
        assert_eq!(array.as_slice::<f32>().unwrap_err(), ArrayError::Unaligned { dtype: DType::F32 });
        assert_eq!(array.to_vec::<f32>().unwrap(), [0.0; 2]);
        array.as_mut_slice::<f32>().unwrap()[0] = 1.0;
        assert_eq!(array.as_slice::<f32>().unwrap(), [1.0, 0.0]);
    }

    #[test]
    fn no_items_need_no_alignment() {
        let mut array = Array::from_buffer(DType::F64, [0, 3], Buffer::zeroed(9).slice(1..1)).unwrap();
        assert_eq!(array.as_slice::<f64>(), Ok(&[][..]));
        assert_eq!(array.as_mut_slice::<f64>(), Ok(&mut [][..]));
    }

    #[test]
    fn writing_leaves_clones_alone() {
        let mut array = Array::from(vec![1u8, 2]);
        let clone = array.clone();
        array.as_mut_slice::<u8>().unwrap()[0] = 9;
        assert_eq!((clone.as_bytes(), array.as_bytes()), (&[1, 2][..], &[9, 2][..]));
    }

    #[test]
    fn items_widen_or_fail() {
        assert_eq!(Array::scalar(200u8).item::<i64>(), Ok(200));
        assert_eq!(Array::scalar(3i64).item::<f32>(), Ok(3.0));
        assert_eq!(Array::scalar(0.5f32).item::<Complex<f64>>(), Ok(Complex { re: 0.5, im: 0.0 }));
        let error = Array::scalar(-1i64).item::<u8>().unwrap_err();
        assert_eq!(error.to_string(), "the int64 -1 cannot be read as uint8 without loss");
        assert_eq!(Array::scalar(0.1f64).item::<f32>(), Ok(0.1));
        assert!(Array::scalar(1e300f64).item::<f32>().is_err());
        let error = Array::scalar(1i64).item::<bool>().unwrap_err();
        assert_eq!(error, ArrayError::DType { expected: DType::Bool, found: DType::I64 });
        let error = Array::from([1i64]).item::<i64>().unwrap_err();
        assert_eq!(error.to_string(), "the array has shape [1]; expected 0 axes, 0 being a scalar");
        assert!(Array::zeros_of(DType::Unicode(2), ()).item::<i64>().is_err());
    }

    #[cfg(feature = "half")]
    #[test]
    fn halves_are_elements() {
        use half::{bf16, f16};
        assert_eq!(Array::from(vec![f16::ONE]).to_vec::<f16>().unwrap(), [f16::ONE]);
        assert_eq!(Array::scalar(bf16::from_f32(-2.5)).item::<bf16>(), Ok(bf16::from_f32(-2.5)));
        assert_eq!(Array::scalar(f16::from_f32(0.1)).item::<f16>(), Ok(f16::from_f32(0.1)));
        assert_eq!(Array::scalar(f16::from_f32(0.1)).item::<f64>(), Ok(f16::from_f32(0.1).to_f64()));
        assert!(Array::scalar(bf16::ONE).item::<f16>().is_err());
    }
}
