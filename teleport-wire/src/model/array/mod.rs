//! Arrays: a dtype, a shape, and counted bytes in C order.
//!
//! An [`Array`] is made from a vector, a slice, or the memory of a pool or connection. Rows are views of the
//! same memory. Nothing is ever broadcast or converted.

pub(crate) mod access;
pub(crate) mod display;
pub(crate) mod error;
#[cfg(feature = "ndarray")]
mod ndarray;
mod strings;

use std::ops::{Range, RangeBounds};

use bytemuck::cast_slice;

use crate::model::buffer::{Buffer, bounds};
use crate::model::{array::error::ArrayError, dtype::DType, element::Element, shape::Shape};

/// An array of items of one [`DType`], in C order, on memory that clones and views share.
///
/// ```
/// use teleport_wire::{Array, DType};
///
/// let mut image = Array::zeros::<f32>([2, 3]);
/// image.as_mut_slice::<f32>()?[4] = 0.5;
/// let row = image.row(1); // a view: no copy
/// assert_eq!(row.shape(), [3]);
/// assert_eq!(row.as_slice::<f32>()?, [0.0, 0.5, 0.0]);
/// assert_eq!(row.as_slice::<f64>().unwrap_err().to_string(), "the array is float32, not float64");
/// # Ok::<(), teleport_wire::ArrayError>(())
/// ```
///
/// Equality compares dtype, shape and bytes: a NaN equals the same NaN, and `0.0` differs from `-0.0`.
#[derive(Clone, PartialEq, Eq)]
pub struct Array {
    dtype: DType,
    shape: Shape,
    /// Invariant: its length is `dtype.array_bytes(shape)`, which fits an `isize`. So sizes of parts need no
    /// overflow checks.
    buffer: Buffer,
}

impl Array {
    /// Creates an array on `buffer`, which must hold exactly the bytes of its items in C order.
    ///
    /// # Errors
    /// Returns [`ArrayError::Length`] if the buffer has another length, and [`ArrayError::TooLarge`] if no
    /// memory could hold such an array.
    pub fn from_buffer(dtype: DType, shape: impl Into<Shape>, buffer: Buffer) -> Result<Array, ArrayError> {
        let shape = shape.into();
        match dtype.array_bytes(&shape) {
            None => Err(ArrayError::TooLarge { dtype, shape: shape.as_slice().into() }),
            Some(bytes) if bytes != buffer.len() => {
                let shape = shape.as_slice().into();
                Err(ArrayError::Length { dtype, shape, expected_bytes: bytes, found_bytes: buffer.len() })
            }
            Some(_) => Ok(Array { dtype, shape, buffer }),
        }
    }

    /// Creates an array on `buffer`, which has the bytes of this shape: that was checked for all messages
    /// with it.
    #[inline]
    pub(crate) fn of_leaf(dtype: DType, shape: &Shape, buffer: Buffer) -> Array {
        debug_assert_eq!(dtype.array_bytes(shape), Some(buffer.len()), "the bytes of the shape");
        Array { dtype, shape: shape.clone(), buffer }
    }

    /// Creates an array on the memory of `items`, without a copy.
    ///
    /// # Errors
    /// Returns [`ArrayError::Length`] if the shape has another number of items.
    pub fn from_vec<T: Element>(items: Vec<T>, shape: impl Into<Shape>) -> Result<Array, ArrayError> {
        Array::from_buffer(T::DTYPE, shape, Buffer::from_vec(items))
    }

    /// Copies `items` into a new array.
    ///
    /// # Errors
    /// Returns [`ArrayError::Length`] if the shape has another number of items.
    pub fn from_slice<T: Element>(items: &[T], shape: impl Into<Shape>) -> Result<Array, ArrayError> {
        Array::from_buffer(T::DTYPE, shape, Buffer::copy_from(cast_slice(items)))
    }

    /// Creates an array of rank 0 with one item.
    pub fn scalar<T: Element>(item: T) -> Array {
        Array { dtype: T::DTYPE, shape: Shape::SCALAR, buffer: Buffer::copy_from(cast_slice(&[item])) }
    }

    /// Allocates an array of zeros. The `alloc` of a pool reuses memory instead.
    ///
    /// # Panics
    /// Panics if no memory could hold such an array.
    pub fn zeros<T: Element>(shape: impl Into<Shape>) -> Array {
        Array::zeros_of(T::DTYPE, shape)
    }

    /// Allocates an array of zeros of a dtype known at run time: `false`, the empty string, 1970-01-01.
    ///
    /// # Panics
    /// Panics if no memory could hold such an array.
    pub fn zeros_of(dtype: DType, shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        let Some(bytes) = dtype.array_bytes(&shape) else {
            panic!("{}", ArrayError::TooLarge { dtype, shape: shape.as_slice().into() })
        };
        Array { dtype, shape, buffer: Buffer::zeroed(bytes) }
    }

    /// Returns the type of the items.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the sizes of the axes, outermost first. A scalar has none.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns true if the array has this shape.
    #[inline]
    pub(crate) fn has_shape(&self, shape: &Shape) -> bool {
        self.shape == *shape
    }

    /// Returns true if there is memory to give back when the array is dropped.
    #[inline]
    pub(crate) fn has_drop(&self) -> bool {
        !(self.shape.is_inline() && self.buffer.is_inline())
    }

    /// Returns the number of axes: 0 for a scalar.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Returns the number of items: the product of the shape, so 1 for a scalar.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns true if there are no items.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Returns the size of the items in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the bytes of the items, in C order, little-endian.
    ///
    /// Up to 8 bytes may be in the array itself. Then their address changes when the array is moved: take it
    /// only once the array has its final place.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Returns the memory of the items.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Converts the array into the memory of its items, without a copy.
    pub fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// Returns the same items in another shape, without a copy.
    ///
    /// # Errors
    /// Returns [`ArrayError::Reshape`] if the number of items differs.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Array, ArrayError> {
        let shape = shape.into();
        // Compared by items, not bytes: items of no bytes would fit any shape.
        let same = self.dtype.array_bytes(&shape).is_some() && shape.iter().product::<usize>() == self.len();
        if !same {
            return Err(ArrayError::Reshape { from: self.shape().into(), to: shape.as_slice().into() });
        }
        Ok(Array { shape, ..self })
    }

    /// Returns the item at `index` of the first axis, as a view without that axis.
    ///
    /// # Panics
    /// Panics if there is no such row. A scalar has no rows.
    pub fn row(&self, index: usize) -> Array {
        let Some((&rows, shape)) = self.shape.split_first() else { panic!("row {index} of a scalar") };
        assert!(index < rows, "row {index} of an array of {rows} rows");
        let bytes = self.buffer.len() / rows;
        let buffer = self.buffer.slice(index * bytes..(index + 1) * bytes);
        Array { dtype: self.dtype, shape: shape.into(), buffer }
    }

    /// Returns a range of rows along the first axis, as a view.
    ///
    /// # Panics
    /// Panics if the range leaves the array. A scalar has no rows.
    pub fn rows(&self, range: impl RangeBounds<usize>) -> Array {
        let Some((&rows, rest)) = self.shape.split_first() else { panic!("rows of a scalar") };
        let Range { start, end } = bounds(range, rows);
        assert!(start <= end && end <= rows, "rows {start}..{end} of an array of {rows} rows");
        let bytes = self.buffer.len().checked_div(rows).unwrap_or(0);
        let buffer = self.buffer.slice(start * bytes..end * bytes);
        Array { dtype: self.dtype, shape: Shape::from(rest).with_first(end - start), buffer }
    }

    /// Copies the array into memory of its own, aligned to [`Buffer::ALIGNMENT`], or to 8 if it has at most
    /// 8 bytes. The copy does not keep the memory of this array alive.
    pub fn detach(&self) -> Array {
        Array { dtype: self.dtype, shape: self.shape.clone(), buffer: Buffer::copy_from(&self.buffer) }
    }
}

/// Creates an array of one axis on the vector's memory.
impl<T: Element> From<Vec<T>> for Array {
    fn from(items: Vec<T>) -> Array {
        Array { dtype: T::DTYPE, shape: items.len().into(), buffer: Buffer::from_vec(items) }
    }
}

/// Copies the items into an array of one axis.
impl<T: Element> From<&[T]> for Array {
    fn from(items: &[T]) -> Array {
        Array { dtype: T::DTYPE, shape: items.len().into(), buffer: Buffer::copy_from(cast_slice(items)) }
    }
}

/// Copies the items into an array of one axis.
impl<T: Element, const LEN: usize> From<[T; LEN]> for Array {
    fn from(items: [T; LEN]) -> Array {
        items.as_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_two_cache_lines() {
        assert!(size_of::<Array>() <= 128, "{} bytes", size_of::<Array>());
        assert!(size_of::<crate::TreeError>() <= 96, "{} bytes", size_of::<crate::TreeError>());
    }

    #[test]
    fn lengths_are_checked() {
        let error = Array::from_vec(vec![1u16; 5], [2, 3]).unwrap_err();
        let text = "an array of uint16 and shape [2, 3] takes 12 bytes, but its memory has 10";
        assert_eq!(error.to_string(), text);
        let error = Array::from_buffer(DType::U8, [usize::MAX, 2], Buffer::empty()).unwrap_err();
        assert!(matches!(error, ArrayError::TooLarge { .. }));
        assert_eq!(Array::from_slice(&[1u8, 2], [1, 2]).unwrap().shape(), [1, 2]);
    }

    #[test]
    fn rows_are_views() {
        let array = Array::from_vec((0..12i32).collect(), [3, 2, 2]).unwrap();
        let row = array.row(1);
        assert_eq!((row.shape(), row.as_slice::<i32>().unwrap()), (&[2, 2][..], &[4, 5, 6, 7][..]));
        assert_eq!(row.as_bytes().as_ptr(), array.as_bytes()[16..].as_ptr());
        let rows = array.rows(1..);
        assert_eq!((rows.shape(), rows.bytes()), (&[2, 2, 2][..], 32));
        assert_eq!(rows.row(0), row);
        assert_eq!(array.rows(1..=1).shape(), [1, 2, 2]);
        assert!(array.rows(2..2).is_empty());
    }

    #[test]
    fn rows_without_items() {
        let array = Array::zeros::<f32>([3, 0]);
        assert_eq!(array.row(2).shape(), [0]);
        assert_eq!(array.rows(1..3).shape(), [2, 0]);
        assert_eq!(Array::zeros::<f32>([0, 3]).rows(..).shape(), [0, 3]);
        let array = Array::zeros_of(DType::Bytes(0), [4]);
        assert_eq!((array.len(), array.bytes(), array.row(3).rank()), (4, 0, 0));
    }

    #[test]
    #[should_panic = "row 3 of an array of 3 rows"]
    fn rows_stay_inside() {
        Array::zeros::<u8>([3]).row(3);
    }

    #[test]
    #[should_panic = "exceeds the address space"]
    fn zeros_beyond_memory() {
        let _ = Array::zeros::<u8>([usize::MAX, 2]);
    }

    #[test]
    fn detached_rows_do_not_share_memory() {
        let mut array = Array::zeros::<u8>([2, 3]);
        let row = array.row(0).detach();
        let start = array.as_bytes().as_ptr();
        array.as_mut_slice::<u8>().unwrap().fill(1);
        assert_eq!(array.as_bytes().as_ptr(), start, "the copy does not share memory");
        assert_eq!(row, Array::zeros::<u8>([3]));
    }

    #[test]
    fn reshape_keeps_the_memory() {
        let array = Array::from(vec![1u8, 2, 3, 4]);
        let start = array.as_bytes().as_ptr();
        let array = array.reshape([2, 2]).unwrap();
        assert_eq!((array.shape(), array.as_bytes().as_ptr()), (&[2, 2][..], start));
        let error = array.reshape([3]).unwrap_err();
        let text = "an array of shape [2, 2] cannot take shape [3]: the numbers of items differ";
        assert_eq!(error.to_string(), text);
        assert!(Array::zeros_of(DType::Bytes(0), [4]).reshape([5]).is_err());
        assert!(Array::zeros::<u8>([0]).reshape([usize::MAX, usize::MAX, 0]).is_err());
        assert!(Array::scalar(1u8).reshape([1, 1]).is_ok());
    }
}
